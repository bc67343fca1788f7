"""What training minimises: the terms of all systems in one list, and the quantities they are computed from."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, UInt32

from dd_jax.config import Config
from dd_jax.geometry.camera import reduce_intrinsics
from dd_jax.geometry.sampling import reduce_image, reduce_image_with_holes
from dd_jax.losses import ssim
from dd_jax.losses.auto_mask import auto_mask
from dd_jax.losses.consistency import consistency, dynamic_cycle, pose_cycle, pyramid_distillation, reliable_pixels
from dd_jax.losses.depth_ranking import depth_ranking
from dd_jax.losses.mask_weight import mask_weights
from dd_jax.losses.normals import Surfaces, normal_l1, normal_ranking
from dd_jax.losses.photometric import Target, photometric_mean, reprojection_error
from dd_jax.losses.sc_depth import ValidComparisons, mean_inconsistency, mean_photometric, static_weight, valid_planes
from dd_jax.losses.smoothness import EdgeWeights, edge_weights, flow_smoothness, image_pyramid, smoothness
from dd_jax.method.domd import object_depth
from dd_jax.method.poses import forward_backward_poses
from dd_jax.method.sc_depth import compare_frames
from dd_jax.method.view_synthesis import full_size_depths, normals_of, predict_offsets, synthesize
from dd_jax.networks.model import Networks
from dd_jax.runtime import forms
from dd_jax.runtime.random_streams import RandomStream, stream_key
from dd_jax.types import NEXT, PREVIOUS, TARGET, Batch, Outputs, Views, frames_at

sg = jax.lax.stop_gradient


class Term(NamedTuple):
    """One loss term; ``function`` gives one value per decoder scale, or a single one."""

    name: str
    weight: float
    function: Callable[["LossInputs"], Float[Array, "*s"]]


def loss_terms(config: Config, frozen: bool) -> list[Term]:
    """All terms of the configured system; a term of weight 0 is absent. ``frozen``: teacher and pose network are fixed."""
    loss, sc, ds = config.loss, config.sc, config.ds
    normals = [("normal_l1", loss.normal_l1, normal_l1_term), ("normal_rank", loss.normal_rank, normal_ranking_term)]
    if sc.enabled:  # SC-DepthV3
        terms = [
            Term("single_frame/photometric", 1.0, lambda x: mean_photometric(x.planes, x.axis)),
            Term("single_frame/geometry", sc.geometry, lambda x: mean_inconsistency(x.planes, x.axis)),
            Term("single_frame/depth_rank", sc.depth_rank, depth_ranking_term),
            *(Term(f"single_frame/{name}", *term) for name, *term in normals),
        ]
        return [term for term in terms if term.weight > 0]

    single = "teacher" if config.model.student else "single_frame"
    terms = []
    if not frozen:  # Monodepth2
        terms += [
            Term(f"{single}/photometric", 1.0, per_level(teacher_photometric)),
            Term(f"{single}/smoothness", loss.smoothness, lambda x: smoothness(x.outputs.teacher_disps, x.edges, x.axis)),
            Term(f"{single}/distillation", loss.pyramid_distillation, lambda x: distillation(x.outputs.teacher_disps, x.axis)),
        ]
    if config.model.student:  # ManyDepth, DynamicDepth
        terms += [
            Term("student/photometric", 1.0, per_level(student_photometric)),
            Term("student/consistency", loss.consistency, per_level(student_consistency)),
            Term("student/smoothness", loss.smoothness, lambda x: smoothness(x.outputs.student.disps, x.edges, x.axis)),
            Term("student/distillation", loss.pyramid_distillation, lambda x: distillation(x.outputs.student.disps, x.axis)),
            *(Term(f"student/{name}", *term) for name, *term in normals),  # the poster
        ]
    if config.model.student and not frozen:
        terms += [Term("teacher/cycle", loss.dynamic_cycle, dynamic_cycle_term)]
    if ds.enabled and not frozen:  # DS-Depth
        terms += [Term("flow/smoothness", ds.flow_smoothness, lambda x: flow_smoothness(x.outputs.student.residuals, x.axis))]
    if not frozen:  # the poster
        terms += [Term("pose/cycle", loss.pose_cycle, lambda x: pose_cycle(x.forward_backward_poses, x.axis))]
    return [term for term in terms if term.weight > 0]


def compute_losses(inputs: "LossInputs", terms: list[Term]) -> dict[str, Float[Array, ""]]:
    """Every weighted term, averaged over the scales and over all devices, and their sum "total"."""
    losses = {name: jnp.mean(value) for name, value in weighted_terms(inputs, terms).items()}
    return losses | {"total": sum(losses.values(), start=jnp.zeros(()))}


def weighted_terms(inputs: "LossInputs", terms: list[Term]) -> dict[str, Float[Array, "*s"]]:
    """Every term times its weight, per scale."""
    return {name: weight * function(inputs) for name, weight, function in terms}


class LossInputs:
    """What the terms are computed from; each quantity is computed when a term first needs it: a disabled term costs nothing."""

    def __init__(self, model: Networks, outputs: Outputs, batch: Batch, config: Config, axis: str | None):
        if not jnp.issubdtype(batch.images.dtype, jnp.floating):
            raise ValueError("the losses need float images in [0, 1]: augment the batch first")
        self.model, self.batch, self.config, self.axis = model, batch, config, axis
        self.outputs = finest_scales(outputs, config.loss.scales)

    @functools.cached_property
    def levels(self) -> tuple["LossInputs", ...]:
        """What images are compared from: all scales at full size, or each scale at its own size (``loss.pyramid``)."""
        if not self.config.loss.pyramid:
            return (self,)
        return tuple(self._level(scale) for scale in range(len(self.outputs.teacher_disps)))

    def _level(self, scale: int) -> "LossInputs":
        """One decoder scale alone, with images, holes, intrinsics and offsets of its size."""
        batch, outputs, factor, only = self.batch, self.outputs, 2**scale, slice(scale, scale + 1)
        batch = batch.replace(images=reduce_image(batch.images, scale), K=reduce_intrinsics(batch.K, scale))
        student = outputs.student
        if student is not None:
            domd, residuals = student.disentangled, student.residuals
            if domd is not None:
                images, holes = reduce_image_with_holes(domd.images, domd.holes, scale)
                domd = domd.replace(images=images, holes=holes)
            residuals = None if residuals is None else residuals[only]
            student = student.replace(disps=student.disps[only], disentangled=domd, residuals=residuals)
        outputs = outputs.replace(teacher_disps=outputs.teacher_disps[only], student=student)
        level = LossInputs(self.model, outputs, batch, self.config, self.axis)
        level.offsets = None if self.offsets is None else reduce_image(self.offsets, scale)
        if student is not None:
            inner = slice(factor // 2, None, factor)
            level.reliable, level.objects = self.reliable[:, inner, inner], self.objects[:, inner, inner]
        return level

    @functools.cached_property
    def target(self) -> Target:
        """SSIM statistics of the target frame, and the weight of each sample."""
        loss = self.config.loss
        weights = None if loss.mask_weight == "off" else mask_weights(self.batch.masks, loss)
        image = self.batch.images[:, TARGET]
        return Target(image, ssim.reference(image), weights)

    @functools.cached_property
    def edges(self) -> EdgeWeights:
        """Edge weights of the target frame at all scales."""
        return edge_weights(image_pyramid(self.batch.images[:, TARGET])[: len(self.outputs.teacher_disps)])

    @functools.cached_property
    def exists(self) -> Bool[Array, "b 2"]:
        """Source frames that exist."""
        return frames_at(self.batch.exists, (PREVIOUS, NEXT))

    @functools.cached_property
    def teacher_depths(self) -> Float[Array, "s b h w"]:
        """Depth of the teacher, or of the only network, at every scale; SC-DepthV3 uses the finest only."""
        disps = self.outputs.teacher_disps[: 1 if self.config.sc.enabled else None]
        return full_size_depths(disps, self.config.model)

    @functools.cached_property
    def guide_depths(self) -> Float[Array, "s b h w"]:
        """What the student follows where matching fails: the teacher's depth, of objects that of DOMD."""
        if self.config.domd.enabled and self.config.domd.depth != "teacher":
            return object_depth(sg(self.teacher_depths), self.objects, self.config.domd.depth)
        return self.teacher_depths

    @functools.cached_property
    def objects(self) -> Bool[Array, "b h w"]:
        """Potentially dynamic objects of the target frame."""
        return self.batch.masks[:, TARGET]

    @functools.cached_property
    def offsets(self) -> Float[Array, "b 2 h w 3"] | None:
        """Residual 3-D motion of every point, in addition to the camera motion; None without a flow network."""
        return predict_offsets(self.model, self.batch.inputs, self.config.model)

    @functools.cached_property
    def teacher_views(self) -> Views:
        """Source frames warped through the teacher's depth."""
        sources = frames_at(self.batch.images, (PREVIOUS, NEXT))
        with jax.named_scope("views"):
            return synthesize(self.teacher_depths, self.outputs.T_source_from_target, sources, None, self.batch.K, self.offsets)

    @functools.cached_property
    def teacher_errors(self) -> tuple[Float[Array, "s b h w"], Bool[Array, "*#s b #h #w"]]:
        """Photometric error through the teacher's depth, and the pixels that count: seen and not auto-masked."""
        loss, batch = self.config.loss, self.batch
        error, mask = reprojection_error(self.teacher_views, self.target, self.exists, loss)
        if loss.automask:
            unwarped = jnp.stack([batch.images[:, PREVIOUS], batch.images[:, NEXT]])
            noise = tie_break_noise(batch.seed, batch.images.shape[2:4], loss.automask_noise)
            kept = auto_mask(sg(error), unwarped, self.target.statistics, self.exists, noise, loss)
            if loss.automask_parallax > 0:
                slow = parallax(self.outputs.T_source_from_target, self.teacher_views.depths[0]) <= loss.automask_parallax
                kept = kept | slow[:, None, None]
            mask = mask & kept
        return error, mask

    @functools.cached_property
    def student_views(self) -> Views:
        """Source frames, with dynamic objects re-rendered where DOMD is on, warped through the student's depth."""
        student, T = self.outputs.student, sg(self.outputs.T_source_from_target)
        depths, domd = full_size_depths(student.disps, self.config.model), student.disentangled
        sources, holes = (frames_at(self.batch.images, (PREVIOUS, NEXT)), None) if domd is None else (domd.images, domd.holes)
        with jax.named_scope("views"):
            return synthesize(depths, T, sources, holes, self.batch.K, self.offsets, student.residuals)

    @functools.cached_property
    def reliable(self) -> Bool[Array, "b h w"]:
        """Pixels where the student learns from the photometric error; elsewhere it learns from the teacher."""
        student = self.outputs.student
        reliable = ~student.augmented[:, None, None]
        if not self.config.loss.motion_mask:
            return jnp.broadcast_to(reliable, self.teacher_depths.shape[1:])
        return reliable & reliable_pixels(student.volume, self.guide_depths[0])

    @functools.cached_property
    def prior_depth(self) -> Float[Array, "b h w"]:
        """Depth that the normal terms compare with: the teacher's, or that of a file."""
        return self.teacher_depths[0] if self.config.loss.normal_prior == "teacher" else self.batch.prior

    @functools.cached_property
    def surfaces(self) -> Surfaces:
        """Normals of the trained depth (the student's, or the only network's full-size one) and of the prior depth."""
        single = self.outputs.student is None
        depths = self.teacher_depths if single else self.student_views.depths
        prior = self.teacher_depths if self.config.loss.normal_prior == "teacher" else self.batch.prior[None]
        return Surfaces(normals_of(depths, self.batch.K), sg(normals_of(prior, self.batch.K)))

    @functools.cached_property
    def forward_backward_poses(self) -> Float[Array, "b 2 4 4"]:
        """Forward and backward pose of every pair, composed."""
        with jax.named_scope("poses"):
            return forward_backward_poses(self.model, self.batch.inputs, self.outputs.T_source_from_target)

    @functools.cached_property
    def comparisons(self) -> tuple:
        """SC-Depth: the target frame against each source, and each source against the target."""
        T, depth = self.outputs.T_source_from_target, self.teacher_depths[0]
        with jax.named_scope("views"):
            return compare_frames(self.model, self.batch, T, depth, self.config)

    @functools.cached_property
    def planes(self) -> ValidComparisons:
        """SC-Depth: all comparisons, and the pixels that count."""
        return valid_planes(*self.comparisons, self.config.sc, self.axis)


