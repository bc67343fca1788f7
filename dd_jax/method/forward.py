"""The forward pass of one batch: poses, teacher, lookup frames, cost volume, student."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, UInt32

from dd_jax.config import Config, CostVolumeConfig
from dd_jax.geometry.camera import scale_intrinsics
from dd_jax.method import cost_volume, domd, ds_depth
from dd_jax.method.pose_refinement import refine_poses
from dd_jax.method.poses import predict_direct_poses, predict_poses
from dd_jax.method.view_synthesis import full_size_depth, full_size_flow
from dd_jax.networks.model import Networks
from dd_jax.runtime.random_streams import RandomStream, stream_key
from dd_jax.types import NEXT, PREVIOUS, TARGET, Batch, Outputs, StudentOutputs, frames_at

sg = jax.lax.stop_gradient


def forward(model: Networks, batch: Batch, depth_range: Float[Array, "2"], config: Config, train: bool) -> Outputs:
    """All networks on one augmented batch (DynamicDepth section 3, ManyDepth section 3).

    Args:
      batch: as returned by ``augment``; three frames in training. Evaluation needs two (t-1, t), three with ``future_frame``.
      depth_range: nearest and farthest depth of the adaptive bins.
      train: draw the matching augmentation.
    """
    with jax.named_scope("poses"):
        T = (predict_direct_poses if config.sc.enabled else predict_poses)(model, batch.inputs)
    with jax.named_scope("teacher"):
        teacher_disps = model.teacher(batch.inputs[:, TARGET])
    if model.student is None:
        return Outputs(T_source_from_target=T, teacher_disps=teacher_disps, student=None)

    # The lookup frames to match with. In training some samples get the target itself (a static camera) or none at all.
    static, absent = matching_augmentation(batch.seed, config.cost_volume) if train else (jnp.zeros(batch.seed.shape, bool),) * 2
    augmented = static | absent
    depth = sg(full_size_depth(teacher_disps[0], batch.images.shape[2:4], config.model))
    frames = (PREVIOUS, NEXT)[: T.shape[1]]
    if config.model.pose_refinement > 0:
        with jax.named_scope("poses"):
            T = refine_all_poses(T, depth, batch, frames, config.model.pose_refinement)
    n = 2 if config.cost_volume.future_frame else 1
    disentangled, holes, lookups = None, None, frames_at(batch.inputs, frames[:n])
    if config.domd.enabled:
        with jax.named_scope("domd"):
            placed = domd.object_depth(depth, batch.masks[:, TARGET], config.domd.depth)
            disentangled = domd.disentangle(batch, frames, n, placed, sg(T), ~augmented, config.domd)
        lookups, holes = disentangled.lookups, disentangled.lookup_holes[:, :, ::4, ::4].astype(jnp.float32)
    lookups = jnp.where(static[:, None, None, None, None], batch.inputs[:, TARGET, None], lookups)
    present = frames_at(batch.exists, frames[:n]) & ~absent[:, None]

    encoder = model.student.encoder
    with jax.named_scope("features"):
        f0, f1 = encoder.features(batch.inputs[:, TARGET])
        if config.cost_volume.features == "colours":
            if holes is not None:  # the contrast around a black hole would change: there, the removed object stays
                removed = disentangled.lookup_holes & ~static[:, None, None, None]
                lookups = jnp.where(removed[..., None], frames_at(batch.inputs, frames[:n]), lookups)
            matched_f1, lookup_f1 = (cost_volume.normalised_colours(x) for x in (batch.inputs[:, TARGET], lookups))
        else:
            matched_f1, (_, lookup_f1) = f1, encoder.features(lookups.reshape(-1, *lookups.shape[2:]))
            lookup_f1 = lookup_f1.reshape(*lookups.shape[:2], *f1.shape[1:])

    K_quarter = scale_intrinsics(batch.K, 0.25, 0.25)
    bins = cost_volume.depth_bins(depth_range, config.cost_volume)
    residual_flows = None
    if config.ds.enabled:
        with jax.named_scope("flow"):
            residual_flows = ds_depth.predict_residual_flows(model, batch, sg(T), depth)
        with jax.named_scope("cost_volume"):
            shift = full_size_flow(residual_flows[0][:, 0], f1.shape[1:3])
            matched = sg(lookup_f1[:, 0]), sg(T[:, 0]), present[:, 0]
            margin = config.cost_volume.margin
            volume = ds_depth.build_cost_volume(sg(matched_f1), *matched, sg(shift), K_quarter, bins, config.ds, margin)
    else:
        with jax.named_scope("cost_volume"):
            matched = sg(lookup_f1), sg(T[:, :n]), present, holes
            volume = cost_volume.build(sg(matched_f1), *matched, K_quarter, bins, config.cost_volume)
    volume = jax.tree.map(sg, volume)

    with jax.named_scope("student"):
        disps = model.student.decoder(encoder.fuse(f0, f1, volume))
    student = StudentOutputs(disps, volume, augmented, disentangled, residual_flows)
    return Outputs(T_source_from_target=T, teacher_disps=teacher_disps, student=student)


def refine_all_poses(
    T: Float[Array, "b f 4 4"], depth: Float[Array, "b h w"], batch: Batch, frames: tuple[int, ...], iterations: int
) -> Float[Array, "b f 4 4"]:
    """``T_source_from_target`` of every source frame, refined."""
    target, sources = batch.images[:, TARGET], (batch.images[:, frame] for frame in frames)
    refined = [refine_poses(T[:, i], depth, target, source, batch.K, iterations) for i, source in enumerate(sources)]
    return jnp.stack(refined, axis=1)


def matching_augmentation(seed: UInt32[Array, " b"], config: CostVolumeConfig) -> tuple[Bool[Array, " b"], Bool[Array, " b"]]:
    """Samples whose lookup frame is the target, and samples without lookup frame (ManyDepth section 3.3): one draw per sample."""
    draw = jax.vmap(lambda s: jax.random.uniform(stream_key(s, RandomStream.MATCHING)))(seed)
    static = draw < config.static_probability
    return static, ~static & (draw < config.static_probability + config.zero_pose_probability)
