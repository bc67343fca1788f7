"""Every pytree of the project, with shapes and units.

Axes: ``b`` sample, ``f`` frame, ``s`` decoder scale, ``h w`` training size, ``k`` depth bin. Images are RGB; pixel
``(u, v)`` means (column, row) with integers at pixel centres. Depth is in the network's own unit (a monocular network knows
depth up to one global factor). ``T_target_from_source`` style names read in the order of multiplication.
"""

from typing import Any, no_type_check

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int32, Shaped, UInt8, UInt16, UInt32

PREVIOUS, TARGET, NEXT = 0, 1, 2
"""Positions on the frame axis of a triplet (t-k, t, t+k), k = ``data.frame_step``."""


def frames_at(x: Shaped[Array, "b f *rest"], places: tuple[int, ...]) -> Shaped[Array, "b n *rest"]:
    """The frames at ``places`` on the frame axis, by slices: a TPU would turn an index into a loop."""
    return jnp.stack([x[:, place] for place in places], axis=1)


NUM_SCALES = 4
"""Decoder outputs at 1, 1/2, 1/4 and 1/8 of the training size."""


@no_type_check  # trees of arrays pass through jax as trees of numpy arrays, tracers, shapes or anything else
@struct.dataclass
class Batch:
    """A batch from the loader (``inputs`` is None) or from augmentation (``inputs`` is filled).

    In evaluation the frame axis holds two frames, (t-k, t), or three where the system matches with the next one too.
    """

    images: UInt8[Array, "b f h w 3"] | Float[Array, "b f h w 3"]  # uint8 from the loader, float32 in [0, 1] afterwards
    masks: Bool[Array, "b f h w"]  # pixels of potentially dynamic objects (vehicles, people), parked ones included
    K: Float[Array, "b 3 3"]  # intrinsics in pixels of the training size
    exists: Bool[Array, "b f"]  # False if the drive has no such frame; its image is all zeros
    seed: UInt32[Array, " b"]  # one random seed per sample, the same on any number of devices or threads
    inputs: Float[Array, "b f h w 3"] | None = None  # colour-jittered images: the only ones a network sees
    prior: UInt16[Array, "b h w"] | Float[Array, "b h w"] | None = None  # the target's depth from another network, in its own
    # unit: inverse depth as stored from the loader, depth afterwards; None if no term uses it


@no_type_check
@struct.dataclass
class CostVolume:
    """Plane sweep of the lookup features against the target's, at a quarter of the training size."""

    costs: Float[Array, "b hq wq k"]  # mean absolute feature difference; unobserved entries hold the pixel's largest cost
    observed: Bool[Array, "b hq wq k"]  # whether the lookup frame shows the pixel at this depth
    confidence: Float[Array, "b hq wq"]  # 1 where every bin is observed, else 0
    lowest: Float[Array, "b hq wq"]  # 1 / depth of the cheapest bin
    static_and_dynamic: Float[Array, "b hq wq 2*k"] | None = None  # DS-Depth: both volumes, before they are fused


@no_type_check
@struct.dataclass
class Disentangled:
    """Source frames with each dynamic object re-rendered where it would be had it not moved (DOMD)."""

    images: Float[Array, "b f h w 3"]  # f = (previous, next), or (previous,) in evaluation; holes are black
    holes: Bool[Array, "b f h w"]  # object removed, nothing known behind it
    lookups: Float[Array, "b n h w 3"]  # the jittered frames to match with, objects re-rendered unless augmented
    lookup_holes: Bool[Array, "b n h w"]


@no_type_check
@struct.dataclass
class StudentOutputs:
    disps: tuple[Float[Array, "b _ _"], ...]  # sigmoid disparity in (0, 1) per scale
    volume: CostVolume
    augmented: Bool[Array, " b"]  # matching augmentation: static camera or no lookup frame
    disentangled: Disentangled | None  # None if DOMD is off
    residuals: tuple[Float[Array, "b f _ _ 2"], ...] | None = None  # DS-Depth: flow in addition to the rigid one, target to
    # source, per scale; in units of half an image, so that 2 is its whole width or height


@no_type_check
@struct.dataclass
class Outputs:
    """Network outputs of one batch."""

    T_source_from_target: Float[Array, "b f 4 4"]  # f = (previous, next), or (previous,) in evaluation
    teacher_disps: tuple[Float[Array, "b _ _"], ...]  # sigmoid disparity in (0, 1) per scale
    student: StudentOutputs | None  # None for single-frame systems


@no_type_check
@struct.dataclass
class Views:
    """Source frames seen from the target camera through one network's depth, all scales at full size."""

    depths: Float[Array, "s b h w"]
    warped: Float[Array, "s f b h w 3"]
    holes: Bool[Array, "s f b h w"] | None  # pixel lies in a hole of the source; None if sources have no holes
    moved: Float[Array, "s f b h w 3"] | None = None  # the same sources, sampled further by the residual flow (DS-Depth)


@no_type_check
@struct.dataclass
class TrainState:
    """Everything a step changes; with data iterator and config, the whole content of a checkpoint."""

    step: Int32[Array, ""]
    params: Any  # {"teacher" | "pose" | "student" | "flow": nested dict of arrays}
    batch_stats: Any  # same nesting: running mean and variance of every batch norm
    opt_state: Any
    depth_range: Float[Array, "2"]  # adaptive bins: tracked (nearest, farthest) depth


@no_type_check
@struct.dataclass
class Predictions:
    """Predictions of one batch; inverse depth in 1 / (network unit)."""

    teacher: Float[Array, "b h w"]  # of the only network in single-frame systems
    student: Float[Array, "b h w"] | None
    disentangled: Float[Array, "b h w 3"] | None  # previous frame after DOMD
    holes: Bool[Array, "b h w"] | None
    T_previous_from_target: Float[Array, "b 4 4"]


Metrics = dict[str, jax.Array]
"""Scalars of one step, already reduced over all devices."""
