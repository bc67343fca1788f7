"""The only way this project measures depth: validation inside training, ``scripts/evaluate.py`` and the report use it.

Every predictor of every image goes through the same resizing, median scaling and crop (``dd_jax/metrics.py``); a score is
the mean over images of the image's score, as in the published tables.
"""

import csv
import dataclasses
import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, UInt8
from tqdm import tqdm

from dd_jax import checkpoint, metrics, report, train_step
from dd_jax.config import Config, ConfigError, to_dict
from dd_jax.data.frames import GroundTruth
from dd_jax.data.loader import TripletSource, eval_batches, open_split
from dd_jax.types import PREVIOUS, TARGET, Batch, Predictions, TrainState

REGIONS = ("all", "dynamic", "moving", "static")
NETWORKS = ("student", "teacher")
PREDICTORS = (*NETWORKS, "constant", "mean_map")

MEAN_MAP_FRAMES = 300
"""Training frames, evenly spread, whose ground truth makes the mean map."""

Scores = dict[str, dict[str, dict[str, float | int | None]]]
"""predictor -> region -> the seven metrics (None without a pixel) and ``pixels``."""


@dataclasses.dataclass
class Results:
    """What :func:`evaluate` finds."""

    metrics: Scores
    scales: dict[str, dict[str, float]]  # predictor -> median and relative standard deviation of the scale factors
    images: list[tuple[str, dict[str, metrics.Result]]]  # (sample, predictor -> its own scores; empty without ground truth)
    panels: dict[str, UInt8[np.ndarray, "_ _ 3"]]  # sample -> picture
    images_per_second: float  # reading, network and measuring together, the first batch with its compilation left out


def make_predict(config: Config) -> Callable[[TrainState, Batch], Predictions]:
    """The compiled prediction of a system: (state, two-frame batch as the loader yields it) -> Predictions."""
    return jax.jit(lambda state, batch: train_step.predict(state, batch, config))


def evaluate(
    predict_fn: Callable[[Batch], Predictions],
    source: TripletSource,
    config: Config,
    predictors: Sequence[str] = NETWORKS,
    *,
    train_source: TripletSource | None = None,
    max_frames: int = 0,
    num_panels: int = 4,
    progress: bool = False,
) -> Results:
    """Scores of ``predictors`` on the samples of ``source``.

    Args:
      predict_fn: called once per batch; it may return before the device is done, the previous batch is measured meanwhile.
      config: ``eval`` says how to measure, ``eval.ground_truth`` against what. Without ground truth the metrics are None.
      predictors: of :data:`PREDICTORS`. "constant" is one depth everywhere (median scaling makes the value irrelevant),
        "mean_map" the mean ground truth of ``train_source`` per pixel: what can be had without looking at the image.
      max_frames: that many samples, evenly spread; 0 = all.
      num_panels: pictures to make, of evenly spread samples.

    Raises:
      ConfigError: "mean_map" without ground truth in ``train_source``.
    """
    size = config.data.height, config.data.width
    baselines = {}
    if "constant" in predictors:
        baselines["constant"] = np.ones(size, np.float32)
    if "mean_map" in predictors:
        baselines["mean_map"] = mean_map(train_source, config)

    indices = spread(len(source), max_frames)
    pictured = {indices[i] for i in spread(len(indices), num_panels)} if num_panels else set()
    images: list[tuple[str, dict[str, metrics.Result]]] = []
    panels: dict[str, UInt8[np.ndarray, "_ _ 3"]] = {}
    started, counted = time.perf_counter(), len(indices)
    with (
        ThreadPoolExecutor(max(1, config.data.threads)) as pool,
        tqdm(total=len(indices), disable=not progress, unit="image") as bar,
    ):
        num_frames = 3 if config.cost_volume.future_frame else 2
        batches = eval_batches(source, indices, config.eval.batch_size, num_frames)
        for real, batch, prediction in one_ahead(predict_fn, batches):
            disps = {who: np.asarray(getattr(prediction, who)) for who in NETWORKS if who in predictors}
            if not images and len(real) < len(indices):  # the speed is that of the later batches: this one was compiled
                started, counted = time.perf_counter(), len(indices) - len(real)

            def measure(position: int, real=real, disps=disps) -> tuple[GroundTruth | None, dict[str, metrics.Result]]:
                truth = source.ground_truth(int(real[position]), config.eval.ground_truth)
                maps = {who: disp[position] for who, disp in disps.items()} | baselines
                return truth, {} if truth is None else image_scores(maps, truth, config)

            for position, (truth, scores) in enumerate(pool.map(measure, range(len(real)))):
                name = source.name(int(real[position]))
                images.append((name, scores))
                if real[position] in pictured:
                    panels[name] = sample_panel(position, batch, prediction, truth, predictors, config)
            bar.update(len(real))
    summaries = {who: metrics.summarize([scores[who] for _, scores in images if scores]) for who in predictors}
    return Results(
        metrics={who: tabulate(summary) for who, summary in summaries.items()},
        scales={who: summary["scale"] for who, summary in summaries.items() if "scale" in summary},
        images=images,
        panels=panels,
        images_per_second=counted / (time.perf_counter() - started),
    )


