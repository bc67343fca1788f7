"""Depth evaluation: used by validation during training, ``scripts/evaluate.py`` and the report.

Every prediction, computed or read from files, goes through the same resizing, scaling and crop (``evaluation/metrics.py``); a
score is the mean of the scores of the images, as in the published tables.
"""

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType

import jax
import numpy as np
from jaxtyping import Bool, Float, UInt8
from tqdm import tqdm

from dd_jax import report
from dd_jax.checkpoints import saved
from dd_jax.config import Config, ConfigError, DataConfig, EvalConfig, protocols, to_dict
from dd_jax.config.rules import validate
from dd_jax.data.frames import GroundTruth, Listing, intrinsics, resize_mask
from dd_jax.data.loader import TripletSource, eval_batches, list_split, open_split
from dd_jax.evaluation import external_predictions, ground_plane, metrics
from dd_jax.evaluation.baselines import evenly_spaced_indices, mean_map
from dd_jax.evaluation.external_predictions import InverseDepth
from dd_jax.evaluation.panels import extremes, sample_panel
from dd_jax.evaluation.results import Results, make_folder, write_results
from dd_jax.evaluation.trained_model import restore, workdir_of
from dd_jax.method import compiled_steps
from dd_jax.runtime import hosts, parallel, versions
from dd_jax.types import Batch, Predictions

REGIONS = ("all", "dynamic", "moving", "static")
NETWORKS = ("student", "teacher", "single_frame")
"""Predictors that a model has; the last one is called a teacher only where a student learns from it."""

EXTERNAL = "predictions"
PREDICTORS = (*NETWORKS, EXTERNAL, "constant", "mean_map")

EXTREMES = 4
"""Number of worst samples in the report, and of best samples."""


def evaluate(
    predict_fn: Callable[[Batch], Predictions | None],
    source: TripletSource,
    config: Config,
    predictors: Sequence[str] = ("student", "teacher"),
    *,
    external: InverseDepth | None = None,
    offsets_fn: Callable[[Batch], Float[jax.Array, "b h w 3"]] | None = None,
    train_truth: TripletSource | Listing | None = None,
    max_frames: int = 0,
    num_panels: int = 4,
    num_extremes: int = 0,
    progress: bool = False,
) -> Results:
    """Scores of ``predictors`` on the samples of ``source``.

    Args:
      predict_fn: called once per batch; it may return before the device has finished, the previous batch is scored meanwhile.
      config: ``eval`` is the protocol. Without ground truth the metrics are None.
      predictors: of :data:`PREDICTORS`. "predictions" are those of ``external``. The baselines do not use the image: "constant"
        is one depth everywhere (any, with median scaling), "mean_map" the mean of ``train_truth`` per pixel.
      external: 1 / depth of a sample by another program, see ``external_predictions.open_predictions``.
      offsets_fn: output of the flow network, for panels only.
      max_frames: number of samples, evenly spaced; 0 = all.
      num_panels: number of panels, of evenly spaced samples.
      num_extremes: number of worst and of best samples with panels in addition, at most half of the samples each.

    Raises:
      ConfigError: "mean_map" without ground truth in ``train_truth``, invalid external predictions, or different samples in
        another process.
    """
    baselines = {}
    if "constant" in predictors:
        baselines["constant"] = np.ones((config.data.height, config.data.width), np.float32)
    if "mean_map" in predictors:
        baselines["mean_map"] = mean_map(train_truth, config)

    indices = evenly_spaced_indices(len(source), max_frames)
    hosts.require_same("their images", [source.name(index) for index in indices])
    own_places = hosts.share(range(len(indices)))
    with_panel = evenly_spaced_indices(len(indices), num_panels) if num_panels else []
    panels: dict[int, np.ndarray] = {}
    images: list[tuple[str, dict[str, metrics.Result]]] = []
    started, counted = time.perf_counter(), len(own_places)
    with (
        ThreadPoolExecutor(max(1, config.data.threads)) as pool,
        tqdm(total=counted, disable=not (progress and hosts.primary()), unit="image") as bar,
    ):
        for real, batch, prediction in predict_batches(predict_fn, source, [indices[place] for place in own_places], config):
            maps = inverse_depths(prediction, external, predictors)
            if not images and len(real) < counted:  # the speed excludes the first batch, which includes the compilation
                started, counted = time.perf_counter(), counted - len(real)

            def measure(position: int, real=real, batch=batch, maps=maps) -> dict[str, metrics.Result]:
                index = int(real[position])
                own = {who: of(position, index) for who, of in maps.items()}
                truth = source.ground_truth(index, config.eval.ground_truth)
                if truth is None:
                    return {}
                if EXTERNAL in own:
                    trained = config.data.height, config.data.width
                    external_predictions.check_view(own[EXTERNAL], truth.depth, source.name(index), trained)
                return image_scores(own, baselines, truth, batch.K[position], config)

            scores = list(pool.map(measure, range(len(real))))
            for position, (index, own) in enumerate(zip(map(int, real), scores)):
                if (place := own_places.start + len(images) + position) in with_panel:
                    panels[place] = make_panel(source, index, position, batch, prediction, maps, offsets_fn, own, config)
            images += zip((source.name(int(index)) for index in real), scores)
            bar.update(len(real))
    found = hosts.gather((images, panels, counted / (time.perf_counter() - started)))
    images = [image for own, _, _ in found for image in own]
    panels = {place: panel for _, own, _ in found for place, panel in own.items()}

    worst, best = extremes([scores[predictors[0]] if scores else {} for _, scores in images], num_extremes)
    missing = sorted({*worst, *best} - {*panels})  # known only now, so predicted a second time
    again = [indices[place] for place in missing]
    for real, batch, prediction in predict_batches(predict_fn, source, again, config):
        maps = inverse_depths(prediction, external, predictors)
        for position, index in enumerate(map(int, real)):
            place = missing.pop(0)
            scores = images[place][1]
            panels[place] = make_panel(source, index, position, batch, prediction, maps, offsets_fn, scores, config)
    summaries = {who: metrics.summarize([scores[who] for _, scores in images if scores]) for who in predictors}
    return Results(
        metrics={who: tabulate(summary) for who, summary in summaries.items()},
        scales={who: summary["scale"] for who, summary in summaries.items() if "scale" in summary},
        images=images,
        panels={images[place][0]: panels[place] for place in with_panel},
        worst=[report.ReportSample(images[place][0], panels[place], images[place][1]) for place in worst],
        best=[report.ReportSample(images[place][0], panels[place], images[place][1]) for place in best],
        images_per_second=sum(rate for _, _, rate in found),
    )


