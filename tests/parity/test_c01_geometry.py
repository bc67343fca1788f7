"""Poses, back-projection, projection and sampling, with their gradients, against DynamicDepth's layers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from harness import nchw, nhwc

from dd_jax.geometry import camera, sampling, se3, warp

CASES = {
    "fwd": se3.pose_from_parameters,
    "inv": lambda axis_angle, translation: se3.invert_pose(se3.pose_from_parameters(axis_angle, translation)),
}


@pytest.mark.golden("c01_pose_matrix")
def test_pose_matrix(golden):
    axis_angle, translation = (jnp.asarray(golden[f"in.{name}"][:, 0]) for name in ("axisangle", "translation"))
    # The reference divides by |v| + 1e-7: its gradient is wrong for tiny rotations (and zero at zero).
    regular = (np.linalg.norm(golden["in.axisangle"], axis=-1, keepdims=True) >= 1e-3) & np.ones_like(
        golden["in.axisangle"], bool
    )
    for case, matrix in CASES.items():

        def scalar(axis_angle, translation, matrix=matrix):
            return jnp.sum(matrix(axis_angle, translation) * golden["in.grad_w"])

        gradients = jax.grad(scalar, (0, 1))(axis_angle, translation)
        golden.check(f"out.{case}.matrix", matrix(axis_angle, translation))
        golden.check(f"out.{case}.grad_axisangle", gradients[0][:, None], where=regular)
        golden.check(f"out.{case}.grad_translation", gradients[1][:, None])


@pytest.mark.golden("c01_projection")
def test_projection(golden):
    depth, K = jnp.asarray(golden["in.depth"][:, 0]), jnp.asarray(golden["in.K"][:, :3, :3])
    image, weight = jnp.asarray(nhwc(golden["in.image"])), nhwc(golden["in.grad_w"])
    parameters = [jnp.asarray(golden[f"in.{name}"][:, 0]) for name in ("axisangle", "translation")]
    batch, height, width = depth.shape

    points = camera.backproject(depth, K)
    flat = nchw(points).reshape(batch, 3, -1)
    golden.check("out.cam_points", np.concatenate([flat, np.ones_like(flat[:, :1])], axis=1))

    for case, matrix in CASES.items():
        T = matrix(*parameters)
        coords = camera.project(points, K, T)
        golden.check(f"out.{case}.T", T)
        golden.check(f"out.{case}.pix_coords", 2 * (np.asarray(coords) / [width - 1, height - 1] - 0.5))
        golden.check(f"out.{case}.sampled_border", nchw(sampling.sample_border(image, coords)))
        golden.check(f"out.{case}.sampled_zeros", nchw(sampling.sample_zeros(image, coords)))

        @jax.jit
        def gradients(depth, axis_angle, translation, image, matrix=matrix):
            def scalar(depth, axis_angle, translation, image):
                coords = warp.reproject(depth, K, matrix(axis_angle, translation))
                return jnp.sum(sampling.sample_border(image, coords) * weight)

            return jax.grad(scalar, (0, 1, 2, 3))(depth, axis_angle, translation, image)

        to_depth, to_axis_angle, to_translation, to_image = gradients(depth, *parameters, image)
        golden.check(f"out.{case}.grad_depth", to_depth[:, None])
        golden.check(f"out.{case}.grad_axisangle", to_axis_angle[:, None])
        golden.check(f"out.{case}.grad_translation", to_translation[:, None])
        if f"out.{case}.grad_image" in golden:
            golden.check(f"out.{case}.grad_image", nchw(to_image))
