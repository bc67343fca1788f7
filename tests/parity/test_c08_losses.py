"""All loss terms and their gradients against the published trainers.

The references treat dark pixels as occluded and set them to 0 in both images, in place: zeroed pixels of the target accumulate
over sources, scales, identity terms and the image used for smoothness. Our library does none of this. ``blacked_out_errors``
zeroes the inputs in the reference's order, so that all later results can be compared.
"""

import dataclasses
import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest
from harness import nchw, nhwc
from loss_inputs import loss_inputs

from dd_jax.config import Config, LossConfig
from dd_jax.geometry.camera import disp_to_depth
from dd_jax.geometry.normals import depth_to_normals
from dd_jax.geometry.sampling import sample_border
from dd_jax.geometry.se3 import invert_pose, pose_from_parameters
from dd_jax.geometry.warp import reproject
from dd_jax.losses import ssim
from dd_jax.losses.consistency import consistency, pose_cycle
from dd_jax.losses.mask_weight import mask_weights
from dd_jax.losses.normals import Surfaces, edge_pixels, find_edges, normal_l1, relative_normal_error, sample_across_edges
from dd_jax.losses.photometric import Target, combine_sources, photometric_error
from dd_jax.losses.smoothness import edge_weights, smoothness
from dd_jax.method.objective import loss_terms as terms_of
from dd_jax.method.objective import weighted_terms
from dd_jax.runtime import reduce
from dd_jax.types import Views

FRAMES, SCALES = (-1, 1), range(4)
# Compiled once for all cases, scales and sources; compiling each case, or running uncompiled, takes minutes.
edge_weights, smoothness = jax.jit(edge_weights), jax.jit(smoothness, static_argnums=2)
IN_PLACE = "our loss never writes to the target (the reference does by mistake)"


def images(golden, pattern, frames=FRAMES):
    return jnp.stack([jnp.asarray(nhwc(golden[pattern.format(f)])) for f in frames])


def scalar_maps(golden, pattern):
    return tuple(jnp.asarray(golden[pattern.format(s)][:, 0]) for s in SCALES)


def loss_config(options) -> LossConfig:
    return LossConfig(
        automask_noise=0.0,
        ssim=0.0 if options.get("no_ssim") == "true" else 0.85,
        smoothness=2e-3,
        automask=not options.get("disable_automasking", False),
        source_reduce="mean" if options.get("avg_reprojection") else "min",
        occlusion_rule=options.get("_occlusion_rule", "switch") if options.get("selec_reproj", True) else "min",
    )


@functools.partial(jax.jit, static_argnames=("zero_img", "ssim_share"))
def blacked_out_error(pred, target, zero_img, ssim_share):
    keep = (jax.lax.stop_gradient(pred).sum(-1, keepdims=True) >= 0.1).astype(pred.dtype) if zero_img else 1.0
    return photometric_error(pred * keep, ssim.reference(target * keep), ssim_share), target * keep


@functools.partial(jax.jit, static_argnames="rule_and_reduce")
def combine(errors, exists, holes, rule_and_reduce):
    rule, source_reduce = rule_and_reduce
    return combine_sources(errors, exists, holes, LossConfig(occlusion_rule=rule, source_reduce=source_reduce))[0]


@functools.partial(jax.jit, static_argnames="fields")
def teacher(depths, preds, disps, pyramid, unwarped, exists, fields):
    images = jnp.stack([unwarped[0], pyramid[0], unwarped[1]], axis=1)
    batch = SimpleNamespace(images=images, seed=jnp.arange(len(images), dtype=jnp.uint32))
    views = Views(depths=depths, warped=preds, holes=None)
    return own_terms(fields, pyramid, exists, outputs=SimpleNamespace(teacher_disps=disps), teacher_views=views, batch=batch)


@functools.partial(jax.jit, static_argnames="fields")
def student(depths, preds, disps, pyramid, reliable, teacher_depths, exists, fields):
    views, outputs = Views(depths=depths, warped=preds, holes=None), SimpleNamespace(student=SimpleNamespace(disps=disps))
    known = {"student_views": views, "outputs": outputs, "reliable": reliable, "teacher_depths": teacher_depths}
    return own_terms(fields, pyramid, exists, **known)


def own_terms(fields, pyramid, exists, **known):
    """Our terms of one network: the student if its views are given, otherwise the teacher."""
    config = Config(loss=LossConfig(**dict(fields)))
    config.model.student = "student_views" in known
    target, edges = Target(pyramid[0], ssim.reference(pyramid[0])), edge_weights(pyramid)
    inputs = loss_inputs(config, target=target, edges=edges, exists=exists, **known)
    found = weighted_terms(inputs, terms_of(config, frozen=config.model.student))
    return {name.split("/")[1]: value for name, value in found.items()}


