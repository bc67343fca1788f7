"""What the networks compute for one batch: poses, teacher, DOMD, student; and the views the losses compare."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, UInt32

from dd_jax.config import Config, CostVolumeConfig, ModelConfig, ScDepthConfig
from dd_jax.geometry.camera import backproject, disp_to_depth, pixel_grid, scale_intrinsics
from dd_jax.geometry.sampling import sample_border, sample_zeros
from dd_jax.geometry.se3 import compose, invert_pose, pose_from_euler, pose_from_parameters
from dd_jax.geometry.warp import reproject
from dd_jax.losses import ssim
from dd_jax.losses.sc_depth import Comparison, compare
from dd_jax.method import cost_volume, domd, dynamic_volume
from dd_jax.networks.layers import normalise
from dd_jax.networks.model import Model
from dd_jax.types import NEXT, PREVIOUS, TARGET, Batch, Outputs, StudentOutputs, Views, frames_at

sg = jax.lax.stop_gradient


def forward(model: Model, batch: Batch, depth_range: Float[Array, "2"], config: Config, train: bool) -> Outputs:
    """All networks on one augmented batch (method: DynamicDepth section 3, ManyDepth section 3).

    Args:
      batch: as returned by ``augment``; three frames in training, in evaluation (t-1, t) will do without ``future_frame``.
      depth_range: nearest and farthest depth of the adaptive bins.
      train: draw the matching augmentation.
    """
    T = direct_poses(model, batch.inputs, config.model) if config.sc.enabled else predict_poses(model, batch.inputs)
    teacher_disps = model.teacher(batch.inputs[:, TARGET])
    if model.student is None:
        return Outputs(T_source_from_target=T, teacher_disps=teacher_disps, student=None)

    if train:
        static, absent = matching_augmentation(batch.seed, config.cost_volume)
    else:
        static = absent = jnp.zeros(batch.seed.shape, bool)
    augmented = static | absent
    depth = sg(full_size_depth(teacher_disps[0], batch.images.shape[2:4], config.model))

    frames = (PREVIOUS, NEXT)[: T.shape[1]]
    n = 2 if config.cost_volume.future_frame else 1  # of them to match with
    if config.domd.enabled:
        disentangled = domd.disentangle(batch, frames, n, depth, sg(T), ~augmented, config.domd)
        lookups = disentangled.lookups
        holes = disentangled.lookup_holes[:, :, ::4, ::4].astype(jnp.float32)
    else:
        disentangled, holes, lookups = None, None, frames_at(batch.inputs, frames[:n])
    lookups = jnp.where(static[:, None, None, None, None], batch.inputs[:, TARGET, None], lookups)

    encoder = model.student.encoder
    f0, f1 = encoder.features(batch.inputs[:, TARGET])
    _, lookup_f1 = encoder.features(lookups.reshape(-1, *lookups.shape[2:]))
    lookup_f1 = lookup_f1.reshape(*lookups.shape[:2], *f1.shape[1:])
    present = frames_at(batch.exists, frames[:n]) & ~absent[:, None]
    K_quarter = scale_intrinsics(batch.K, 0.25, 0.25)
    bins = cost_volume.depth_bins(depth_range, config.cost_volume)
    residuals = None
    if config.ds.enabled:
        residuals = residual_flows(model, batch, sg(T), depth)
        shift = full_size_flow(residuals[0][:, 0], f1.shape[1:3])
        matched = sg(lookup_f1[:, 0]), sg(T[:, 0]), present[:, 0]
        volume = dynamic_volume.build(sg(f1), *matched, sg(shift), K_quarter, bins, config.ds)
    else:
        volume = cost_volume.build(sg(f1), sg(lookup_f1), sg(T[:, :n]), present, holes, K_quarter, bins, config.cost_volume)
    volume = jax.tree.map(sg, volume)
    disps = model.student.decoder(encoder.fuse(f0, f1, volume))
    return Outputs(
        T_source_from_target=T,
        teacher_disps=teacher_disps,
        student=StudentOutputs(disps=disps, volume=volume, augmented=augmented, disentangled=disentangled, residuals=residuals),
    )


def predict_poses(model: Model, inputs: Float[Array, "b f h w 3"]) -> Float[Array, "b sources 4 4"]:
    """Transforms from the target camera to each source camera; the pose network sees frames in temporal order."""
    T = pose_from_parameters(*_in_one(model, inputs[:, :-1], inputs[:, 1:])).reshape(-1, inputs.shape[1] - 1, 4, 4)
    return _first_inverted(T)


def direct_poses(
    model: Model, inputs: Float[Array, "b f h w 3"], config: ModelConfig, reverse: bool = False
) -> Float[Array, "b sources 4 4"]:
    """The same as SC-Depth asks for them: in either order of the frames, Euler angles. ``reverse``: from the sources.

    The network cannot know which of two frames is the earlier one, so the way ahead of an untrained one is added here.
    """
    places = (PREVIOUS, NEXT)[: inputs.shape[1] - 1]
    sources = frames_at(inputs, places)
    pairs = jnp.broadcast_to(inputs[:, TARGET, None], sources.shape), sources
    rotation, translation = _in_one(model, *reversed(pairs) if reverse else pairs)
    ahead = jnp.array([config.initial_forward if (place == PREVIOUS) != reverse else -config.initial_forward for place in places])
    translation = translation.at[:, 2].add(jnp.tile(ahead, len(inputs)))
    return pose_from_euler(rotation, translation).reshape(-1, len(places), 4, 4)


def _in_one(
    model: Model, first: Float[Array, "b n h w 3"], second: Float[Array, "b n h w 3"]
) -> tuple[Float[Array, "b*n 3"], Float[Array, "b*n 3"]]:
    """What the pose network says of n pairs per sample, as if asked for one pair after the other."""
    return model.pose(first.reshape(-1, *first.shape[2:]), second.reshape(-1, *second.shape[2:]), first.shape[1])


def _first_inverted(T: Float[Array, "b n 4 4"]) -> Float[Array, "b n 4 4"]:
    return jnp.concatenate([invert_pose(T[:, 0])[:, None], T[:, 1:]], axis=1)


def compare_frames(
    model: Model, batch: Batch, T_source_from_target: Float[Array, "b 2 4 4"], depth: Float[Array, "b h w"], config: Config
) -> tuple[Comparison, Comparison]:
    """The target frame against both sources, and both against it (SC-Depth): first axis (previous, next)."""
    T_target_from_source = direct_poses(model, batch.inputs, config.model, reverse=True)
    pictures, size = normalise(batch.images), batch.images.shape[2:4]
    there, back = [], []
    for place, source in enumerate((PREVIOUS, NEXT)):
        here = pictures[:, TARGET], depth
        other = pictures[:, source], full_size_depth(model.teacher(batch.inputs[:, source])[0], size, config.model)
        exists = batch.exists[:, source]
        there.append(look(here, other, batch.K, T_source_from_target[:, place], exists, config.sc))
        back.append(look(other, here, batch.K, T_target_from_source[:, place], exists, config.sc))
    return tuple(jax.tree.map(lambda *maps: jnp.stack(maps), *found) for found in (there, back))


def look(
    here: tuple[Float[Array, "b h w 3"], Float[Array, "b h w"]],
    other: tuple[Float[Array, "b h w 3"], Float[Array, "b h w"]],
    K: Float[Array, "b 3 3"],
    T_other_from_here: Float[Array, "b 4 4"],
    exists: Bool[Array, " b"],
    config: ScDepthConfig,
) -> Comparison:
    """One frame, a normalised picture and its depth, against what another shows of the same points."""
    picture, depth = here
    coords = reproject(depth, K, T_other_from_here)
    u, v = coords[..., 0], coords[..., 1]
    z = jnp.sum(T_other_from_here[:, None, None, 2, :3] * backproject(depth, K), axis=-1) + T_other_from_here[:, 2, 3, None, None]
    seen = (z > 0) & (u >= 0) & (u <= depth.shape[2] - 1) & (v >= 0) & (v <= depth.shape[1] - 1)
    found = sample_zeros(jnp.concatenate([other[0], other[1][..., None]], axis=-1), coords)
    computed = jnp.where(z > NEAREST, z, NEAREST)
    return compare(picture, other[0], found[..., :3], found[..., 3], computed, seen & exists[:, None, None], config)


def pose_round_trips(
    model: Model, inputs: Float[Array, "b 3 h w 3"], T_source_from_target: Float[Array, "b 2 4 4"], config: ModelConfig
) -> Float[Array, "b 2 4 4"]:
    """From each source camera to the target's, by what the network says of the reversed pair, and back.

    The way ahead that an untrained network starts with is the way back here.
    """
    first, second = (frames.reshape(-1, *inputs.shape[2:]) for frames in (inputs[:, 1:], inputs[:, :-1]))
    rotation, translation = model.pose(first, second)
    translation = translation.at[:, 2].add(2 * config.initial_forward)
    back = pose_from_parameters(rotation, translation).reshape(-1, 2, 4, 4)
    return compose(T_source_from_target, _first_inverted(back))


NEAREST = 1e-3
"""Depth of points in another camera is at least this, in network units."""


def matching_augmentation(seed: UInt32[Array, " b"], config: CostVolumeConfig) -> tuple[Bool[Array, " b"], Bool[Array, " b"]]:
    """Which samples get the current frame as lookup, and which get none (ManyDepth section 3.3): one draw per sample."""
    draw = jax.vmap(lambda s: jax.random.uniform(jax.random.fold_in(jax.random.key(s), MATCHING_STREAM)))(seed)
    static = draw < config.static_probability
    return static, ~static & (draw < config.static_probability + config.zero_pose_probability)


MATCHING_STREAM = 1
"""Random streams folded into a sample's seed: augment uses 0, the tie-break noise of the automask 2."""