def per_level(function: Callable[[LossInputs], Float[Array, " s"]]) -> Callable[[LossInputs], Float[Array, " s"]]:
    """The term at every size at which images are compared; see :attr:`LossInputs.levels`."""
    return lambda x: jnp.concatenate([function(level) for level in x.levels])


def finest_scales(outputs: Outputs, count: int) -> Outputs:
    """Outputs without the coarser decoder scales."""
    student = outputs.student
    if student is not None:
        residuals = None if student.residuals is None else student.residuals[:count]
        student = student.replace(disps=student.disps[:count], residuals=residuals)
    return outputs.replace(teacher_disps=outputs.teacher_disps[:count], student=student)


def teacher_photometric(x: LossInputs) -> Float[Array, " s"]:
    """Auto-masked photometric error of the single-frame network (Monodepth2, eq. 6)."""
    return photometric_mean(*x.teacher_errors, x.target, x.axis)


def parallax(T_source_from_target: Float[Array, "b f 4 4"], depth: Float[Array, "b h w"]) -> Float[Array, " b"]:
    """Mean distance to the source frames, divided by the harmonic mean of the depth. No gradient."""
    distance = jnp.mean(jnp.linalg.norm(sg(T_source_from_target)[:, :, :3, 3], axis=-1), axis=1)
    return distance * jnp.mean(1 / sg(depth), axis=(1, 2))


