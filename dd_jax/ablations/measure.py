"""Evaluates a finished run with several lookup frames: ``python -m dd_jax.ablations.measure FOLDER`` writes scores.json."""

import dataclasses
import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from dd_jax.ablations.result import LOOKUPS, PREDICTORS, Scores
from dd_jax.checkpoints import run_folder
from dd_jax.config import ConfigError
from dd_jax.data.loader import open_split
from dd_jax.diagnosis.diagnose import images_by_lookup
from dd_jax.diagnosis.lookup import drive_of
from dd_jax.evaluation import metrics
from dd_jax.evaluation.evaluate import REGIONS
from dd_jax.method import compiled_steps
from dd_jax.runtime import command_line, compilation_cache, files, parallel

FILE = "scores.json"

Images = Sequence[tuple[str, metrics.Result]]  # (name, scores)


def measure(folder: Path) -> Scores:
    """Scores of the last step of a run on its test split.

    Raises:
      ConfigError: no checkpoint, or no image of the split has ground truth.
    """
    restored = run_folder.restore_params(folder, "latest")
    devices = jax.local_devices()
    config = parallel.with_even_batches(restored.config, devices)
    predict = compiled_steps.compile_predict_step(config, devices)
    state = parallel.replicate(restored.state, devices)
    source = open_split(config.data, "test")
    return by_drive(images_by_lookup(lambda batch: predict(state, batch), source, config, LOOKUPS))


def by_drive(images: dict[str, Images]) -> Scores:
    """Means over the images of every drive; ``images`` are of ``PREDICTORS``.

    Raises:
      ConfigError: no image has ground truth.
    """
    counts: dict[str, dict[str, int]] = {}
    means: dict[str, dict[str, dict[str, float]]] = {who: {} for who in PREDICTORS}
    for who in PREDICTORS:
        for region in REGIONS:
            errors: dict[str, list[float]] = {}
            for name, scores in images[who]:
                if scores.get(region, {}).get("pixels"):
                    errors.setdefault(drive_of(name), []).append(scores[region]["abs_rel"])
            if errors:
                counts[region] = {drive: len(values) for drive, values in errors.items()}
                means[who][region] = {drive: round(float(np.mean(values)), 7) for drive, values in errors.items()}
    if not counts:
        raise ConfigError("no image of the test split has ground truth: set --config.data.root to data that have it")
    names = "\n".join(name for name, _ in images["previous"])
    return Scores(hashlib.sha256(names.encode()).hexdigest()[:16], counts, means)


if __name__ == "__main__":
    compilation_cache.enable()
    with command_line.job():
        place = Path(sys.argv[1])
        files.replace(place / FILE, json.dumps(dataclasses.asdict(measure(place))) + "\n")