def blacked_out_errors(preds, unwarped, target, options, loss):
    """Errors (s, f, b, h, w) of warped and of unwarped sources, and the zeroed target of each scale, used for smoothness."""

    warped, identity, zeroed_targets = [], [], []
    for scale in SCALES:
        rows = []
        for pred in (*preds[scale], *(unwarped if loss.automask else ())):
            error, zeroed = blacked_out_error(pred, target, options.get("zero_img", True), loss.ssim)
            target = target if options.get("_clone") else zeroed
            rows.append(error)
        warped.append(jnp.stack(rows[:2]))
        identity.append(jnp.stack(rows[2:] or rows[:2]))
        zeroed_targets.append(target)
    return jnp.stack(warped), jnp.stack(identity), zeroed_targets


def loss_terms(golden, options, multi, preds, disps, depths, weights=None):
    """Terms per scale with the inputs of the golden file; differentiable in ``preds``, ``disps`` and ``depths``."""
    loss = loss_config(options)
    pyramid = tuple(jnp.asarray(nhwc(golden[f"in.color_0_s{s}"])) for s in SCALES)
    unwarped = images(golden, "in.color_{}" if multi or not options.get("no_teacher_warp", True) else "in.ori_color_{}")
    exists = jnp.ones((pyramid[0].shape[0], len(FRAMES)), bool)
    reliable = jnp.ones(depths.shape[1:], bool)
    if not options.get("disable_motion_masking"):
        reliable &= jnp.asarray(golden["in.consistency_mask"] > 0.5)
    if options.get("no_matching_augmentation") != "true":
        reliable &= jnp.asarray(golden["in.augmentation_mask"][:, 0] < 0.5)
    teacher_depths = jnp.stack(scalar_maps(golden, "in.mono_depth_s{}"))

    if loss.occlusion_rule == "min" and weights is None and not options.get("zero_img", True):  # the reference's loss equals ours
        fields = tuple(dataclasses.asdict(loss).items())
        if multi:
            return student(depths, preds, disps, pyramid, reliable, teacher_depths, exists, fields)
        return teacher(depths, preds, disps, pyramid, unwarped, exists, fields)

    explained = (depths, teacher_depths, reliable) if multi else None
    return terms_as_published(options, loss, preds, disps, pyramid, unwarped, exists, weights, explained)[0]


def terms_as_published(options, loss, preds, disps, pyramid, unwarped, exists, weights=None, explained=None):
    """Terms per scale from zeroed images, and the final zeroed target.

    ``explained``, for the student: its depths, the teacher's depths, and the mask of pixels without consistency loss.
    """
    dark = jax.lax.stop_gradient(preds).sum(-1) < 0.1
    holes = None if loss.occlusion_rule == "min" else dark
    errors, identities, targets = blacked_out_errors(preds, unwarped, pyramid[0], options, loss)
    how = loss.occlusion_rule, loss.source_reduce
    error = combine(errors, exists, holes, how)  # the reference counts pixels that no source shows, with error 0
    if explained is not None:
        mask = jnp.broadcast_to(explained[2], error.shape)
        terms = {"consistency": consistency(*explained, None)}
    else:
        mask, terms = jnp.ones_like(error, bool), {}
        if loss.automask:
            mask = jax.lax.stop_gradient(error) <= combine(identities, exists, None, how)
    if weights is not None:
        error = error * weights[:, None, None]
    edges = edge_weights((targets[0], *pyramid[1:]))
    terms |= {
        "photometric": reduce.masked_mean(error, mask.astype(error.dtype), None, dims=(1, 2, 3)),
        "smoothness": loss.smoothness * smoothness(disps, edges, None),
    }
    return terms, targets[-1]


def check_case(golden, case, terms, names=("reproj_loss", "consistency_loss", "loss")):
    found = {"reproj_loss": terms["photometric"], "loss": sum(terms.values())}
    if "consistency" in terms:
        found["consistency_loss"] = terms["consistency"]
    for name in names:
        for scale in SCALES if name in found else ():
            golden.check(f"out.{case}.{name}_{scale}", found[name][scale])


