import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg

from dd_jax.geometry import se3

ANGLES = np.array([0.0, 1e-8, 1e-5, 1e-3, 0.05, 0.099, 0.101, 0.7, 3.0, np.pi, 5.0])
VECTORS = ANGLES[:, None] * [0.48, -0.6, 0.64]


def exponential(v):
    x, y, z = v
    return scipy.linalg.expm(np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]))


def test_rotation_is_the_matrix_exponential():
    rotation = jax.jit(se3.rotation_from_axis_angle)(jnp.asarray(VECTORS, jnp.float32))
    np.testing.assert_allclose(rotation, [exponential(v) for v in VECTORS], atol=1e-6)


def test_gradient_of_rotation():
    weight = np.random.default_rng(1).standard_normal((3, 3))
    gradient = jax.jit(jax.grad(lambda v: jnp.sum(se3.rotation_from_axis_angle(v) * weight)))(jnp.asarray(VECTORS, jnp.float32))
    steps = np.eye(3) * 1e-5
    numeric = [[np.sum((exponential(v + e) - exponential(v - e)) * weight) / 2e-5 for e in steps] for v in VECTORS]
    np.testing.assert_allclose(gradient, numeric, atol=2e-5)


def test_zero_parameters_are_the_identity():
    np.testing.assert_array_equal(se3.pose_from_parameters(jnp.zeros((2, 3)), jnp.zeros((2, 3))), np.tile(np.eye(4), (2, 1, 1)))


def test_invert_pose_and_compose():
    rng = np.random.default_rng(2)
    T = se3.pose_from_parameters(*(jnp.asarray(rng.standard_normal((5, 3)), jnp.float32) for _ in range(2)))
    np.testing.assert_allclose(se3.compose(se3.invert_pose(T), T), np.tile(np.eye(4), (5, 1, 1)), atol=1e-6)
    np.testing.assert_allclose(se3.invert_pose(T), np.linalg.inv(np.asarray(T)), atol=1e-5)
    points = rng.standard_normal((5, 3))
    moved = np.einsum("bij,bj->bi", np.asarray(T)[:, :3, :3], points) + np.asarray(T)[:, :3, 3]
    again = np.asarray(se3.compose(T, T))
    expected = np.einsum("bij,bj->bi", np.asarray(T)[:, :3, :3], moved) + np.asarray(T)[:, :3, 3]
    np.testing.assert_allclose(np.einsum("bij,bj->bi", again[:, :3, :3], points) + again[:, :3, 3], expected, atol=1e-5)


def test_euler_angles_rotate_about_z_then_y_then_x():
    angles = np.random.default_rng(0).uniform(-3, 3, (5, 3)).astype(np.float32)
    found = se3.rotation_from_euler(jnp.asarray(angles))
    for one, (a, b, c) in zip(found, angles, strict=True):
        about = [
            se3.rotation_from_axis_angle(jnp.asarray(angle * axis)) for angle, axis in zip((a, b, c), np.eye(3, dtype=np.float32))
        ]
        np.testing.assert_allclose(one, about[0] @ about[1] @ about[2], atol=1e-5)