def one_ahead(
    predict_fn: Callable[[Batch], Predictions], batches: Iterable[tuple[np.ndarray, Batch]]
) -> Iterator[tuple[np.ndarray, Batch, Predictions]]:
    """Predictions of the batches in order; each is handed out once the next is on its way, so that host and device overlap."""
    waiting = None
    for real, batch in batches:
        prediction = predict_fn(batch)
        if waiting is not None:
            yield waiting
        waiting = real, batch, prediction
    if waiting is not None:
        yield waiting


def image_scores(
    inverse_depths: dict[str, Float[np.ndarray, "h w"]], truth: GroundTruth, config: Config
) -> dict[str, metrics.Result]:
    """Errors of every predictor in one image, by region.

    "static" is what does not move where that is known (rendered drives), else what cannot move.
    """
    masks = metrics.regions(truth.dynamic, truth.moving)
    if truth.moving is not None:
        masks["static"] = ~truth.moving
    return {who: metrics.evaluate_image(disp, truth.depth, masks, config.eval) for who, disp in inverse_depths.items()}


def tabulate(summary: metrics.Result) -> dict[str, dict[str, float | int | None]]:
    """The same keys whatever was found: regions without a pixel have None for metrics and 0 pixels."""
    regions = {region: summary.get(region, {}) for region in REGIONS}
    return {
        region: {name: found.get(name) for name in metrics.ERRORS} | {"pixels": found.get("pixels", 0)}
        for region, found in regions.items()
    }


def mean_map(source: TripletSource | None, config: Config) -> Float[np.ndarray, "h w"]:
    """Inverse of the mean depth that each pixel has in the ground truth of ``source``, at training size.

    Pixels never measured take the mean of their row, rows never measured that of the nearest row.

    Raises:
      ConfigError: no ground truth.
    """
    height, width = config.data.height, config.data.width
    total, count = np.zeros(height * width), np.zeros(height * width)
    for index in spread(len(source), MEAN_MAP_FRAMES) if source is not None else ():
        truth = source.ground_truth(index, config.eval.ground_truth)
        if truth is None:
            continue
        depth = metrics.field_of_view(truth.depth, config.eval)
        v, u = np.nonzero((depth > config.eval.min_depth) & (depth < config.eval.max_depth))
        cells = v * height // depth.shape[0] * width + u * width // depth.shape[1]
        total += np.bincount(cells, depth[v, u], height * width)
        count += np.bincount(cells, minlength=height * width)
    if not count.any():
        raise ConfigError("the mean map needs ground truth in the training split, and there is none")
    total, count = total.reshape(height, width), count.reshape(height, width)
    measured = np.flatnonzero(count.any(axis=1))
    row_mean = total[measured].sum(axis=1) / count[measured].sum(axis=1)
    nearest = np.abs(np.arange(height)[:, None] - measured).argmin(axis=1)
    filled = np.where(count > 0, total / np.maximum(count, 1), row_mean[nearest][:, None])
    return (1.0 / filled).astype(np.float32)


