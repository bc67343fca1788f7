import jax
import jax.numpy as jnp
import numpy as np
import pytest
from skimage.data import stereo_motorcycle

from dd_jax.geometry import camera, sampling, se3, warp

K = jnp.array([[[20.0, 0.0, 15.5], [0.0, 22.0, 11.0], [0.0, 0.0, 1.0]], [[30.0, 0.3, 17.0], [0.0, 28.0, 10.0], [0.0, 0.0, 1.0]]])


@pytest.fixture
def world():
    rng = np.random.default_rng(0)
    depth = jnp.asarray(rng.uniform(2, 20, (4, 2, 12, 16)), jnp.float32)
    axis_angle, translation = (jnp.asarray(rng.standard_normal((3, 2, 3)) * s, jnp.float32) for s in (0.05, 0.3))
    return depth, se3.pose_from_parameters(axis_angle, translation)


def one_by_one(depth, T):
    """Every depth with every source, through points in space."""
    return jax.vmap(lambda d: jax.vmap(lambda t: camera.project(camera.backproject(d, K), K, t))(T))(depth)


def test_reproject_is_project_of_backproject(world):
    np.testing.assert_allclose(jax.jit(warp.reproject)(world[0], K, world[1]), jax.jit(one_by_one)(*world), atol=1e-3)
    assert warp.reproject(world[0][0], K, world[1][0]).shape == (2, 12, 16, 2)


def test_offsets_move_points_before_reprojection(world):
    depth, T = world
    offset = jnp.asarray(np.random.default_rng(2).standard_normal((3, 2, 12, 16, 3)) * 0.3, jnp.float32)
    points = camera.backproject(depth[0], K) + offset
    expected = jax.vmap(lambda p, t: camera.project(p, K, t))(points, T)
    np.testing.assert_allclose(warp.reproject(depth[:1], K, T, offset)[0], expected, atol=1e-3)
    still = warp.reproject(depth, K, T, jnp.zeros_like(offset))
    np.testing.assert_allclose(still, warp.reproject(depth, K, T), atol=1e-3)


def test_gradient_of_reproject(world):
    weight = np.random.default_rng(1).standard_normal((4, 3, 2, 12, 16, 2)).astype(np.float32)

    def total(function):
        return jax.jit(jax.grad(lambda depth, T, K: jnp.sum(function(depth, T, K) * weight), (0, 1)))(*world, K)

    ours, expected = total(lambda depth, T, K: warp.reproject(depth, K, T)), total(lambda depth, T, K: one_by_one(depth, T))
    for a, b in zip(ours, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3 * float(jnp.abs(b).max()))


def test_identity_pose_reproduces_the_image(world):
    image = jnp.asarray(np.random.default_rng(2).random((2, 12, 16, 3)), jnp.float32)
    warped = sampling.sample_border(image, warp.reproject(world[0][0], K, jnp.tile(jnp.eye(4), (2, 1, 1))))
    np.testing.assert_allclose(warped, image, atol=1e-5)


def test_depth_at_the_camera_plane_is_finite():
    depth = jnp.array([[[1.0, 2.0, 0.0, 1e-20]]])
    backwards = se3.pose_from_parameters(jnp.zeros((1, 3)), jnp.array([[0.3, 0.0, -1.0]]))

    def total(depth, T):
        coords = warp.reproject(depth, K[:1], T)
        return jnp.sum(coords), coords

    (_, coords), gradients = jax.jit(jax.value_and_grad(total, (0, 1), has_aux=True))(depth, backwards)
    assert np.all(np.isfinite(coords))
    assert all(np.all(np.isfinite(g)) for g in gradients)


def test_real_stereo_pair():
    left, right, disparity = (np.asarray(x, np.float32)[::2, ::2] for x in stereo_motorcycle())
    left, right, disparity = left / 255, right / 255, disparity / 2
    known = np.isfinite(disparity) & (disparity > 1)
    height, width = disparity.shape
    focal, baseline = 500.0, 0.2
    depth = jnp.asarray(np.where(known, focal * baseline / np.where(known, disparity, 1), 10))[None]
    camera_matrix = jnp.array([[[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]]])
    T_right_from_left = se3.pose_from_parameters(jnp.zeros((1, 3)), jnp.array([[-baseline, 0.0, 0.0]]))
    coords = warp.reproject(depth, camera_matrix, T_right_from_left)
    warped = sampling.sample_border(jnp.asarray(right)[None], coords)[0]
    known &= np.asarray(coords)[0, ..., 0] >= 0
    before, after = (np.abs(np.asarray(x) - left).mean(-1)[known].mean() for x in (right, warped))
    assert after < 0.35 * before, (before, after)