def full_size_depth(disp: Float[Array, "b hs ws"], size: tuple[int, int], config: ModelConfig) -> Float[Array, "b h w"]:
    """Depth at training size from sigmoid disparity of any scale (bilinear, half-pixel centres)."""
    full = disp if disp.shape[1:] == size else jax.image.resize(disp, (disp.shape[0], *size), "bilinear", antialias=False)
    return disp_to_depth(full, config.min_depth, config.max_depth)


def full_size_depths(disps: tuple[Float[Array, "b _ _"], ...], config: ModelConfig) -> Float[Array, "s b h w"]:
    """:func:`full_size_depth` of every scale."""
    return jnp.stack([full_size_depth(disp, disps[0].shape[1:], config) for disp in disps])


def point_offsets(model: Model, inputs: Float[Array, "b f h w 3"], config: ModelConfig) -> Float[Array, "b sources h w 3"] | None:
    """How far each target point moves until each source frame, in the target camera's frame; None without a flow network."""
    if not config.flow:
        return None
    sources = frames_at(inputs, (PREVIOUS, NEXT)[: inputs.shape[1] - 1])
    b, n, *picture = sources.shape
    flow = model.flow(jnp.repeat(inputs[:, TARGET], n, axis=0), sources.reshape(-1, *picture))[0]
    return config.flow_scale * flow.reshape(b, n, *picture)