def networks_of(config: Config) -> tuple[str, ...]:
    """Depth networks of a model, the best one first."""
    return ("student", "teacher") if config.model.student else ("single_frame",)


def predict_batches(
    predict_fn: Callable[[Batch], Predictions | None], source: TripletSource, indices: Sequence[int], config: Config
) -> Iterator[tuple[np.ndarray, Batch, Predictions | None]]:
    """Predictions of the samples ``indices``, in the batches of :func:`eval_batches`.

    Each is yielded after the next is dispatched, so that host and device overlap.
    """
    num_frames = 3 if config.cost_volume.future_frame else 2
    waiting = None
    for real, batch in eval_batches(source, indices, config.eval.batch_size, num_frames):
        prediction = predict_fn(batch)
        if waiting is not None:
            yield waiting
        waiting = real, batch, prediction
    if waiting is not None:
        yield waiting


def inverse_depths(
    prediction: Predictions | None, external: InverseDepth | None, predictors: Sequence[str]
) -> dict[str, Callable[[int, int], Float[np.ndarray, "_ _"]]]:
    """predictor -> function from position in the batch and index to the sample's map; networks and external predictions only."""

    def of(who: str) -> Callable[[int, int], np.ndarray]:
        if who == EXTERNAL:
            return lambda position, index: external(index)
        batch = jax.device_get(getattr(prediction, "teacher" if who == "single_frame" else who))
        return lambda position, index: batch[position]

    return {who: of(who) for who in predictors if who in NETWORKS or who == EXTERNAL}


def image_scores(
    inverse_depths: Mapping[str, Float[np.ndarray, "_ _"]],
    baselines: Mapping[str, Float[np.ndarray, "h w"]],
    truth: GroundTruth,
    K: Float[np.ndarray, "3 3"],
    config: Config,
) -> dict[str, metrics.Result]:
    """Errors of every predictor in one image, by region; ``baselines`` are in metres unless median scaling is used."""
    masks = region_masks(truth, config)
    factors = {who: scale_factor(disp, K, config) for who, disp in inverse_depths.items()}
    factors |= dict.fromkeys(baselines, None if config.eval.scaling == "median" else 1.0)
    maps = {**inverse_depths, **baselines}
    return {who: metrics.evaluate_image(disp, truth.depth, masks, config.eval, factors[who]) for who, disp in maps.items()}


