"""Errors by range of true depth: of teacher, student and the cheapest bin of the plane sweep, with predicted and true poses."""

import dataclasses
import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import no_type_check

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Shaped
from tqdm import tqdm

from dd_jax.config import Config
from dd_jax.data.frames import GroundTruth
from dd_jax.data.loader import TripletSource, eval_batches
from dd_jax.diagnosis.lookup import drive_of
from dd_jax.diagnosis.poses import Motion
from dd_jax.diagnosis.true_poses import Pose, TruePoses
from dd_jax.evaluation import metrics
from dd_jax.evaluation.evaluate import region_masks
from dd_jax.method.augment import augment
from dd_jax.method.forward import forward
from dd_jax.method.view_synthesis import full_size_depth
from dd_jax.networks import model as networks
from dd_jax.runtime import parallel
from dd_jax.types import PREVIOUS, Batch, TrainState

EDGES = (0, 4, 6, 8, 10, 15, 20, 30, 50, 80)
"""Ranges of true depth, in metres."""

Rows = dict[str, dict[str, float | int | None]]
"""range of depth -> name -> value, None without such cells."""
Cells = dict[str, Shaped[np.ndarray, " _"]]
"""Values of static cells of the cost volume; depth in metres, NaN where nothing is known."""


@no_type_check  # trees of arrays of jax or of numpy
@struct.dataclass
class Matched:
    """Outputs of the system at the size of the cost volume; of a single-frame system only the first two."""

    T_source_from_target: Float[Array, "b f 4 4"]
    teacher: Float[Array, "b hq wq"]  # depth, in the networks' unit
    student: Float[Array, "b hq wq"] | None = None
    cheapest: Float[Array, "b hq wq"] | None = None  # depth of the cheapest bin
    observed: Bool[Array, "b hq wq"] | None = None  # at any bin
    used: Bool[Array, "b hq wq"] | None = None  # at every bin: elsewhere the student does not read the costs


@no_type_check  # trees of arrays of jax or of numpy
@struct.dataclass
class KnownPoses:
    """Replace the pose network's predictions where ``given``: of pairs in temporal order, in radians and network units."""

    given: Bool[Array, " n"]
    rotation: Float[Array, "n 3"]
    translation: Float[Array, "n 3"]


def match(state: TrainState, given: tuple[Batch, KnownPoses], config: Config) -> Matched:
    """The forward pass of evaluation, of a batch as the loader yields it, with known poses (one per sample and source frame)."""
    batch, known = given
    model = networks.merge(state.params, state.batch_stats, config, None, train=False)
    predict = model.pose

    def pose(*pair: Float[Array, "n h w 3"], **options: object) -> tuple[Float[Array, "n 3"], Float[Array, "n 3"]]:
        predicted = predict(*pair, **options)
        return tuple(jnp.where(known.given[:, None], x, y) for x, y in zip((known.rotation, known.translation), predicted))

    model.pose = pose
    batch = augment(batch, config.augment, train=False)
    outputs = forward(model, batch, state.depth_range, config, train=False)
    student = outputs.student

    def depth(disp: Float[Array, "b hs ws"]) -> Float[Array, "b hq wq"]:
        return full_size_depth(disp, batch.images.shape[2:4], config.model)[:, 2::4, 2::4]

    if student is None:
        return Matched(outputs.T_source_from_target, depth(outputs.teacher_disps[0]))
    return Matched(
        T_source_from_target=outputs.T_source_from_target,
        teacher=depth(outputs.teacher_disps[0]),
        student=depth(student.disps[0]),
        cheapest=1 / student.volume.lowest,
        observed=jnp.any(student.volume.observed, axis=-1),
        used=student.volume.confidence > 0.5,
    )


def measure(
    state: TrainState,
    config: Config,
    source: TripletSource,
    indices: Sequence[int],
    devices: list[jax.Device],
    bar: tqdm,
) -> tuple[Motion | None, Rows | None]:
    """Predicted and true motion, and errors by range of depth, of the samples ``indices`` that have a previous frame.

    None without true poses, without ground-truth depth. ``bar`` counts batches.
    """
    step = true_step = parallel.compile_predict(functools.partial(match, config=config), devices)
    if config.model.pose_refinement > 0:  # true poses are not refined
        unrefined = dataclasses.replace(config, model=dataclasses.replace(config.model, pose_refinement=0))
        true_step = parallel.compile_predict(functools.partial(match, config=unrefined), devices)
    k = config.data.frame_step
    true_poses, offsets = TruePoses(config.data), (-k, k) if config.cost_volume.future_frame else (-k,)
    drives, predicted, true, found = [], [], [], []
    for real, batch in eval_batches(source, indices, config.eval.batch_size, 1 + len(offsets)):
        own = jax.device_get(step(state, (batch, known_poses({}, batch, len(offsets)))))
        truths, motions = {}, {}
        for place, index in enumerate(real):
            if not batch.exists[place, PREVIOUS]:
                continue
            motion = [true_poses.T_neighbour_from_target(source.name(index), offset) for offset in offsets]
            if all(T is not None for T in motion):
                motions[place] = motion
                drives.append(drive_of(source.name(index)))
                predicted.append(own.T_source_from_target[place, 0])
                true.append(motion[0])
            truth = source.ground_truth(index, config.eval.ground_truth)
            if truth is not None and (cells := true_cells(truth, config))[0].any():
                truths[place] = cells
        scales = {place: scale_of(own.teacher[place], truth) for place, (truth, _) in truths.items()}
        known = {place: scaled(motions[place], scales[place]) for place in motions if place in scales and config.model.student}
        if known:
            with_true_poses = jax.device_get(true_step(state, (batch, known_poses(known, batch, len(offsets)))))
        for place, (truth, static) in truths.items():
            other = sample_of(with_true_poses, place) if place in known else None
            found.append(sample_cells(sample_of(own, place), other, truth, static, np.asarray(state.depth_range)))
        bar.update()
    motion = Motion(drives, np.stack(predicted), np.stack(true), k) if drives else None
    return motion, by_range(found) if found else None