@pytest.mark.golden("c08_losses_mono", "c08_losses_multi")
def test_losses(golden):
    preds = jnp.stack([images(golden, f"in.pred_{{}}_s{s}") for s in SCALES])
    disps, depths = scalar_maps(golden, "in.disp_s{}"), jnp.stack(scalar_maps(golden, "in.depth_s{}"))
    for case, options in golden.meta["cases"].items():
        multi = options.get("is_multi", case.startswith("multi"))

        def total(preds, disps, depths, multi=multi, options=options):
            terms = loss_terms(golden, options, multi, preds, disps, depths)
            return jnp.mean(sum(terms.values())), terms

        if golden.names(f"out.{case}.grad_*"):
            (value, terms), grads = jax.value_and_grad(total, (0, 1, 2), has_aux=True)(preds, disps, depths)
            for i, frame in enumerate(FRAMES):
                golden.check(f"out.{case}.grad_pred_{frame}_s0", nchw(grads[0][0, i]))
            golden.check(f"out.{case}.grad_disp_s0", grads[1][0][:, None])
            if multi:
                golden.check(f"out.{case}.grad_depth_s0", grads[2][0][:, None])
        else:
            value, terms = total(preds, disps, depths)
        check_case(golden, case, terms)
        if options.get("feat_loss") == "true":
            golden.leave_out(f"out.{case}.loss_feat_loss", "the feature-metric regulariser is not implemented")
            golden.leave_out(f"out.{case}.loss", "contains the feature-metric regulariser, which is not implemented")
        else:
            golden.check(f"out.{case}.loss", value)
        if f"out.{case}.color_0_after" in golden:
            golden.leave_out(f"out.{case}.color_0_after", IN_PLACE)
        if f"out.{case}.consistency_target_0" in golden:
            golden.leave_out(f"out.{case}.consistency_target_0", "an image for the reference's log, not a loss term")


@pytest.mark.golden("c08_losses_from_disp")
def test_losses_from_disparity(golden):
    disps = scalar_maps(golden, "in.disp_s{}")
    poses = tuple(
        (jnp.asarray(golden[f"in.axisangle_{f}"][:, 0]), jnp.asarray(golden[f"in.translation_{f}"][:, 0])) for f in FRAMES
    )
    K = jnp.asarray(golden["in.K"][:, :3, :3])
    size = disps[0].shape

    @jax.jit
    def view(disps, poses, sources):
        depths = jnp.stack([disp_to_depth(jax.image.resize(d, size, "bilinear", antialias=False), 0.1, 100.0) for d in disps])
        T = [pose_from_parameters(*pose) for pose in poses]
        coords = reproject(depths, K, jnp.stack([invert_pose(T[0]), T[1]]))  # the network predicts T_{-1 -> 0} and T_{0 -> +1}
        preds = jnp.stack([sample_border(source, coords[:, f]) for f, source in enumerate(sources)], axis=1)
        return depths, coords, preds

    for case in dict.fromkeys(name.split(".")[1] + "." + name.split(".")[2] for name in golden.names("out.m*.*.loss")):
        branch, options = case.split(".")
        multi, options = branch == "multi", golden.meta["cases"][options]
        # Without no_teacher_warp the teacher gets the composited frames, as the student always does.
        sources = images(golden, "in.color_{}" if multi or not options.get("no_teacher_warp", True) else "in.ori_color_{}")

        def total(disps, poses, multi=multi, options=options, sources=sources):
            poses = jax.lax.stop_gradient(poses) if multi else poses
            depths, _, preds = view(disps, poses, sources)
            terms = loss_terms(golden, options, multi, preds, disps, depths)
            return jnp.mean(sum(terms.values())), terms

        (value, terms), (by_disp, by_pose) = jax.value_and_grad(total, (0, 1), has_aux=True)(disps, poses)
        check_case(golden, case, terms)
        golden.check(f"out.{case}.loss", value)
        if golden.names(f"out.{case}.grad_*"):
            for scale in SCALES:
                golden.check(f"out.{case}.grad_disp_s{scale}", by_disp[scale][:, None])
        for i, frame in enumerate(FRAMES):
            if f"out.{case}.grad_axisangle_{frame}" in golden:
                golden.check(f"out.{case}.grad_axisangle_{frame}", by_pose[i][0][:, None])
                golden.check(f"out.{case}.grad_translation_{frame}", by_pose[i][1][:, None])

    depths, coords, preds = view(disps, poses, images(golden, "in.ori_color_{}"))
    golden.check("out.depth_s1", depths[1][:, None])
    golden.check("out.pred_-1_s1", nchw(preds[1, 0]))
    golden.check("out.pred_1_s3", nchw(preds[3, 1]))
    golden.check("out.sample_1_s1", 2 * coords[1, 1] / (jnp.array(size[:0:-1]) - 1) - 1)


