"""Identities of poses, projection, sampling and splatting, and gradients where they could fail."""

import draws
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from draws import cameras, floats
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dd_jax.geometry import camera, sampling, se3, splat
from dd_jax.losses import ssim

pytestmark = pytest.mark.property

HEIGHT, WIDTH = 5, 7


poses = draws.poses()
depths = floats((1, HEIGHT, WIDTH), 0.5, 50)
images = floats((1, HEIGHT, WIDTH, 2), 0, 1)


@given(poses, poses)
def test_poses_are_a_group(T, S):
    identity = np.eye(4)
    np.testing.assert_allclose(se3.compose(se3.invert_pose(T), T), identity, atol=2e-5)
    np.testing.assert_allclose(se3.compose(T, jnp.eye(4)), T, atol=0)
    both = se3.compose(T, S)
    np.testing.assert_allclose(se3.invert_pose(both), se3.compose(se3.invert_pose(S), se3.invert_pose(T)), atol=1e-4)
    np.testing.assert_allclose(both[:3, :3] @ both[:3, :3].T, np.eye(3), atol=2e-5)


@given(floats(3, -3, 3), st.floats(0, 1))
def test_rotations_about_one_axis_add_up(v, share):
    parts = se3.rotation_from_axis_angle(jnp.asarray(share * v)), se3.rotation_from_axis_angle(jnp.asarray((1 - share) * v))
    np.testing.assert_allclose(parts[0] @ parts[1], se3.rotation_from_axis_angle(jnp.asarray(v)), atol=1e-5)


project = jax.jit(lambda depth, K, T: camera.project(camera.backproject(depth, K), K, T))


@given(depths, cameras)
def test_projection_inverts_backprojection(depth, K):
    u, v = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
    found = project(depth, K, jnp.eye(4)[None])[0]
    np.testing.assert_allclose(found, np.stack([u, v], axis=-1), atol=1e-4)


project_gradient = jax.jit(jax.grad(lambda depth, K, T: project(depth, K, T).sum(), argnums=(0, 1, 2)))


@given(floats((1, HEIGHT, WIDTH), 0, 1e4), cameras, poses)
def test_projection_is_finite_also_behind_the_camera(depth, K, T):
    found = project(depth, K, T[None]), *project_gradient(depth, K, T[None])
    assert all(np.isfinite(array).all() for array in found)


sample = jax.jit(sampling.sample_border)
sample_gradient = jax.jit(jax.grad(lambda image, coords: sampling.sample_border(image, coords).sum(), argnums=(0, 1)))


@given(floats((1, 3, 4, 2), -3, 12), floats(3, -1, 1))
def test_affine_images_are_reproduced_and_weights_add_up_to_one(coords, slopes):
    u, v = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
    affine, ones = slopes[0] + slopes[1] * u + slopes[2] * v, np.ones((HEIGHT, WIDTH))
    found = sample(jnp.asarray(np.stack([affine, ones], axis=-1)[None], jnp.float32), coords)
    inside = np.clip(coords, 0, [WIDTH - 1, HEIGHT - 1])  # coordinates outside are clamped
    np.testing.assert_allclose(found[..., 0], slopes[0] + inside @ slopes[1:], atol=2e-5)
    np.testing.assert_allclose(found[..., 1], 1, atol=1e-6)


@given(images, floats((1, 3, 4, 2), -1e30, 1e30))
def test_samples_far_outside_are_border_values_without_gradient(image, coords):
    coords = np.where(np.abs(coords) < 100, 1e9, coords)
    found, (to_image, to_coords) = sample(image, coords), sample_gradient(image, coords)
    corners = image[0][[0, 0, -1, -1], [0, -1, 0, -1]]
    assert (np.abs(np.asarray(found)[..., None, :] - corners).sum(-1).min(-1) < 1e-5).all()
    assert (np.asarray(to_coords) == 0).all()
    np.testing.assert_allclose(np.asarray(to_image).sum(), found.size, rtol=1e-5)


warp = jax.jit(lambda image, depth, K, T: splat.forward_warp(image, depth, T, K))


@given(images, depths, cameras)
def test_warp_without_motion_is_the_identity(image, depth, K):
    found, nearest, valid = warp(image, depth, K, jnp.eye(4)[None])
    assert np.asarray(valid).all()
    np.testing.assert_allclose(found, image, atol=1e-5)
    np.testing.assert_allclose(nearest, depth, rtol=1e-6)


minima = jax.jit(lambda cell, z: splat._minima(6, cell, z))


@given(arrays(np.int32, (1, 20), elements=st.integers(0, 6)), floats((1, 20), 0.1, 9), st.randoms(use_true_random=False))
def test_nearest_point_wins_in_any_order(cell, z, rng):
    found = np.asarray(minima(cell, z))[0]
    expected = [min((value for place, value in zip(cell[0], z[0]) if place == number), default=np.inf) for number in range(6)]
    np.testing.assert_array_equal(found, np.float32(expected))
    order = list(range(20))
    rng.shuffle(order)
    np.testing.assert_array_equal(minima(cell[:, order], z[:, order])[0], found)


dissimilarity = jax.jit(lambda x, y: ssim.distance(x, ssim.windowed(y, 1), 1))
ssim_gradient = jax.jit(jax.grad(lambda x, y: dissimilarity(x, y).sum(), argnums=(0, 1)))


@given(images, images, st.floats(0, 1))
def test_ssim_is_symmetric_in_range_and_has_gradients_also_for_constants(x, y, grey):
    constant = np.full_like(x, grey)
    for a, b in ((x, y), (x, x), (constant, constant), (constant, y)):
        found = np.asarray(dissimilarity(a, b))
        assert ((found >= 0) & (found <= 1)).all()
        np.testing.assert_allclose(dissimilarity(b, a), found, atol=2e-3)
        assert all(np.isfinite(array).all() for array in ssim_gradient(a, b))
    np.testing.assert_allclose(dissimilarity(x, x), 0, atol=1e-3)


def test_gradient_of_a_pose_at_rest_is_the_difference_quotient():
    depth = np.random.default_rng(0).uniform(2, 9, (1, HEIGHT, WIDTH)).astype(np.float32)
    K = jnp.array([[[8.0, 0, 3], [0, 8, 2], [0, 0, 1]]])

    def total(parameters):
        return jnp.sin(project(depth, K, se3.pose_from_parameters(parameters[:3], parameters[3:])[None])).sum()

    slope = jax.grad(total)(jnp.zeros(6))
    steps = np.eye(6, dtype=np.float32) * 2e-3
    numeric = [(total(jnp.asarray(step)) - total(jnp.asarray(-step))) / 4e-3 for step in steps]
    np.testing.assert_allclose(slope, numeric, rtol=0.02, atol=0.3)