def spread(total: int, wanted: int) -> list[int]:
    """``wanted`` of ``total`` positions, evenly spread over all of them; all where ``wanted`` is 0 or too many."""
    return [(i * total + total // 2) // wanted for i in range(wanted)] if 0 < wanted < total else list(range(total))


def sample_panel(
    position: int, batch: Batch, prediction: Predictions, truth: GroundTruth | None, predictors: Sequence[str], config: Config
) -> UInt8[np.ndarray, "_ _ 3"]:
    """The picture of one sample of a batch."""

    def pick(array: Any) -> np.ndarray | None:
        return None if array is None else np.asarray(array[position])

    depths = {name: 1.0 / pick(getattr(prediction, name)) for name in NETWORKS if name in predictors}
    exists = bool(batch.exists[position, PREVIOUS])
    return report.panel(
        batch.images[position, TARGET],
        previous=batch.images[position, PREVIOUS] if exists else None,
        disentangled=pick(prediction.disentangled) if exists else None,
        holes=pick(prediction.holes) if exists else None,
        offsets=pick(prediction.offsets) if exists else None,
        dynamic=batch.masks[position, TARGET],
        truth=None if truth is None else metrics.field_of_view(truth.depth, config.eval),
        **depths,
    )


def format_table(results: Results) -> str:
    """The scores as text, one line per region and predictor; regions without pixels are left out."""
    scores = results.metrics
    lines = [("region", "predictor", *metrics.ERRORS, "pixels")]
    for region in REGIONS:
        for predictor, regions in scores.items():
            row = regions[region]
            if row["pixels"]:
                lines.append((region, predictor, *(f"{row[name]:.4f}" for name in metrics.ERRORS), f"{row['pixels']:,}"))
    if len(lines) == 1:
        return "no ground truth: nothing to measure"
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    aligned = [[cell.ljust(w) if c < 2 else cell.rjust(w) for c, (cell, w) in enumerate(zip(line, widths))] for line in lines]
    scales = [f"{who} {scale['median']:.3g} ± {scale['relative_std']:.1%}" for who, scale in results.scales.items()]
    return "\n".join(["  ".join(line).rstrip() for line in aligned] + ["scale to metres: " + ", ".join(scales)])


def write_metrics(results: Results, directory: str | Path) -> None:
    """``metrics.json`` and ``metrics.csv`` (the scores) and ``per_image.csv`` into ``directory``."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "metrics.json").write_text(json.dumps(results.metrics, indent=2, allow_nan=False) + "\n")
    rows = [
        {"predictor": predictor, "region": region} | values
        for predictor, regions in results.metrics.items()
        for region, values in regions.items()
    ]
    _write_csv(directory / "metrics.csv", ("predictor", "region", *metrics.ERRORS, "pixels"), rows)
    images = [
        {"image": image, "predictor": who, "region": region, "scale": result["scale"]["ratio"]} | result[region]
        for image, results_of_image in results.images
        for who, result in results_of_image.items()
        for region in REGIONS
        if result.get(region, {}).get("pixels")
    ]
    _write_csv(directory / "per_image.csv", ("image", "predictor", "region", *metrics.ERRORS, "pixels", "scale"), images)


def _write_csv(path: Path, columns: Sequence[str], rows: Sequence[dict[str, Any]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def evaluate_checkpoint(
    directory: str | Path, split: str = "test", which: str = "best", out: str | Path | None = None, data_root: str = ""
) -> Results:
    """Measures a trained system as its checkpoint describes it, and writes numbers and a report page.

    Args:
      directory: workdir of the run, or the ``checkpoints`` folder in it.
      split: "train" | "val" | "test".
      which: "best" | "latest" | a step.
      out: gets ``metrics.json``, ``metrics.csv``, ``per_image.csv`` and ``report.html``; default: the workdir.
      data_root: where the data set is on this machine, if not where it was trained.

    Raises:
      ConfigError: no such checkpoint, or data that cannot be read.
    """
    workdir = Path(directory).parent if Path(directory).name == "checkpoints" else Path(directory)
    out = workdir if out is None else Path(out)
    restored = checkpoint.restore_params(directory, which)
    config = restored.config
    if data_root:
        config.data.root, config.data.cache_dir = data_root, ""
    source = open_split(config.data, split)
    predictors, train_source = [*(NETWORKS if config.model.student else NETWORKS[1:]), "constant"], None
    if source.ground_truth(0, config.eval.ground_truth) is not None:
        train_source = open_split(config.data, "train")
        predictors.append("mean_map")

    predict = make_predict(config)
    results = evaluate(
        lambda batch: predict(restored.state, batch),
        source,
        config,
        predictors,
        train_source=train_source,
        num_panels=8,
        progress=True,
    )
    write_metrics(results, out)
    history = report.read_history(workdir)
    rates = [record["images_per_second"] for record in history if "images_per_second" in record]
    facts = {
        "images measured": f"{len(source):,}",
        "checkpoint, step": f"{restored.step:,}",
        "images / s, evaluation": f"{results.images_per_second:.1f}",
    }
    if rates:
        facts["images / s, training"] = f"{np.median(rates):.1f}"
    measured = any(regions["all"]["pixels"] for regions in results.metrics.values())
    report.write_html(
        out / "report.html",
        f"{config.name}: {split} split",
        results=results.metrics if measured else None,
        history=history,
        panels=results.panels,
        facts=facts,
        config=to_dict(config),
        versions=restored.versions,
    )
    return results