@pytest.mark.golden("c08_losses_students")
def test_losses_of_the_poster(golden):
    """Pose cycle loss, errors weighted by mask size, and no error where either view is black."""
    preds = jnp.stack([images(golden, f"in.pred_{{}}_s{s}") for s in SCALES])
    disps, depths = scalar_maps(golden, "in.disp_s{}"), jnp.stack(scalar_maps(golden, "in.depth_s{}"))
    masks = jnp.concatenate([jnp.asarray(golden[f"in.doj_mask{f}"]) for f in ("-1", "", "+1")], axis=1) > 0.5
    weights = mask_weights(masks, LossConfig(mask_weight="less", mask_area="intersection", mask_power=0.5))
    cycles = [jnp.asarray(golden[f"in.cam_T_cam_{f}"]) @ jnp.asarray(golden[f"in.cam_T_cam_rev_{f}"]) for f in FRAMES]
    cycle = 0.1 * len(masks) * pose_cycle(jnp.stack(cycles, axis=1), None)  # the reference sums over the batch
    between_scales = jnp.mean(jnp.sum(jnp.abs(depths[1:] - depths[:-1]), axis=0))  # published code only
    for case, options in golden.meta["cases"].items():
        options = options | {"_occlusion_rule": "union"}
        terms = loss_terms(golden, options, options["is_multi"], preds, disps, depths, weights)
        check_case(golden, case, terms)
        golden.check(f"out.{case}.loss", jnp.mean(sum(terms.values())) + cycle + between_scales)
        if f"out.{case}.color_0_after" in golden:
            golden.leave_out(f"out.{case}.color_0_after", IN_PLACE)


@pytest.mark.golden("c08_losses_students_normal")
def test_losses_of_the_poster_with_normals(golden):
    preds = jnp.stack([images(golden, f"in.pred_{{}}_s{s}") for s in SCALES])
    disps, depths = scalar_maps(golden, "in.disp_s{}"), jnp.stack(scalar_maps(golden, "in.depth_s{}"))
    teacher_depths = jnp.stack(scalar_maps(golden, "in.mono_depth_s{}"))
    K = jnp.stack([jnp.asarray(golden[f"in.K_s{s}"][:, :3, :3]) for s in SCALES])  # of each scale, as in the reference
    original = jnp.asarray(nhwc(golden["in.color_0_s0"]))
    target = blacked_out_errors(preds, images(golden, "in.color_{}"), original, {}, LossConfig())[2][-1]  # after all scales

    def normals_of(depths):
        return jnp.stack([depth_to_normals(d, k) for d, k in zip(depths, K, strict=True)])

    prior = normals_of(teacher_depths)
    red = jnp.repeat(target[..., :1], 3, axis=-1)  # the reference uses one channel only
    chains = []
    for kind, edge in zip(("image", "normal"), find_edges(red, teacher_depths[0], prior[0], None), strict=True):
        candidates, direction = edge_pixels(edge.strength), jnp.abs(edge.direction)  # the reference loses the sign of the slope
        for b in range(len(target)):
            anchors, distances = (jnp.asarray(golden[f"in.rand.{b}.{kind}.{name}"]) for name in ("anchor", "distance"))
            chains.append((b, sample_across_edges(candidates[b, None], direction[b, None], anchors[None], distances[None])))

    @functools.partial(jax.value_and_grad, has_aux=True)
    def total(depths):
        terms = loss_terms(golden, {}, True, preds, disps, depths)
        normals = normals_of(depths)
        errors = [relative_normal_error(normals[0, b, None], prior[0, b, None], chain).ravel() for b, chain in chains]
        terms["normal_l1"] = 0.1 * normal_l1(Surfaces(normals, prior), None)
        ranking = 0.1 * jnp.mean(jnp.concatenate(errors))
        return jnp.mean(sum(terms.values())) + ranking / len(SCALES), (terms, ranking)

    (value, (terms, ranking)), gradient = total(depths)
    check_case(golden, "multi", terms)
    for s in SCALES:
        golden.check(f"out.multi.normal_l1_loss_{s}", terms["normal_l1"][s])
    golden.check("out.multi.normal_ranking_loss_0", ranking)
    golden.check("out.multi.loss", value)
    for s in range(2):
        golden.check(f"out.multi.grad_depth_s{s}", gradient[s][:, None])
    golden.check("out.multi.color_0_after", nchw(target))
