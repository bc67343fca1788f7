"""SSIM, photometric error and smoothness against the published code."""

import jax
import jax.numpy as jnp
import pytest
from harness import nchw, nhwc

from dd_jax.geometry.camera import disp_to_depth
from dd_jax.losses import ssim
from dd_jax.losses.photometric import photometric_error
from dd_jax.losses.smoothness import edge_weights, normalized, smoothness


@pytest.mark.golden("c01_photometric")
def test_photometric(golden):
    pred, target = jnp.asarray(nhwc(golden["in.pred"])), jnp.asarray(nhwc(golden["in.target"]))
    statistics = ssim.reference(target)
    golden.check("out.ssim", ssim.distance_of(ssim.moments(ssim.planes(pred), statistics), statistics))
    golden.check("out.photometric", photometric_error(pred, statistics, 0.85)[:, None])
    golden.check("out.l1_only", photometric_error(pred, statistics, 0.0)[:, None])

    weights = golden["in.grad_w"][:, 0]
    gradient = jax.grad(lambda p: jnp.sum(photometric_error(p, statistics, 0.85) * weights))
    golden.check("out.grad_photometric_pred", nchw(gradient(pred)))

    # The reference sets dark pixels of both images to 0 before comparing them; our loss has no such step, so the test does it.
    keep = (pred.sum(-1, keepdims=True) >= 0.1).astype("float32")
    blacked_out = ssim.reference(target * keep)
    golden.check("out.photometric_zero_img", photometric_error(pred * keep, blacked_out, 0.85)[:, None])
    gradient = jax.grad(lambda p: jnp.sum(photometric_error(p * keep, blacked_out, 0.85) * weights))
    golden.check("out.grad_photometric_zero_img_pred", nchw(gradient(pred)))
    golden.leave_out("out.target_after_zero_img", "our loss never writes to the target (the reference does by mistake)")


@pytest.mark.golden("c01_photometric")
def test_smoothness(golden):
    disp = jnp.asarray(golden["in.disp"][:, 0])
    edges = edge_weights((jnp.asarray(nhwc(golden["in.target"])),))
    golden.check("out.norm_disp", normalized(disp)[:, None])
    golden.check("out.smooth_norm", smoothness((disp,), edges, None)[0])
    golden.check("out.grad_smooth_norm_disp", jax.grad(lambda d: smoothness((d,), edges, None)[0])(disp)[:, None])
    golden.leave_out("out.smooth_raw", "smoothness of a disparity that is not normalised; we always normalise")

    depth = disp_to_depth(disp, float(golden["in.min_depth"]), float(golden["in.max_depth"]))
    golden.check("out.depth", depth[:, None])
    golden.check("out.scaled_disp", 1 / depth[:, None])
