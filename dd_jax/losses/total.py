"""Every loss term of every network, per scale and in sum."""

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float

from dd_jax.config import Config, LossConfig
from dd_jax.losses.consistency import consistency, dynamic_cycle, pose_cycle, pyramid_distillation, reliable_pixels
from dd_jax.losses.depth_ranking import depth_ranking
from dd_jax.losses.mask_weight import mask_weights
from dd_jax.losses.normals import Surfaces, normal_l1, normal_ranking
from dd_jax.losses.photometric import (
    TargetStatistics,
    adaptive_error,
    auto_mask,
    combine_sources,
    photometric_error,
    target_statistics,
)
from dd_jax.losses.sc_depth import Comparison, sc_terms, static_weight
from dd_jax.losses.smoothness import EdgeWeights, edge_weights, flow_smoothness, image_pyramid, smoothness
from dd_jax.runtime import reduce
from dd_jax.types import NEXT, PREVIOUS, TARGET, Batch, Outputs, Views, frames_at

Terms = dict[str, Float[Array, " s"]]
"""Weighted loss terms per decoder scale."""


@struct.dataclass
class Target:
    """What all networks, scales and sources need to know about the target frame."""

    statistics: TargetStatistics
    edges: EdgeWeights
    weights: Float[Array, " b"] | None = None  # of the samples' photometric errors; None: all alike


def describe_target(pyramid: tuple[Float[Array, "b _ _ 3"], ...]) -> Target:
    """Statistics of the target for SSIM and smoothness, from its picture at all scales (full size first)."""
    return Target(target_statistics(pyramid[0]), edge_weights(pyramid))


def teacher_terms(
    views: Views,
    disps: tuple[Float[Array, "b _ _"], ...],
    target: Target,
    originals: Float[Array, "f b h w 3"],
    exists: Bool[Array, "b f"],
    noise: Float[Array, "b h w"],
    loss: LossConfig,
    axis: str | None,
) -> Terms:
    """Auto-masked photometric error and smoothness of the single-frame network (Monodepth2, eq. 6)."""
    error, mask = reprojection_error(views, target, exists, loss)
    if loss.automask:
        mask = mask & auto_mask(jax.lax.stop_gradient(error), originals, target.statistics, exists, noise, loss)
    return {"photometric": _masked_mean(error, mask, target, axis)} | _pyramid_terms(disps, target, loss, axis)


def student_terms(
    views: Views,
    disps: tuple[Float[Array, "b _ _"], ...],
    target: Target,
    reliable: Bool[Array, "b h w"],
    teacher_depths: Float[Array, "s b h w"],
    exists: Bool[Array, "b f"],
    loss: LossConfig,
    axis: str | None,
) -> Terms:
    """Photometric error on ``reliable`` pixels, consistency with the teacher elsewhere, smoothness (ManyDepth, sec. 3.3)."""
    error, seen = reprojection_error(views, target, exists, loss)
    terms = {"photometric": _masked_mean(error, seen & reliable, target, axis)}
    if loss.consistency > 0:
        terms["consistency"] = loss.consistency * consistency(views.depths, teacher_depths, reliable, axis)
    return terms | _pyramid_terms(disps, target, loss, axis)


def normal_terms(
    surfaces: Surfaces, teacher_depth: Float[Array, "b h w"], batch: Batch, loss: LossConfig, axis: str | None
) -> Terms:
    """The student's normals against the prior's, at all scales; across edges at full size (the poster, contribution 1)."""
    terms = {}
    if loss.normal_l1 > 0:
        terms["normal_l1"] = loss.normal_l1 * normal_l1(surfaces, axis)
    if loss.normal_rank > 0:
        prior = teacher_depth if loss.normal_prior == "teacher" else batch.prior
        ranking = normal_ranking(surfaces, prior, batch.images[:, TARGET], batch.seed, loss, axis)
        terms["normal_rank"] = loss.normal_rank * ranking[None]
    return terms


