import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax.geometry import camera, se3

K = jnp.array([[[20.0, 0.0, 15.5], [0.0, 22.0, 11.0], [0.0, 0.0, 1.0]], [[30.0, 0.3, 17.0], [0.0, 28.0, 10.0], [0.0, 0.0, 1.0]]])


def test_project_inverts_backproject():
    depth = jnp.asarray(np.random.default_rng(0).uniform(0.5, 50, (2, 24, 32)), jnp.float32)
    coords = camera.project(camera.backproject(depth, K), K, jnp.tile(jnp.eye(4), (2, 1, 1)))
    u, v = np.meshgrid(np.arange(32), np.arange(24))
    np.testing.assert_allclose(coords, np.tile(np.stack([u, v], -1), (2, 1, 1, 1)), atol=1e-4)


def test_backproject_keeps_depth_and_leading_axes():
    depth = jnp.ones((3, 2, 5, 6)) * 4
    points = camera.backproject(depth, jnp.tile(K, (3, 1, 1, 1)))
    assert points.shape == (3, 2, 5, 6, 3)
    np.testing.assert_array_equal(points[..., 2], depth)


def test_invert_intrinsics():
    np.testing.assert_allclose(camera.invert_intrinsics(K), np.linalg.inv(np.asarray(K)), atol=1e-6)


def test_scaled_intrinsics_scale_pixels():
    points = camera.backproject(jnp.full((2, 8, 8), 3.0), K)
    T = se3.pose_from_parameters(jnp.full((2, 3), 0.01), jnp.full((2, 3), 0.1))
    full, quarter = (camera.project(points, k, T) for k in (K, camera.scale_intrinsics(K, 0.25, 0.5)))
    np.testing.assert_allclose(quarter, np.asarray(full) * [0.25, 0.5], rtol=1e-5, atol=1e-5)


def test_flipped_intrinsics_project_the_mirrored_scene():
    width = 32
    points = camera.backproject(jnp.full((2, 24, width), 3.0), K)
    identity = jnp.tile(jnp.eye(4), (2, 1, 1))
    mirrored = camera.project(points * jnp.array([-1.0, 1.0, 1.0]), camera.flip_intrinsics(K, width), identity)
    original = np.asarray(camera.project(points, K, identity))
    np.testing.assert_allclose(mirrored[..., 0], width - 1 - original[..., 0], atol=1e-4)
    np.testing.assert_allclose(mirrored[..., 1], original[..., 1], atol=1e-4)


def test_disp_to_depth_covers_the_range():
    depth = camera.disp_to_depth(jnp.array([0.0, 0.5, 1.0]), 0.1, 100.0)
    np.testing.assert_allclose(depth, [100.0, 1 / 5.005, 0.1], rtol=1e-5)


@pytest.mark.parametrize("z", [-4.0, -1e-7, 0.0, 1e-30])
def test_points_at_or_behind_the_camera_stay_finite(z):
    def coords(z):
        points = jnp.stack([jnp.full((1, 2, 2), 3.0), jnp.full((1, 2, 2), -1.0), jnp.full((1, 2, 2), z)], axis=-1)
        return camera.project(points, K[:1], jnp.eye(4)[None])

    assert jnp.all(jnp.isfinite(coords(z)))
    assert jnp.all(jnp.abs(coords(z)) <= camera.MAX_COORDINATE)
    assert jnp.isfinite(jax.grad(lambda z: coords(z).sum())(z))


def test_intrinsics_of_reduced_images():
    K = jnp.array([[[50.0, 0.5, 31.5], [0, 60.0, 15.5], [0, 0, 1]], [[40.0, 0, 20.0], [0, 45.0, 10.0], [0, 0, 1]]])
    for halvings in (0, 1, 3):
        zoomed = jax.vmap(camera.zoom_intrinsics, (0, None, None))(K, jnp.full(2, 0.5**halvings), jnp.zeros(2))
        np.testing.assert_allclose(camera.reduce_intrinsics(K, halvings), zoomed, rtol=1e-6)