def region_masks(truth: GroundTruth, config: Config) -> dict[str, Bool[np.ndarray, "_ _"]]:
    """Pixels of the known regions other than "all".

    "static" is what does not move where motion is known (rendered drives), else everything outside potentially dynamic objects.
    """
    dynamic = truth.dynamic
    if dynamic is not None and config.eval.object_masks == "network":
        dynamic = resize_mask(dynamic, config.data.height, config.data.width)
    masks = metrics.regions(dynamic, truth.moving)
    if truth.moving is not None:
        masks["static"] = ~truth.moving
    return masks


def scale_factor(disp: Float[np.ndarray, "h w"], K: Float[np.ndarray, "3 3"], config: Config) -> float | None:
    """Factor from predicted depth to metres without ground truth (``eval.scaling``); None for median scaling.

    ``K`` is of the training size, whatever the size of the map.
    """
    match config.eval.scaling:
        case "given":
            return config.eval.scale
        case "none":
            return 1.0
        case "camera_height":
            trained = config.data.height, config.data.width
            fx, fy, cx, cy = (float(K[place]) for place in ((0, 0), (1, 1), (0, 2), (1, 2)))
            K = intrinsics(fx, fy, cx, cy, trained, disp.shape, "the camera")
            return config.eval.camera_height / ground_plane.camera_height(disp, K, config.eval.camera_pitch)
        case _:
            return None


def tabulate(summary: metrics.Result) -> dict[str, dict[str, float | int | None]]:
    """Summary with fixed keys: regions without pixels have None for metrics, 0 pixels and 0 images."""
    regions = {region: summary.get(region, {}) for region in REGIONS}
    return {
        region: {name: found.get(name) for name in (*metrics.ERRORS, *metrics.FURTHER)}
        | {name: found.get(name, 0) for name in ("pixels", "images")}
        for region, found in regions.items()
    }


def make_panel(
    source: TripletSource,
    index: int,
    position: int,
    batch: Batch,
    prediction: Predictions | None,
    maps: Mapping[str, Callable[[int, int], Float[np.ndarray, "_ _"]]],
    offsets_fn: Callable[[Batch], Float[jax.Array, "b h w 3"]] | None,
    scores: Mapping[str, metrics.Result],
    config: Config,
) -> UInt8[np.ndarray, "_ _ 3"]:
    """The panel of sample ``index``, at ``position`` of a batch; ``maps`` as returned by :func:`inverse_depths`."""
    own = {who: of(position, index) for who, of in maps.items()}
    truth = source.ground_truth(index, config.eval.ground_truth)
    offsets = None if offsets_fn is None else offsets_fn(batch)
    return sample_panel(position, batch, prediction, offsets, own, truth, scores, config.eval)


def has_truth(source: TripletSource | Listing, config: EvalConfig) -> bool:
    """Whether any of a few evenly spaced samples has the ground truth of the protocol."""
    return any(source.ground_truth(index, config.ground_truth) is not None for index in evenly_spaced_indices(len(source), 8))


def training_truth(data: DataConfig, config: EvalConfig) -> TripletSource | Listing | None:
    """The training split if it has ground truth, for the baseline "mean_map"; prints why if it cannot be listed."""
    try:
        listing = list_split(data, "train")
    except ConfigError as error:
        print(f"the baseline mean_map is left out: {error}")
        return None
    return listing if has_truth(listing, config) else None


