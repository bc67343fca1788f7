"""DS-Depth against its published code.

Its flow network's input carries gradients and is sampled up to a pixel off, the dynamic volume uses the static one's mask, the
convolution of the volumes is not masked, and everything is resized with align_corners=True: the helpers here reproduce this and
pass the results to our functions.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from flax import nnx
from harness import nchw, nhwc
from test_c02_networks import exported, imported
from test_c03_cost_volume import decided
from test_c03_matching import exported as exported_encoder

from dd_jax.checkpoints import torch_names
from dd_jax.config import CostVolumeConfig, DsDepthConfig, LossConfig
from dd_jax.geometry.camera import disp_to_depth, pixel_grid, scale_intrinsics
from dd_jax.geometry.sampling import sample_border
from dd_jax.geometry.warp import reproject
from dd_jax.losses import ssim
from dd_jax.losses.consistency import consistency, pyramid_distillation
from dd_jax.losses.photometric import adaptive_error, combine_sources, photometric_error
from dd_jax.losses.smoothness import edge_weights, flow_smoothness, smoothness
from dd_jax.method import ds_depth
from dd_jax.method.cost_volume import depth_bins
from dd_jax.networks import model as networks
from dd_jax.networks.flow_net import FlowNet
from dd_jax.networks.layers import Draws
from dd_jax.networks.matching import MatchingEncoder
from dd_jax.runtime import reduce
from dd_jax.types import CostVolume

FRAMES, SCALES = (-1, 1), range(4)
PUBLISHED = DsDepthConfig(own_mask=False)


def sample_up_to_a_pixel_off(image, coords):
    """The reference normalises coordinates by the size instead of the size minus one."""
    h, w = image.shape[1:3]
    return sample_border(image, coords * jnp.array([(w - 1) / w, (h - 1) / h]))


@pytest.mark.golden("c13_ds_flow_net")
def test_flow_network_and_its_input(golden, monkeypatch):
    (name,) = golden.meta["weights"]
    graph, params, _ = imported(FlowNet(64, inputs=12, outputs=2, draws=Draws()), "flow", {"flow": golden.weights(name)})
    target, source = (jnp.asarray(nhwc(golden[f"in.color_{frame}"])) for frame in "0f")
    depth, K, T = (jnp.asarray(golden[f"in.{key}"]) for key in ("depth", "K", "cam_T_cam"))
    depth, K = depth[:, 0], K[:, :3, :3]
    h, w = depth.shape[1:]
    u, v = pixel_grid(h, w)
    grid = jnp.stack(jnp.broadcast_arrays(u, v), axis=-1)

    parts = []

    def given(self, *arrays):
        parts.extend(arrays)
        return (arrays[3],)

    with monkeypatch.context() as patch:  # the input of our flow network, sampled at the reference's coordinates
        patch.setattr(ds_depth, "sample_border", sample_up_to_a_pixel_off)
        patch.setattr(FlowNet, "__call__", given)
        batch = tiny.batch(len(depth)).replace(inputs=jnp.stack([source, target, source], axis=1), K=K)
        model = networks.Networks(tiny.config(ds={"enabled": True}, domd={"enabled": False}), Draws())
        ds_depth.predict_residual_flows(model, batch, T[:, None], depth)
    np.testing.assert_array_equal(parts[0], target)
    np.testing.assert_array_equal(parts[1], source)
    names = "warped", "rigid_flow", "error_norm"
    for name, part in zip(names, parts[2:], strict=True):
        golden.check(f"out.{name}", nchw(part))
    golden.check("out.zero_flow.warped", nchw(sample_up_to_a_pixel_off(target, jnp.broadcast_to(grid, (len(depth), h, w, 2)))))

    # The network gets the reference's input: rounding of the input may change the sign at a ReLU.
    seen = [jnp.asarray(nhwc(golden[f"out.{name}"])) for name in names]

    @jax.jit
    def run(params):
        flows = nnx.merge(graph, params, nnx.State({}))(target, source, *seen)
        return jnp.sum(flows[0] * nhwc(golden["in.grad_w"])), flows

    _, flows = run(params)
    for level, flow in enumerate(flows, start=1):
        golden.check(f"out.flow{level}", nchw(flow))
    smooth = flow_smoothness(tuple(flow[:, None] for flow in flows), None)
    for level in range(4):
        golden.check(f"out.flow_smooth{level + 1}", smooth[level] * 2**level)
    gradient = exported("flow", jax.jit(jax.grad(lambda p: run(p)[0]))(params))
    golden.check("out.grad_norm", np.array([np.linalg.norm(gradient[key]) for key in sorted(gradient)], np.float32))
    golden.check("out.grad.flow1.weight", gradient["flow1.weight"])
    golden.leave_out("out.grad_cam_T_cam", "our flow network's input carries no gradient")
    golden.leave_out("out.script.*", "the evaluation script's input differs from that of training; ours is the same in both")


def encoder_of(golden):
    encoder = MatchingEncoder(18, 64, golden.meta["num_depth_bins"], fusion="both", draws=Draws())
    graph, *states = nnx.split(encoder, nnx.Param, nnx.BatchStat)
    trees = tuple({"student": {"encoder": nnx.to_pure_dict(state)}} for state in states)
    (name,) = golden.meta["weights"]
    trees = torch_names.from_torch({"encoder": golden.weights(name)}, trees)
    return graph, *(tree["student"]["encoder"] for tree in trees)


def evaluated(golden):
    """Function that returns the encoder in evaluation mode."""
    graph, params, stats = encoder_of(golden)

    def model():
        encoder = nnx.merge(graph, params, stats, copy=True)
        encoder.eval()
        return encoder

    return model


def bins_of(golden, binning="linear"):
    limits = jnp.array([golden["in.min_depth"], golden["in.max_depth"]], jnp.float32)
    return depth_bins(limits, CostVolumeConfig(bins=golden.meta["num_depth_bins"], binning=binning))


def sweep(golden, current, lookup, poses, residual):
    """Our volume of one lookup frame, with the published mask."""
    bins = bins_of(golden)
    h, w = current.shape[1:3]
    half = jnp.array([(w - 1) / 2, (h - 1) / 2])
    present = jnp.sum(jnp.abs(poses), axis=(1, 2)) > 0
    T = jnp.where(present[:, None, None], poses, jnp.eye(4))
    K = scale_intrinsics(jnp.asarray(golden["in.K"])[:, :3, :3], 1.0, 1.0)
    return ds_depth.build_cost_volume(current, lookup, T, present, residual * half, K, bins, PUBLISHED)


@pytest.mark.golden("c13_ds_matching")
def test_volumes_and_their_fusion(golden):
    model = evaluated(golden)
    features = jax.jit(lambda image: model().features(image))
    f0, f1 = features(nhwc(golden["in.current"]))
    _, lookup = features(nhwc(golden["in.lookups"][:, 0]))
    golden.check("out.current_feats", nchw(f1))
    golden.check("out.lookup_feats", nchw(lookup)[:, None])
    for name, binning in (("depth_bins", "linear"), ("depth_bins_sid", "log")):
        golden.check(f"out.{name}", bins_of(golden, binning))

    residual = jnp.asarray(nhwc(golden["in.resflow"]))
    cases = {"default": ("poses", residual), "zero_pose": ("poses_one_zero", residual), "zero_flow": ("poses", 0 * residual)}
    for case, (poses, flow) in cases.items():
        volume = jax.jit(functools.partial(sweep, golden))(f1, lookup, jnp.asarray(golden[f"in.{poses}"][:, 0]), flow)
        static, dynamic = (nchw(part) for part in jnp.split(volume.static_and_dynamic, 2, axis=-1))
        golden.check(f"out.{case}.cost_volume_static", static)
        golden.check(f"out.{case}.cost_volume_dynamic", dynamic)
        golden.check(f"out.{case}.confidence_mask", volume.confidence)
        golden.check(f"out.{case}.lowest_cost", volume.lowest, where=used_and_decided(volume))
        if f"out.{case}.missing_static" in golden:
            golden.check(f"out.{case}.missing_static", 1 - nchw(volume.observed.astype(jnp.float32)))
            golden.check(f"out.{case}.missing_dynamic", 1 - nchw(volume.observed.astype(jnp.float32)))
        check_fusion(golden, f"out.{case}", model, f0, f1, volume)


def used_and_decided(volume):
    """Pixels that are used (all bins observed) and whose cheapest bin does not depend on rounding."""
    return (np.asarray(volume.confidence) > 0) & decided(volume)


def with_unmasked_convolution(volume):
    """The published encoder masks the cheaper costs but not their convolution; ours masks both."""
    return volume.replace(costs=volume.costs * volume.confidence[..., None], confidence=jnp.ones_like(volume.confidence))


def check_fusion(golden, prefix, model, f0, f1, volume):
    unmasked = with_unmasked_convolution(volume)
    reduced = jax.jit(lambda volumes: jax.nn.relu(model().fusion(volumes)))(volume.static_and_dynamic)
    for name, value in (("volume_reduced", reduced), ("volume_feature", reduced + unmasked.costs)):
        if f"{prefix}.{name}" in golden:
            golden.check(f"{prefix}.{name}", nchw(value))
    fused = jax.jit(lambda f0, f1, volume: model().fuse(f0, f1, volume))(f0, f1, unmasked)
    for i in (2, 3, 4):
        if f"{prefix}.feat{i}" in golden:
            golden.check(f"{prefix}.feat{i}", nchw(fused[i]))


@pytest.mark.golden("c13_ds_matching_train")
def test_matching_encoder_in_training(golden):
    graph, params, stats = encoder_of(golden)
    residual = jnp.asarray(nhwc(golden["in.resflow"]))
    poses = jnp.asarray(golden["in.poses"][:, 0])

    def objective(params):
        model = nnx.merge(graph, params, stats, copy=True)
        f0, f1 = model.features(jnp.asarray(nhwc(golden["in.current"])))
        _, lookup = model.features(jnp.asarray(nhwc(golden["in.lookups"][:, 0])))
        volume = jax.tree.map(jax.lax.stop_gradient, sweep(golden, f1, lookup, poses, residual))
        unmasked = with_unmasked_convolution(volume)
        fused = model.fuse(f0, f1, unmasked)
        total = sum(jnp.sum(fused[i] * nhwc(golden[f"in.grad_w{i}"])) for i in (2, 3, 4))
        return total, (volume, unmasked.costs + jax.nn.relu(model.fusion(volume.static_and_dynamic)), fused)

    grads, (volume, feature, fused) = jax.jit(jax.grad(objective, has_aux=True))(params)
    static, dynamic = (nchw(part) for part in jnp.split(volume.static_and_dynamic, 2, axis=-1))
    golden.check("out.cost_volume_static", static)
    golden.check("out.cost_volume_dynamic", dynamic)
    golden.check("out.confidence_mask", volume.confidence)
    golden.check("out.lowest_cost", volume.lowest, where=used_and_decided(volume))
    golden.check("out.volume_feature", nchw(feature))
    for i in (2, 3, 4):
        golden.check(f"out.feat{i}", nchw(fused[i]))
    gradient = exported_encoder(grads)
    keys = golden.meta.get("grad_keys", sorted(gradient))
    golden.check("out.grad_norm", np.array([np.linalg.norm(gradient[key]) for key in keys], np.float32))
    for name in golden.names("out.grad.*"):
        golden.check(name, gradient[name.removeprefix("out.grad.")])


@pytest.mark.golden("c13_ds_matching_two_lookups")
def test_mean_of_two_lookup_frames(golden):
    """Ours matches one lookup frame; the reference uses the same residual flow for two, a defect, and averages two sweeps."""
    model = evaluated(golden)
    features = jax.jit(lambda image: model().features(image))
    f0, f1 = features(nhwc(golden["in.current"]))
    residual, run = jnp.asarray(nhwc(golden["in.resflow"])), jax.jit(functools.partial(sweep, golden))
    volume = averaged(
        [
            run(f1, features(nhwc(golden["in.lookups"][:, frame]))[1], jnp.asarray(golden["in.poses"][:, frame]), residual)
            for frame in range(2)
        ],
        bins_of(golden),
    )
    for name, costs in zip(("static", "dynamic"), jnp.split(volume.static_and_dynamic, 2, axis=-1)):
        golden.check(f"out.cost_volume_{name}", nchw(costs))
        golden.check(f"out.missing_{name}", 1 - nchw(volume.observed.astype(jnp.float32)))
    golden.check("out.confidence_mask", volume.confidence)
    golden.check("out.lowest_cost", volume.lowest, where=used_and_decided(volume))
    check_fusion(golden, "out", model, f0, f1, volume)


def averaged(volumes, bins):
    """The volume of several lookup frames in the reference: the mean over the frames that observe a pixel at a depth."""
    observed = jnp.stack([volume.observed for volume in volumes])  # (f, b, h, w, k)
    costs = jnp.stack([jnp.stack(jnp.split(volume.static_and_dynamic, 2, axis=-1)) for volume in volumes])
    count = jnp.sum(observed, axis=0)
    costs = jnp.sum(jnp.where(observed[:, None], costs, 0.0), axis=0) / jnp.maximum(count, 1)  # (2, b, h, w, k)
    costs = jnp.where(count > 0, costs, jnp.max(costs, axis=-1, keepdims=True))
    confident = jnp.all(count > 0, axis=-1)
    fused = jnp.min(costs, axis=0) * confident[..., None]
    return CostVolume(
        costs=fused,
        observed=count > 0,
        confidence=confident.astype(jnp.float32),
        lowest=1 / bins[jnp.argmin(fused, axis=-1)],
        static_and_dynamic=jnp.concatenate([costs[0], costs[1]], axis=-1),
    )


def resize_align_corners(x, size):
    """(..., h, w) -> (..., H, W), bilinear, align_corners=True."""

    def weights(small, large):
        place = np.linspace(0, small - 1, large)
        return np.maximum(0, 1 - np.abs(place[:, None] - np.arange(small))).astype(np.float32)

    rows, columns = weights(x.shape[-2], size[0]), weights(x.shape[-1], size[1])
    return jnp.einsum("Hh,...hw,Ww->...HW", rows, x, columns, precision="highest")


OPTIONS = {  # case -> changes of LossConfig, whether motion mask and matching augmentation are applied
    "default": ({}, True),
    "avg": ({"source_reduce": "mean"}, True),
    "no_ssim": ({"ssim": 0.0}, True),
    "motion_mask_off_no_aug": ({}, False),
}


def losses_of(pyramid, sources, K):
    """(views, terms) of a target at all scales and its sources (f, b, h, w, 3); maps are resized with align_corners=True."""
    size = pyramid[0].shape[1:3]
    half = jnp.array([(size[1] - 1) / 2, (size[0] - 1) / 2])
    statistics, edges = ssim.reference(pyramid[0]), edge_weights(pyramid)
    exists = jnp.ones((len(pyramid[0]), 2), bool)

    def views(disps, poses, flows):
        """Depths (s, b, h, w), images sampled at rigid and at flow-shifted points (s, f, b, h, w, 3), shifted points."""
        depths = jnp.stack([disp_to_depth(resize_align_corners(disp, size), 0.1, 100.0) for disp in disps])
        coords = reproject(depths, K, jnp.stack(poses))
        shifts = jnp.stack([jnp.moveaxis(resize_align_corners(flow, size), 2, -1) * half for flow in flows])
        sample = jax.vmap(sample_border, in_axes=(0, 1), out_axes=1)
        return depths, sample(sources, coords), sample(sources, coords + shifts), coords + shifts

    def terms(inputs, multi, loss, reliable):
        """Per scale, weighted, of the student (``multi``) or of the teacher."""
        poses = jax.tree.map(jax.lax.stop_gradient, inputs["cam_T_cam"]) if multi else inputs["cam_T_cam"]
        flows = inputs["resflow"]
        disps = inputs["disp"] if multi else inputs["mono_disp"]
        depths, rigid, moved, _ = views(disps, poses, flows)
        error = adaptive_error(rigid, moved, statistics, loss.ssim) if multi else photometric_error(rigid, statistics, loss.ssim)
        dark = jax.lax.stop_gradient(moved if multi else rigid).sum(-1) < 0.1
        plain = combine_sources(error, exists, None, loss)[0]
        error = combine_sources(error, exists, dark, loss)[0]  # published: pixels that no source shows count, as 0
        found = {"smooth": 2e-4 * smoothness(disps, edges, None)}
        if multi:
            mask = jnp.broadcast_to(reliable, error.shape).astype(error.dtype)
            teacher = jax.lax.stop_gradient(views(inputs["mono_disp"], poses, flows)[0])
            found["consistency_loss"] = consistency(depths, teacher, reliable, None)
            last = tuple(jnp.moveaxis(flow[1:], 2, -1).swapaxes(0, 1) for flow in flows)
            found["smooth_flow_loss"] = 1e-4 * flow_smoothness(last, None)  # of the last frame only
        else:
            originals = photometric_error(sources, statistics, loss.ssim)
            identity = combine_sources(originals, exists, None, loss)[0]
            mask = (jax.lax.stop_gradient(plain) <= identity).astype(error.dtype)
        found["reproj_loss"] = reduce.masked_mean(error, mask, None, dims=(1, 2, 3))
        return found

    return views, terms


def as_logged(terms):
    """Terms as the reference logs them: with their sum, and flow smoothness without its weight."""
    found = terms | {"loss": sum(terms.values())}
    if "smooth_flow_loss" in terms:
        found["smooth_flow_loss"] = terms["smooth_flow_loss"] * 2 ** np.arange(4) / 1e-4
    return found


@pytest.mark.golden("c13_ds_losses")
def test_losses(golden):
    pyramid = tuple(jnp.asarray(nhwc(golden[f"in.color_0_s{s}"])) for s in SCALES)
    sources = jnp.stack([jnp.asarray(nhwc(golden[f"in.color_{f}_s0"])) for f in FRAMES])
    views, terms = losses_of(pyramid, sources, jnp.asarray(golden["in.K"])[:, :3, :3])
    inputs = {
        "mono_disp": tuple(jnp.asarray(golden[f"in.mono_disp_s{s}"][:, 0]) for s in SCALES),
        "disp": tuple(jnp.asarray(golden[f"in.disp_s{s}"][:, 0]) for s in SCALES),
        "cam_T_cam": tuple(jnp.asarray(golden[f"in.cam_T_cam_{f}"]) for f in FRAMES),
        "resflow": tuple(jnp.stack([jnp.asarray(golden[f"in.resflow_{f}_s{s}"]) for f in FRAMES]) for s in SCALES),
    }

    def total(inputs, loss, reliable):
        parts = {multi: terms(inputs, multi, loss, reliable) for multi in (False, True)}
        return sum(jnp.mean(sum(part.values())) for part in parts.values()), parts

    for case, (changes, masked) in OPTIONS.items():
        loss = LossConfig(occlusion_rule="switch", **changes)
        reliable = jnp.ones(golden["in.consistency_mask"].shape, bool)
        if masked:
            reliable = jnp.asarray((golden["in.consistency_mask"] > 0.5) & (golden["in.augmentation_mask"][:, 0] < 0.5))
        run = jax.jit(jax.value_and_grad(functools.partial(total, loss=loss, reliable=reliable), has_aux=True))
        (_, parts), grads = run(inputs)
        for multi, part in parts.items():
            prefix = f"out.{case}.{'multi' if multi else 'mono'}"
            part = as_logged(part)
            for name in ("reproj_loss", "loss", "consistency_loss", "smooth_flow_loss"):
                for scale in SCALES:
                    if f"{prefix}.{name}_{scale}" in golden:
                        golden.check(f"{prefix}.{name}_{scale}", part[name][scale])
            golden.check(f"{prefix}.loss", jnp.mean(part["loss"]))
        if case == "default":
            for scale in SCALES:
                golden.check(f"out.default.grad_disp_s{scale}", grads["disp"][scale][:, None])
                golden.check(f"out.default.grad_mono_disp_s{scale}", grads["mono_disp"][scale][:, None])
            for i, frame in enumerate(FRAMES):
                golden.check(f"out.default.grad_cam_T_cam_{frame}", grads["cam_T_cam"][i])
                for scale in SCALES:
                    golden.check(f"out.default.grad_resflow_{frame}_s{scale}", grads["resflow"][scale][i])

    size, statistics = pyramid[0].shape[1:3], ssim.reference(pyramid[0])
    half = np.array([(size[1] - 1) / 2, (size[0] - 1) / 2])
    _, rigid, moved, points = views(inputs["disp"], inputs["cam_T_cam"], inputs["resflow"])
    for i, frame in enumerate(FRAMES):
        golden.check(f"out.color_{frame}_s0", nchw(rigid[0, i]))
        golden.check(f"out.color_flow_{frame}_s0", nchw(moved[0, i]))
        golden.check(f"out.sample_flow_{frame}_s0", points[0, i] / half - 1)
    golden.check("out.photometric_-1_s0", adaptive_error(rigid[0, 0], moved[0, 0], statistics, 0.85)[:, None])
    distillation = 1e-3 * pyramid_distillation(jnp.stack([resize_align_corners(disp, size) for disp in inputs["disp"]]), None)
    for scale in (1, 2, 3):
        golden.check(f"out.pyramid_distillation_s{scale}", distillation[scale])