def residual_flows(
    model: Model, batch: Batch, T: Float[Array, "b f 4 4"], depth: Float[Array, "b h w"]
) -> tuple[Float[Array, "b f _ _ 2"], ...]:
    """What rigid motion leaves of the flow to each source frame, per scale, in units of half an image (DS-Depth).

    The network sees both pictures, the target moved rigidly to the source, how far it moved in pixels, and how badly that
    explains the source; nothing of it teaches another network.
    """
    size = depth.shape[1:]
    target = batch.inputs[:, TARGET]
    u, v = pixel_grid(*size)
    grid = jnp.stack(jnp.broadcast_arrays(u, v), axis=-1)
    flows = []
    for place, source in enumerate((PREVIOUS, NEXT)[: T.shape[1]]):
        picture = batch.inputs[:, source]
        coords = reproject(depth, batch.K, invert_pose(T[:, place]))
        moved = sample_border(target, coords)
        error = 0.85 * ssim.distance(moved, ssim.moments(picture, 1), 1) + 0.15 * jnp.abs(picture - moved)
        norm = jnp.sqrt(jnp.sum((error + 1e-10) ** 2, axis=-1, keepdims=True))
        flows.append(model.flow(target, picture, sg(moved), sg(coords - grid), sg(norm)))
    return tuple(jnp.stack(scale, axis=1) for scale in zip(*flows, strict=True))


def full_size_flow(flow: Float[Array, "*n hs ws 2"], size: tuple[int, int]) -> Float[Array, "*n h w 2"]:
    """Flow in pixels of an image of ``size`` from one in units of half an image at any size (bilinear, half-pixel centres)."""
    half = jnp.array([size[1] - 1, size[0] - 1], flow.dtype) / 2
    full = flow if flow.shape[-3:-1] == size else jax.image.resize(flow, (*flow.shape[:-3], *size, 2), "bilinear")
    return full * half


def synthesize(
    depths: Float[Array, "s b h w"],
    T: Float[Array, "b f 4 4"],
    sources: Float[Array, "b f h w 3"],
    holes: Bool[Array, "b f h w"] | None,
    K: Float[Array, "b 3 3"],
    offsets: Float[Array, "b f h w 3"] | None = None,
    residuals: tuple[Float[Array, "b f _ _ 2"], ...] | None = None,
) -> Views:
    """Each source frame as the target camera would see it through ``depths``, all scales at full size.

    ``offsets`` move the points before the cameras do: None where the scene is rigid. ``residuals`` ask for a second look,
    that much further.
    """
    s, b, h, w = depths.shape
    f = sources.shape[1]
    if holes is not None:
        sources = jnp.concatenate([sources, holes[..., None].astype(sources.dtype)], axis=-1)
    offsets = None if offsets is None else jnp.moveaxis(offsets, 1, 0)
    coords = reproject(depths, K, jnp.moveaxis(T, 1, 0), offsets).reshape(s, f * b, h, w, 2)
    pictures = jnp.moveaxis(sources, 1, 0).reshape(f * b, h, w, -1)
    warped = sample_border(pictures, coords).reshape(s, f, b, h, w, -1)
    moved = None
    if residuals is not None:
        shifts = jnp.stack([jnp.moveaxis(full_size_flow(flow, (h, w)), 1, 0) for flow in residuals])  # (s, f, b, h, w, 2)
        moved = sample_border(pictures[..., :3], coords + shifts.reshape(coords.shape)).reshape(s, f, b, h, w, 3)
    holes = None if holes is None else sg(warped[..., 3]) > 0.5
    return Views(depths=depths, warped=warped[..., :3], holes=holes, moved=moved)
