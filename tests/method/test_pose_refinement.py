import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax.geometry import se3, warp
from dd_jax.geometry.sampling import sample_border
from dd_jax.method.pose_refinement import refine_poses

H, W = 96, 192
K = jnp.array([[[110.0, 0, 95.5], [0, 110.0, 47.5], [0, 0, 1]]])


@pytest.fixture(scope="module")
def scene():
    """(depth, target, sources by name, true T_source_from_target): a textured road and walls seen from two places."""
    rng = np.random.default_rng(0)
    v, u = np.mgrid[:H, :W]
    road, walls = 1.5 * 110 / np.maximum(v - 47.5, 1e-3), 4.0 * 110 / np.abs(u - 95.5)
    depth = jnp.asarray(np.minimum(np.minimum(road, walls), 40.0), jnp.float32)[None]
    T = se3.pose_from_parameters(jnp.array([[0.004, -0.02, 0.003]]), jnp.array([[0.02, 0.0, 0.8]]))
    noise = rng.random((1, H // 4, W // 4, 3), np.float32) + 0.0
    source = jax.image.resize(jnp.asarray(noise), (1, H, W, 3), "bicubic")
    return depth, sample_border(source, warp.reproject(depth, K, T)), source, T


def errors(found, true):
    """Rotation in degrees, translation in metres."""
    R = found[0, :3, :3] @ true[0, :3, :3].T
    return np.degrees(np.arccos(np.clip((np.trace(R) - 1) / 2, -1, 1))), np.linalg.norm(found[0, :3, 3] - true[0, :3, 3])


def refined(start, depth, target, source, iterations=8):
    return np.asarray(jax.jit(refine_poses, static_argnums=5)(start, depth, target, source, K, iterations), np.float64)


def disturbed(T, speed=0.6, degrees=0.5):
    """Another speed along the true direction, and another rotation."""
    rotation = se3.rotation_from_axis_angle(jnp.radians(jnp.array([[0.3, -degrees, 0.2]])))
    start = T.at[:, :3, :3].set(rotation @ T[:, :3, :3])
    return start.at[:, :3, 3].set(T[:, :3, 3] * speed)


@pytest.mark.parametrize("speed", [0.3, 0.7, 1.5])
def test_recovers_speed_and_rotation(scene, speed):
    depth, target, source, T = scene
    start = disturbed(T, speed)
    before, after = errors(start, T), errors(refined(start, depth, target, source), T)
    assert before[0] > 0.5 and before[1] > 0.2
    assert after[0] < 0.1 and after[1] < 0.08


def test_true_pose_stays(scene):
    depth, target, source, T = scene
    rotation, translation = errors(refined(T, depth, target, source), T)
    assert rotation < 0.03 and translation < 0.02


def test_exposure_and_a_moving_object_hardly_matter(scene):
    depth, target, source, T = scene
    changed = 0.7 * source + 0.1
    changed = changed.at[:, 50:80, 20:60].set(jnp.roll(changed, 7, axis=2)[:, 50:80, 20:60])  # an eighth of what moves most
    rotation, translation = errors(refined(disturbed(T), depth, target, changed), T)
    assert rotation < 0.1 and translation < 0.08


def test_standing_camera_stands(scene):
    depth, target, _, T = scene
    found = refined(disturbed(T, 0.3, 0.2).at[:, :3, :3].set(jnp.eye(3)), depth, target, target)
    rotation, translation = errors(found, np.eye(4)[None])
    assert rotation < 0.02 and translation < 0.02


def test_pose_is_kept_where_nothing_can_be_aligned(scene):
    depth, target, _, T = scene
    unrelated = jax.random.uniform(jax.random.key(3), target.shape)
    for source in (jnp.zeros_like(target), unrelated):
        found = refined(T, depth, target, source)
        assert np.isfinite(found).all()
        np.testing.assert_allclose(found[0, :3, :3] @ found[0, :3, :3].T, np.eye(3), atol=1e-5)
    np.testing.assert_array_equal(refined(T, depth, target, jnp.zeros_like(target)), np.asarray(T, np.float64))


def test_no_gradient(scene):
    depth, target, source, T = scene
    gradient = jax.jit(jax.grad(lambda T, depth: refine_poses(T, depth, target, source, K, 2).sum(), (0, 1)))(disturbed(T), depth)
    assert not any(g.any() for g in gradient)
