"""DS-Depth against its published code.

Its flow network's input carries gradients and is sampled up to a pixel off, the dynamic volume borrows the static one's mask, the
convolution of the volumes is not masked, and everything is brought to full size by its corners: the helpers here do as it does,
and hand what they find to our functions.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from harness import nchw, nhwc
from test_c02_networks import exported, imported
from test_c03_matching import exported as exported_encoder

from dd_jax import dynamic_volume, ssim
from dd_jax.config import CostVolumeConfig, DsDepthConfig
from dd_jax.cost_volume import depth_bins
from dd_jax.geometry.camera import pixel_grid, scale_intrinsics
from dd_jax.geometry.sampling import sample_border
from dd_jax.geometry.se3 import invert_pose
from dd_jax.geometry.warp import reproject
from dd_jax.losses.smoothness import flow_smoothness
from dd_jax.networks import pretrained
from dd_jax.networks.flow_net import FlowNet
from dd_jax.networks.layers import Draws
from dd_jax.networks.matching import MatchingEncoder

PUBLISHED = DsDepthConfig(own_mask=False)


@pytest.mark.golden("c13_ds_flow_net")
def test_flow_network_and_its_input(golden):
    (name,) = golden.meta["weights"]
    graph, params, _ = imported(FlowNet(64, inputs=12, outputs=2, draws=Draws()), "flow", {"flow": golden.weights(name)})
    target, source = (jnp.asarray(nhwc(golden[f"in.color_{frame}"])) for frame in "0f")
    depth, K, T = (jnp.asarray(golden[f"in.{key}"]) for key in ("depth", "K", "cam_T_cam"))
    depth, K = depth[:, 0], K[:, :3, :3]
    h, w = depth.shape[1:]
    shrink = jnp.array([(w - 1) / w, (h - 1) / h])
    u, v = pixel_grid(h, w)
    grid = jnp.stack(jnp.broadcast_arrays(u, v), axis=-1)

    coords = reproject(depth, K, invert_pose(T))
    moved = sample_border(target, coords * shrink)
    error = 0.85 * ssim.distance(moved, ssim.moments(source, 1), 1) + 0.15 * jnp.abs(source - moved)
    norm = jnp.sqrt(jnp.sum((error + 1e-10) ** 2, axis=-1, keepdims=True))
    golden.check("out.rigid_flow", nchw(coords - grid))
    golden.check("out.warped", nchw(moved))
    golden.check("out.error_norm", nchw(norm))
    golden.check("out.zero_flow.warped", nchw(sample_border(target, jnp.broadcast_to(grid * shrink, (len(depth), h, w, 2)))))

    @jax.jit
    def run(params):
        flows = nnx.merge(graph, params, nnx.State({}))(target, source, moved, coords - grid, norm)
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
    golden.leave_out("out.grad_cam_T_cam", "the network's input teaches nothing but the network")
    golden.leave_out("out.script.*", "the evaluation script builds another input than training; ours builds the same")


def encoder_of(golden):
    encoder = MatchingEncoder(18, 64, golden.meta["num_depth_bins"], fusion="both", draws=Draws())
    graph, *states = nnx.split(encoder, nnx.Param, nnx.BatchStat)
    trees = tuple({"student": {"encoder": nnx.to_pure_dict(state)}} for state in states)
    (name,) = golden.meta["weights"]
    trees = pretrained.from_torch({"encoder": golden.weights(name)}, trees)
    return graph, *(tree["student"]["encoder"] for tree in trees)


def sweep(golden, current, lookup, poses, residual):
    """Our volume of one lookup frame, with the published mask."""
    depth_range = jnp.array([golden["in.min_depth"], golden["in.max_depth"]], jnp.float32)
    bins = depth_bins(depth_range, CostVolumeConfig(bins=golden.meta["num_depth_bins"]))
    h, w = current.shape[1:3]
    half = jnp.array([(w - 1) / 2, (h - 1) / 2])
    present = jnp.sum(jnp.abs(poses), axis=(1, 2)) > 0
    T = jnp.where(present[:, None, None], poses, jnp.eye(4))
    K = scale_intrinsics(jnp.asarray(golden["in.K"])[:, :3, :3], 1.0, 1.0)
    return dynamic_volume.build(current, lookup, T, present, residual * half, K, bins, PUBLISHED)


@pytest.mark.golden("c13_ds_matching")
def test_volumes_and_their_fusion(golden):
    graph, params, stats = encoder_of(golden)

    def model():
        encoder = nnx.merge(graph, params, stats, copy=True)
        encoder.eval()
        return encoder

    features = jax.jit(lambda image: model().features(image))
    f0, f1 = features(nhwc(golden["in.current"]))
    _, lookup = features(nhwc(golden["in.lookups"][:, 0]))
    golden.check("out.current_feats", nchw(f1))
    golden.check("out.lookup_feats", nchw(lookup)[:, None])
    limits = jnp.array([golden["in.min_depth"], golden["in.max_depth"]], jnp.float32)
    for name, binning in (("depth_bins", "linear"), ("depth_bins_sid", "log")):
        golden.check(f"out.{name}", depth_bins(limits, CostVolumeConfig(bins=golden.meta["num_depth_bins"], binning=binning)))

    residual = jnp.asarray(nhwc(golden["in.resflow"]))
    cases = {"default": ("poses", residual), "zero_pose": ("poses_one_zero", residual), "zero_flow": ("poses", 0 * residual)}
    for case, (poses, flow) in cases.items():
        volume = jax.jit(functools.partial(sweep, golden))(f1, lookup, jnp.asarray(golden[f"in.{poses}"][:, 0]), flow)
        static, dynamic = (nchw(part) for part in jnp.split(volume.apart, 2, axis=-1))
        golden.check(f"out.{case}.cost_volume_static", static)
        golden.check(f"out.{case}.cost_volume_dynamic", dynamic)
        golden.check(f"out.{case}.confidence_mask", volume.confidence)
        # Where a bin is not seen the pixel is not used; what its cheapest bin would be is nobody's business.
        golden.check(f"out.{case}.lowest_cost", volume.lowest, where=np.asarray(volume.confidence) > 0)
        if f"out.{case}.missing_static" in golden:
            golden.check(f"out.{case}.missing_static", 1 - nchw(volume.observed.astype(jnp.float32)))
            golden.check(f"out.{case}.missing_dynamic", 1 - nchw(volume.observed.astype(jnp.float32)))
        check_fusion(golden, case, model, f0, f1, volume)


def check_fusion(golden, case, model, f0, f1, volume):
    """The published encoder masks the cheaper costs but not their convolution; ours masks both."""
    unmasked = volume.replace(costs=volume.costs * volume.confidence[..., None], confidence=jnp.ones_like(volume.confidence))
    reduced = jax.jit(lambda apart: jax.nn.relu(model().fusion(apart)))(volume.apart)
    for name, value in (("volume_reduced", reduced), ("volume_feature", reduced + unmasked.costs)):
        if f"out.{case}.{name}" in golden:
            golden.check(f"out.{case}.{name}", nchw(value))
    fused = jax.jit(lambda f0, f1, volume: model().fuse(f0, f1, volume))(f0, f1, unmasked)
    for i in (2, 3, 4):
        if f"out.{case}.feat{i}" in golden:
            golden.check(f"out.{case}.feat{i}", nchw(fused[i]))


@pytest.mark.golden("c13_ds_matching_train")
def test_matching_encoder_in_training(golden):
    graph, params, stats = encoder_of(golden)
    residual = jnp.asarray(nhwc(golden["in.resflow"]))
    poses = jnp.asarray(golden["in.poses"][:, 0])

    def objective(params):
        model = nnx.merge(graph, params, stats, copy=True)
        f0, f1 = model.features(nhwc(golden["in.current"]))
        _, lookup = model.features(nhwc(golden["in.lookups"][:, 0]))
        volume = jax.tree.map(jax.lax.stop_gradient, sweep(golden, f1, lookup, poses, residual))
        unmasked = volume.replace(costs=volume.costs * volume.confidence[..., None], confidence=jnp.ones_like(volume.confidence))
        fused = model.fuse(f0, f1, unmasked)
        total = sum(jnp.sum(fused[i] * nhwc(golden[f"in.grad_w{i}"])) for i in (2, 3, 4))
        return total, (volume, unmasked.costs + jax.nn.relu(model.fusion(volume.apart)), fused)

    grads, (volume, feature, fused) = jax.jit(jax.grad(objective, has_aux=True))(params)
    static, dynamic = (nchw(part) for part in jnp.split(volume.apart, 2, axis=-1))
    golden.check("out.cost_volume_static", static)
    golden.check("out.cost_volume_dynamic", dynamic)
    golden.check("out.confidence_mask", volume.confidence)
    golden.check("out.lowest_cost", volume.lowest, where=np.asarray(volume.confidence) > 0)
    golden.check("out.volume_feature", nchw(feature))
    for i in (2, 3, 4):
        golden.check(f"out.feat{i}", nchw(fused[i]))
    gradient = exported_encoder(grads)
    keys = golden.meta.get("grad_keys", sorted(gradient))
    golden.check("out.grad_norm", np.array([np.linalg.norm(gradient[key]) for key in keys], np.float32))
    for name in golden.names("out.grad.*"):
        golden.check(name, gradient[name.removeprefix("out.grad.")])


@pytest.mark.golden("c13_ds_matching_two_lookups")
def test_two_lookups(golden):
    golden.leave_out("out.*", "one lookup frame is built: the same residual flow for two frames is a defect (T7)")
