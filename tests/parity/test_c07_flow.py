"""The flow network, and reprojection of points moved by its 3-D flow."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from harness import nchw, nhwc
from test_c02_networks import exported, imported

from dd_jax.geometry.camera import backproject
from dd_jax.geometry.sampling import sample_border
from dd_jax.geometry.warp import reproject
from dd_jax.networks.flow_net import FlowNet
from dd_jax.networks.layers import Draws


@pytest.mark.golden("c07_flownet")
def test_flow(golden):
    graph, params, _ = imported(FlowNet(64, draws=Draws()), "flow", {"flow": golden.weights("flow")})
    images = {case: [jnp.asarray(nhwc(golden[f"in.{case}image_{x}"])) for x in "ab"] for case in ("", "odd.")}
    weight = jnp.asarray(nhwc(golden["in.grad_w"]))

    @jax.jit
    def run(params, a, b):
        return nnx.merge(graph, params, nnx.State({}))(a, b)

    @jax.jit
    @jax.grad
    def gradient(params, a, b):
        return jnp.sum(run(params, a, b)[0] * weight)

    flows = {case: run(params, *pair) for case, pair in images.items()}
    for case, pyramid in flows.items():
        for level, flow in enumerate(pyramid, start=1):
            golden.check(f"out.{case}flow{level}", nchw(flow))
    grads = exported("flow", gradient(params, *images[""]))
    golden.check("out.grad_norm", np.array([np.linalg.norm(grads[key]) for key in sorted(grads)], np.float32))
    golden.check("out.grad.flow1.weight", grads["flow1.weight"])

    depth, K, T = (jnp.asarray(golden[f"in.{name}"]) for name in ("depth", "K", "cam_T_cam"))
    depth, K, offset = depth[:, 0], K[:, :3, :3], 0.1 * flows[""][0]
    points = np.asarray(backproject(depth, K) + offset).reshape(len(depth), -1, 3)
    ones = np.ones_like(points[..., :1])
    golden.check("out.corrected.cam_points", np.concatenate([points, ones], axis=-1).transpose(0, 2, 1))
    coords = reproject(depth, K, T, offset)
    size = np.array([depth.shape[2] - 1, depth.shape[1] - 1], np.float32)
    golden.check("out.corrected.pix_coords", (np.asarray(coords) / size - 0.5) * 2)
    golden.check("out.corrected.sampled", nchw(sample_border(images[""][1], coords)))