def compute_losses(
    outputs: Outputs,
    teacher_views: Views | None,
    student_views: Views | None,
    teacher_depths: Float[Array, "s b h w"] | None,
    batch: Batch,
    noise: Float[Array, "b h w"],
    config: Config,
    axis: str | None,
    surfaces: Surfaces | None = None,
    round_trips: Float[Array, "b f 4 4"] | None = None,
) -> dict[str, Float[Array, ""]]:
    """All loss terms of one step, averaged over the scales and over all devices, and their sum "total".

    Names are "teacher/photometric", "student/consistency" and so on; a term that is off is absent.

    Args:
      teacher_views: None once the teacher is frozen.
      student_views: None for single-frame systems.
      teacher_depths: all scales at full size; needed with a student only.
      batch: after augmentation, when its images are floats.
      noise: decides ties of the auto-mask: ``loss.automask_noise`` times normal draws.
      axis: name of the mapped device axis, or None.
      surfaces: normals of the student's depths and of the prior; None where no term compares them.
      round_trips: poses to each source frame and back, likewise.

    Raises:
      ValueError: a student without teacher depths, or images that are not floats.
    """
    if not jnp.issubdtype(batch.images.dtype, jnp.floating):
        raise ValueError("the losses need float images in [0, 1]: augment the batch first")
    loss = config.loss
    target = describe_target(image_pyramid(batch.images[:, TARGET]))
    if loss.mask_weight != "off":
        target = target.replace(weights=mask_weights(batch.masks, loss))
    originals = jnp.stack([batch.images[:, PREVIOUS], batch.images[:, NEXT]])
    exists = frames_at(batch.exists, (PREVIOUS, NEXT))

    terms: Terms = {}
    if teacher_views is not None:
        teacher = teacher_terms(teacher_views, outputs.teacher_disps, target, originals, exists, noise, loss, axis)
        terms |= {f"teacher/{name}": value for name, value in teacher.items()}
    if student_views is not None:
        if teacher_depths is None or outputs.student is None:
            raise ValueError("the student's losses need the student's outputs and the teacher's depths")
        reliable = ~outputs.student.augmented[:, None, None]
        if loss.motion_mask:
            reliable = reliable & reliable_pixels(outputs.student.volume, teacher_depths[0])
        else:
            reliable = jnp.broadcast_to(reliable, teacher_depths.shape[1:])
        student = student_terms(student_views, outputs.student.disps, target, reliable, teacher_depths, exists, loss, axis)
        if surfaces is not None:
            student |= normal_terms(surfaces, teacher_depths[0], batch, loss, axis)
        terms |= {f"student/{name}": value for name, value in student.items()}
        if loss.dynamic_cycle > 0 and teacher_views is not None:
            masks = batch.masks[:, TARGET]
            terms["teacher/cycle"] = loss.dynamic_cycle * dynamic_cycle(teacher_views.depths, student_views.depths, masks, axis)

    if config.ds.enabled and config.ds.flow_smoothness > 0 and teacher_views is not None:
        terms["flow/smoothness"] = config.ds.flow_smoothness * flow_smoothness(outputs.student.residuals, axis)
    if round_trips is not None:
        terms["pose/cycle"] = loss.pose_cycle * pose_cycle(round_trips, axis)
    losses = {name: jnp.mean(value) for name, value in terms.items()}
    return losses | {"total": sum(losses.values(), start=jnp.zeros(()))}


def compute_sc_losses(
    target: Comparison,
    sources: Comparison,
    depth: Float[Array, "b h w"],
    surfaces: Surfaces | None,
    batch: Batch,
    config: Config,
    axis: str | None,
) -> dict[str, Float[Array, ""]]:
    """All terms of SC-DepthV3, averaged over all devices, and their sum "total"; a term that is off is absent.

    Args:
      target: the target frame against each source; sources: each source against it.
      depth: of the target, network units.
      surfaces: normals of ``depth`` and of the prior; None where no term compares them.
    """
    loss, sc = config.loss, config.sc
    photometric, geometry = sc_terms(target, sources, sc, axis)
    terms = {"photometric": photometric}
    if sc.geometry > 0:
        terms["geometry"] = sc.geometry * geometry
    if sc.depth_rank > 0:
        terms["depth_rank"] = sc.depth_rank * depth_ranking(depth, batch.prior, static_weight(target), batch.seed, axis)
    if surfaces is not None:
        terms |= {name: jnp.mean(value) for name, value in normal_terms(surfaces, depth, batch, loss, axis).items()}
    losses = {f"teacher/{name}": value for name, value in terms.items()}
    return losses | {"total": sum(losses.values(), start=jnp.zeros(()))}


def reprojection_error(
    views: Views, target: Target, exists: Bool[Array, "b f"], loss: LossConfig
) -> tuple[Float[Array, "s b h w"], Bool[Array, "*#s b #h #w"]]:
    """How badly the sources explain each target pixel, and the pixels that any source shows."""
    warped = views.warped
    if views.holes is not None and loss.occlusion_rule != "min":
        # The SSIM windows around a hole reach into it. Its black would count as a difference; the target's own pixels do not.
        warped = jnp.where(views.holes[..., None], target.statistics.rows.reshape(warped.shape[2:]), warped)
    if views.moved is None:
        error = photometric_error(warped, target.statistics, loss.ssim)
    else:
        error = adaptive_error(warped, views.moved, target.statistics, loss.ssim)
    return combine_sources(error, exists, views.holes, loss)


def _masked_mean(error: jax.Array, mask: jax.Array, target: Target, axis: str | None) -> jax.Array:
    if target.weights is not None:
        error = error * target.weights[:, None, None]
    mask = jnp.broadcast_to(mask, error.shape).astype(error.dtype)
    return reduce.masked_mean(error, mask, axis, dims=(1, 2, 3))


def _pyramid_terms(disps, target: Target, loss: LossConfig, axis: str | None) -> Terms:
    """What is asked of the disparities alone."""
    terms = {}
    if loss.smoothness > 0:
        terms["smoothness"] = loss.smoothness * smoothness(disps, target.edges, axis)
    if loss.pyramid_distillation > 0:
        full = jnp.stack([jax.image.resize(disp, disps[0].shape, "bilinear") for disp in disps])
        terms["distillation"] = loss.pyramid_distillation * pyramid_distillation(full, axis)
    return terms