def student_photometric(x: LossInputs) -> Float[Array, " s"]:
    """Photometric error of the student on reliable pixels (ManyDepth, sec. 3.3)."""
    error, seen = reprojection_error(x.student_views, x.target, x.exists, x.config.loss)
    return photometric_mean(error, seen & x.reliable, x.target, x.axis)


def student_consistency(x: LossInputs) -> Float[Array, " s"]:
    """Difference from the teacher's depth, or the ground's, on all other pixels (ManyDepth, sec. 3.3)."""
    logarithmic = x.config.loss.consistency_of == "log"
    return consistency(x.student_views.depths, x.guide_depths, x.reliable, x.axis, logarithmic)


def dynamic_cycle_term(x: LossInputs) -> Float[Array, " s"]:
    """The teacher learns from the student on objects (DynamicDepth, sec. 3.4)."""
    return dynamic_cycle(x.teacher_depths, x.student_views.depths, x.batch.masks[:, TARGET], x.axis)


def normal_l1_term(x: LossInputs) -> Float[Array, " s"]:
    """The poster, contribution 1; SC-DepthV3."""
    return normal_l1(x.surfaces, x.axis)


def normal_ranking_term(x: LossInputs) -> Float[Array, "1"]:
    """The poster, contribution 1; SC-DepthV3. Full size only."""
    image = x.batch.images[:, TARGET]
    return normal_ranking(x.surfaces, x.prior_depth, image, x.batch.seed, x.config.loss, x.axis)[None]


def depth_ranking_term(x: LossInputs) -> Float[Array, ""]:
    """SC-DepthV3: the order of depths is that of the prior, mostly where camera motion explains little."""
    return depth_ranking(x.teacher_depths[0], x.batch.prior, static_weight(x.comparisons[0]), x.batch.seed, x.axis)


def distillation(disps: tuple[Float[Array, "b _ _"], ...], axis: str | None) -> Float[Array, " s"]:
    """DS-Depth: difference between the coarse scales' disparities, upsampled, and the finest."""
    return pyramid_distillation(jnp.stack([jax.image.resize(disp, disps[0].shape, "bilinear") for disp in disps]), axis)


def tie_break_noise(seed: UInt32[Array, " b"], size: tuple[int, int], strength: float) -> Float[Array, "b h w"]:
    """Normal noise that breaks ties between equal errors of the auto-mask, a function of each sample's seed."""
    return strength * forms.image_by_image(lambda s: jax.random.normal(stream_key(s, RandomStream.TIE_BREAK), size), 0, seed)