def evaluate_checkpoint(
    directory: str | Path,
    split: str = "test",
    which: str = "best",
    out: str | Path | None = None,
    data_root: str = "",
    protocol: str = "",
    changes: Mapping[str, object] = MappingProxyType({}),
    ground_truth_file: str = "",
    allow_pickle: bool = False,
    split_dir: str = "",
    cache_dir: str = "",
) -> Results:
    """Evaluates a trained model with the config of its checkpoint, or with changes, and writes scores and a report.

    Args:
      directory: workdir of the run, its ``checkpoints`` folder, or a saved model as in ``saved.restore``.
      split: "train" | "val" | "test".
      which: "best" | "latest" | a step.
      out: gets ``metrics.json``, ``metrics.csv``, ``per_image.csv`` and ``report.html``; default: the workdir, or a folder in it
        named after the protocol if that differs from the checkpoint's.
      data_root: folder of the data set, if it differs from that of the training.
      protocol: of ``protocols.PROTOCOLS``, instead of the checkpoint's.
      changes: further changed fields of ``EvalConfig``.
      ground_truth_file, allow_pickle: as in ``DataConfig``, if they differ from those of the run.
      split_dir: likewise, for the evaluated split.
      cache_dir: folder of the frame cache, where that of the data set cannot be written.

    Raises:
      ConfigError: an unknown checkpoint or protocol, data that cannot be read, or an ``out`` that cannot be written.
    """
    if out is None and saved.is_name(directory):
        raise ConfigError(f"{directory} cannot hold results: choose a folder with --out")
    workdir = workdir_of(directory)
    changed = data_root, protocol, changes, ground_truth_file, allow_pickle, split_dir, cache_dir
    restored, train_data, trained = restore(directory, which, *changed)
    config = restored.config
    hosts.require_same("the checkpoint or the protocol", (restored.step, to_dict(config)["eval"]))
    if out is None:
        same = config.eval == dataclasses.replace(trained, batch_size=config.eval.batch_size)
        out = workdir if same else workdir / protocols.name_of(config.eval)
    source = open_split(config.data, split)
    make_folder(out)
    predictors, train_truth = [*networks_of(config)], None
    if config.eval.scaling == "median":
        predictors.append("constant")
    if has_truth(source, config.eval) and (train_truth := training_truth(train_data, config.eval)) is not None:
        predictors.append("mean_map")

    devices = jax.local_devices()
    predict, state = compiled_steps.compile_predict_step(config, devices), parallel.replicate(restored.state, devices)
    offsets = compiled_steps.compile_offsets_step(config, devices)
    results = evaluate(
        lambda batch: predict(state, batch),
        source,
        parallel.with_even_batches(config, devices),
        predictors,
        offsets_fn=None if offsets is None else lambda batch: offsets(state, batch),
        train_truth=train_truth,
        num_panels=8,
        num_extremes=EXTREMES,
        progress=True,
    )
    history = report.read_history(workdir)
    rates = [record["images_per_second"] for record in history if "images_per_second" in record]
    facts = {"checkpoint, step": f"{restored.step:,}"}
    if rates:
        facts["images / s, training"] = f"{np.median(rates):.1f}"
    write_results(results, out, f"{config.name}: {split} split", config, facts, history, restored.origin)
    return results


def evaluate_predictions(
    config: Config, place: str | Path, kind: str = "depth", split: str = "test", out: str | Path | None = None
) -> Results:
    """Evaluates the predictions of another program for a split and writes the same files as for a checkpoint.

    Args:
      config: only ``data`` (the split) and ``eval`` (the protocol) are used.
      place, kind: see ``external_predictions.open_predictions``.
      out: gets the files; default: a folder of the same name plus ``_scores``.

    Raises:
      ConfigError: data that cannot be read, or predictions that are incomplete or evidently of the other ``kind``.
    """
    used = Config(data=config.data, eval=config.eval)
    used.domd.enabled = False  # no network is: masks are optional
    validate(used)
    place = Path(place).resolve()
    out = place.with_name(f"{place.stem}_scores") if out is None else out
    source = open_split(config.data, split)
    names = [source.name(index) for index in range(len(source))]
    external = external_predictions.open_predictions(place, names, kind, source.out_of_order)
    make_folder(out)
    few = evenly_spaced_indices(len(source), 8)
    external_predictions.check_kind(
        external, lambda index: source.ground_truth(index, config.eval.ground_truth), few, kind, config.eval
    )
    results = evaluate(
        lambda batch: None,
        source,
        config,
        [EXTERNAL, "constant"] if config.eval.scaling == "median" else [EXTERNAL],
        external=external,
        num_panels=8,
        num_extremes=EXTREMES,
        progress=True,
    )
    write_results(results, out, f"{place.name}: {split} split", config, {}, [], versions.versions())
    return results