def known_poses(T_source_from_target: Mapping[int, Sequence[Pose]], batch: Batch, sources: int) -> KnownPoses:
    """Those of samples by their place in the batch: of the previous frame, or of the previous and the next; in network units."""
    pairs = len(batch.exists) * sources
    known = KnownPoses(np.zeros(pairs, bool), np.zeros((pairs, 3), np.float32), np.zeros((pairs, 3), np.float32))
    for place, poses in T_source_from_target.items():
        for row, T in enumerate(poses, start=place * sources):
            T = np.linalg.inv(T) if row == place * sources else T  # the pair (previous, target) is in temporal order
            known.given[row], known.rotation[row], known.translation[row] = True, cv2.Rodrigues(T[:3, :3])[0][:, 0], T[:3, 3]
    return known


def scaled(poses: Sequence[Pose], scale: float) -> list[Pose]:
    """The poses with their translation multiplied by ``scale``."""
    return [T * np.array([[1, 1, 1, scale]] * 3 + [[1, 1, 1, 1]]) for T in poses]


def true_cells(truth: GroundTruth, config: Config) -> tuple[Float[np.ndarray, "hq wq"], Bool[np.ndarray, "hq wq"]]:
    """Scored depth at the centres of the cost volume's cells, 0 elsewhere, and the static cells."""
    size = config.data.height // 4, config.data.width // 4
    depth = np.where(metrics.valid_pixels(truth.depth, config.eval), truth.depth, 0)
    static = region_masks(truth, config).get("static")
    return _at_cells(depth, size), np.ones(size, bool) if static is None else _at_cells(static, size)


def _at_cells(values: Shaped[np.ndarray, "H W"], size: tuple[int, int]) -> Shaped[np.ndarray, "hq wq"]:
    rows, columns = (((np.arange(n) + 0.5) * m / n).astype(int) for n, m in zip(size, values.shape))
    return values[np.ix_(rows, columns)]


def scale_of(depth: Float[np.ndarray, "hq wq"], truth: Float[np.ndarray, "hq wq"]) -> float:
    """Network units per metre: the ratio of the medians over cells with ground truth, of which there must be one."""
    return float(np.median(depth[truth > 0]) / np.median(truth[truth > 0]))


def sample_cells(
    own: Matched,
    with_true_poses: Matched | None,
    truth: Float[np.ndarray, "hq wq"],
    static: Bool[np.ndarray, "hq wq"],
    depth_range: Float[np.ndarray, "2"],
) -> Cells:
    """Static cells with ground truth of one sample (fields of ``own`` without batch axis).

    Depth of teacher and student is scaled by their own median, that of the bins by the teacher's.
    """
    chosen, scale = static & (truth > 0), scale_of(own.teacher, truth)
    found = {"truth": truth, "teacher": own.teacher / scale}
    if own.student is not None:
        near, far = depth_range / scale
        nothing = np.full(truth.shape, np.nan)
        found |= {
            "student": own.student / scale_of(own.student, truth),
            "student_true_poses": nothing,
            "matching_predicted_poses": np.where(own.observed, own.cheapest / scale, np.nan),
            "matching_true_poses": nothing,
            "outside_bins": (truth < near) | (truth > far),
            "unobserved": ~own.observed,
            "unused": ~own.used,
        }
        if with_true_poses is not None:
            other = with_true_poses
            found["student_true_poses"] = other.student / scale_of(other.student, truth)
            found["matching_true_poses"] = np.where(other.observed, other.cheapest / scale, np.nan)
    return {name: values[chosen] for name, values in found.items()}


def by_range(samples: Sequence[Cells]) -> Rows:
    """Medians of the relative error, and shares of cells, for every range of :data:`EDGES` and for "all"."""
    joined = {name: np.concatenate([sample[name] for sample in samples]) for name in samples[0]}
    ranges = {f"{near}-{far}": (near, far) for near, far in itertools.pairwise(EDGES)} | {"all": (EDGES[0], np.inf)}
    rows = {}
    for name, (near, far) in ranges.items():
        inside = (joined["truth"] > near) & (joined["truth"] <= far)
        rows[name] = {"cells": int(inside.sum())} | _row({key: values[inside] for key, values in joined.items()})
    return rows


def _row(found: Cells) -> dict[str, float | None]:
    row = {}
    for name, values in found.items():
        if name == "truth":
            continue
        if values.dtype == bool:
            row[name] = float(values.mean()) if values.size else None
            continue
        error = np.abs(values - found["truth"]) / found["truth"]
        known = error[np.isfinite(error)]
        row[name] = float(np.median(known)) if known.size else None
    return row


def sample_of(matched: Matched, position: int) -> Matched:
    """One sample of a batch, on the host."""
    return jax.tree.map(lambda x: np.asarray(x)[position], matched)
