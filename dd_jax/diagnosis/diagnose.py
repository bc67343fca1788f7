"""Asks all questions about one model on one split."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial

import jax
import numpy as np
from tqdm import tqdm

from dd_jax.config import Config
from dd_jax.data.frames import Listing
from dd_jax.data.loader import TripletSource
from dd_jax.diagnosis import matching, supervision
from dd_jax.diagnosis.findings import findings
from dd_jax.diagnosis.lookup import LOOKUPS, LookupSource
from dd_jax.diagnosis.poses import compare_poses
from dd_jax.diagnosis.result import ByRegion, Diagnosis
from dd_jax.evaluation import metrics
from dd_jax.evaluation.baselines import evenly_spaced_indices
from dd_jax.evaluation.evaluate import evaluate, has_truth, networks_of, tabulate
from dd_jax.method import compiled_steps
from dd_jax.runtime import parallel
from dd_jax.types import Batch, Predictions, TrainState

NO_TRUTH = "the samples have no ground-truth depth"
NO_STUDENT = "the model has a single-frame network only"
NO_POSES = "no true poses: they are read from poses.txt or oxts of KITTI drives, and from poses/ of KITTI odometry"
NO_MEAN_MAP = "no ground-truth depth of the training split"
NO_NEIGHBOURS = "no sample has both neighbours"
OTHER_MASKS = "SC-DepthV3 trains with other masks"


def diagnose(
    state: TrainState,
    config: Config,
    source: TripletSource,
    *,
    train_truth: TripletSource | Listing | None = None,
    max_frames: int = 0,
    devices: list[jax.Device] | None = None,
    progress: bool = False,
) -> Diagnosis:
    """Answers all questions with the samples of ``source``; each question is compiled once.

    Args:
      state: networks and depth range.
      config: of the model; ``eval`` is the protocol, ``data`` the place of the true poses.
      train_truth: training split with ground truth, for the mean map.
      max_frames: number of samples, evenly spaced; 0 = all.
      devices: divide each batch; default: all of this process.

    Raises:
      ConfigError: damaged files of poses.
    """
    devices = jax.local_devices() if devices is None else devices
    config = parallel.with_even_batches(config, devices)
    state = parallel.replicate(state, devices)
    indices = evenly_spaced_indices(len(source), max_frames)
    with_truth, student, sc = has_truth(source, config.eval), config.model.student, config.sc.enabled
    passes = (len(LOOKUPS) if student else 1) * with_truth + 1 + (not sc)
    errors, shares = None, None
    with tqdm(total=passes * -(-len(indices) // config.eval.batch_size), disable=not progress, unit="batch") as bar:
        if with_truth:
            predict = compiled_steps.compile_predict_step(config, devices)
            errors = errors_by_lookup(
                lambda batch: (predict(state, batch), bar.update())[0], source, config, train_truth, max_frames
            )
        motion, rows = matching.measure(state, config, source, indices, devices, bar)
        if not sc:
            shares = supervision.measure(state, config, source, indices, devices, bar)
    found = Diagnosis(
        samples=len(indices),
        depth_range=tuple(float(x) for x in np.asarray(state.depth_range)) if student else None,
        lookup={name: errors[name] for name in LOOKUPS} if errors and student else None,
        teacher=errors and errors["teacher"],
        mean_map=errors and errors.get("mean_map"),
        poses=None if motion is None else compare_poses(motion),
        by_range=rows,
        supervision=shares,
        motion=motion,
    )
    reasons = {
        "lookup": NO_TRUTH if student else NO_STUDENT,
        "teacher": NO_TRUTH,
        "mean_map": NO_MEAN_MAP if errors else NO_TRUTH,
        "poses": NO_POSES,
        "by_range": NO_TRUTH,
        "supervision": OTHER_MASKS if sc else NO_NEIGHBOURS,
    }
    missing = {part: reason for part, reason in reasons.items() if getattr(found, part) is None}
    return dataclasses.replace(found, missing=missing, findings=findings(found))


def errors_by_lookup(
    predict: Callable[[Batch], Predictions],
    source: TripletSource,
    config: Config,
    train_truth: TripletSource | Listing | None,
    max_frames: int,
) -> dict[str, ByRegion] | None:
    """abs_rel of the student by lookup frame, of the teacher (or the only network) and, with ``train_truth``, of the mean map.

    None if no sample has ground truth in range.
    """
    images = images_by_lookup(predict, source, config, tuple(LOOKUPS), train_truth, max_frames)
    scores = {who: tabulate(metrics.summarize([own for _, own in rows])) for who, rows in images.items()}
    if scores["teacher"]["all"]["abs_rel"] is None:
        return None
    return {who: {region: row["abs_rel"] for region, row in rows.items()} for who, rows in scores.items()}


def images_by_lookup(
    predict: Callable[[Batch], Predictions],
    source: TripletSource,
    config: Config,
    lookups: Sequence[str] = tuple(LOOKUPS),
    train_truth: TripletSource | Listing | None = None,
    max_frames: int = 0,
) -> dict[str, list[tuple[str, metrics.Result]]]:
    """Name and scores of every image with ground truth, for the predictors of :func:`errors_by_lookup`.

    ``lookups`` includes "previous".
    """
    measure = partial(evaluate, predict, config=config, train_truth=train_truth, max_frames=max_frames, num_panels=0)

    def images(source: TripletSource, predictors: Sequence[str]) -> dict[str, list[tuple[str, metrics.Result]]]:
        found = [(name, scores) for name, scores in measure(source, predictors=predictors).images if scores]
        return {who: [(name, scores[who]) for name, scores in found] for who in predictors}

    found = images(source, [*networks_of(config), *["mean_map"] * (train_truth is not None)])
    found["teacher"] = found.pop("teacher", found.pop("single_frame", None))
    if "student" in found:
        found["previous"] = found.pop("student")
        for lookup in lookups:
            if lookup != "previous":
                found[lookup] = images(LookupSource(source, lookup), ("student",))["student"]
    return found
