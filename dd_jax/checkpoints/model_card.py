"""The model card of a saved model: Markdown with YAML metadata, as the Hugging Face hub reads it."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from dd_jax.checkpoints.run_folder import SCORE, Restored
from dd_jax.config import Config, protocols
from dd_jax.report.html import METRIC_NAMES

Scores = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""predictor -> region -> metric -> number, as in ``metrics.json``; None if a region has no pixel."""

NETWORKS = ("student", "teacher", "single_frame")
"""Predictors that are part of the model; the others in ``metrics.json`` are baselines."""

DIGEST = "SHA-256 of model.safetensors"
"""Label of the digest of the weights; a file without it is not a card of ours."""

LICENCE = "# license: yours to choose; the licences of the training data and of the initial weights may also apply"


def measured(scores: Scores) -> list[tuple[str, str, Mapping[str, Any]]]:
    """(network, region, metrics) of each region with pixels."""
    return [
        (who, region, {name: float(row[name]) for name in METRIC_NAMES})
        for who, regions in scores.items()
        for region, row in regions.items()
        if who in NETWORKS and row["pixels"]
    ]


def text(restored: Restored, sha256: str, scores: Scores | None) -> str:
    """The whole card.

    Args:
      restored: its config has no local paths.
      sha256: of the weights file.
      scores: None = not evaluated.
    """
    config, rows = restored.config, measured(scores or {})
    imported = "imported" in restored.versions
    origin = "Imported into `dd_jax` from a PyTorch checkpoint." if imported else "Trained with `dd_jax`."
    facts = "\n".join(f"| {name} | {value} |" for name, value in _facts(restored, sha256))
    return f"""---
{_head(config, rows)}---

# {config.name}

Depth from driving video, trained without depth labels. {origin}

| | |
|---|---|
{facts}

## Use

```python
import dd_jax

model = dd_jax.load("hf://OWNER/NAME")                       # or the folder of this file
K = dd_jax.camera_from_fov(81.0, frame.shape[:2])            # of your camera
depth = model.predict(frame, previous=previous, K=K)         # (H, W), in the networks' own unit
```

## Scores

{_scores(config, rows)}

## Data

{"As imported" if imported else "Trained on"}: {_data(config)} `config.json` has every setting.

## Licence

Not chosen yet: see the top of this file.{" The licence of the imported checkpoint holds for its weights." if imported else ""}
"""


def _facts(restored: Restored, sha256: str) -> Iterator[tuple[str, Any]]:
    config, versions = restored.config, dict(restored.versions)
    imported = versions.pop("imported", "")
    model = config.model
    single = "single-frame and pose network of 18 layers"
    if model.student:
        single = f"student of {model.student_layers} layers, {config.cost_volume.bins} depth bins; teacher and pose of 18 layers"
    yield "networks", f"{single}; width {model.width}"
    yield "image size", f"{config.data.height} x {config.data.width}"
    if config.data.frame_step > 1:
        yield "previous frame", f"{config.data.frame_step} frames before"
    near, far = (float(value) for value in restored.state.depth_range)
    if model.student:
        yield "depth bins from, to", f"{near:.4g}, {far:.4g}"
    if imported:
        yield "imported from", imported
    else:
        yield "training steps", f"{restored.step:,} of {config.optim.steps:,}"
    if config.train.init_from or config.train.init_encoders:
        yield "initial weights", config.train.init_from or config.train.init_encoders
    if restored.score is not None:
        yield f"{SCORE} on the validation split", f"{restored.score:.4f}"
    yield "written with", ", ".join(f"{name} {version}" for name, version in versions.items())
    yield DIGEST, f"`{sha256}`"


def _data(config: Config) -> str:
    split = f", split `{config.data.split}`" if config.data.split else ""
    size = f"{config.data.height} x {config.data.width}"
    source = "rendered drives" if _is_rendered(config) else f"`{config.data.source}`"
    return f"{source}{split}, at {size}; object masks: {config.data.masks}; prior depth: {config.data.priors}."


def _is_rendered(config: Config) -> bool:
    """Rendered drives have the layout, and so the ``source``, of KITTI."""
    return config.data.source == "kitti" and protocols.name_of(config.eval) == "synthetic"


def _scores(config: Config, rows: list[tuple[str, str, Mapping[str, Any]]]) -> str:
    if not rows:
        return "Not evaluated."
    lines = [("network", "region", *METRIC_NAMES), ("---",) * (2 + len(METRIC_NAMES))]
    lines += [(who, region, *(f"{row[name]:.4f}" for name in METRIC_NAMES)) for who, region, row in rows]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{protocols.describe(config.eval)}\n\n{table}"


def _head(config: Config, rows: list[tuple[str, str, Mapping[str, Any]]]) -> str:
    """The YAML metadata; strings that may need quotes are JSON, a subset of YAML."""
    lines = ["library_name: dd_jax", "pipeline_tag: depth-estimation", LICENCE, "tags:"]
    lines += [f"- {tag}" for tag in ("depth-estimation", "self-supervised", "jax", json.dumps(config.name))]
    if rows:
        kind, name = config.data.source, f"{config.data.source} {config.data.split}".strip()
        if _is_rendered(config):
            kind, name = "synthetic", "rendered drives"
        results = {
            "task": {"type": "depth-estimation"},
            "dataset": {"type": kind, "name": name},
            "metrics": [
                {"type": metric, "name": f"{metric}, {who}, {region} pixels", "value": row[metric]}
                for who, region, row in rows
                for metric in METRIC_NAMES
            ],
        }
        lines += ["model-index:", f"- name: {json.dumps(config.name)}", f"  results: {json.dumps([results])}"]
    return "".join(f"{line}\n" for line in lines)
