import jax
import jax.numpy as jnp
import numpy as np

from dd_jax.geometry.camera import pixel_grid
from dd_jax.geometry.normals import depth_to_normals

K = jnp.array([[[40.0, 0, 23.5], [0, 42.0, 15.5], [0, 0, 1]]])
normals = jax.jit(depth_to_normals)


def plane(a, b, distance=5.0):
    """Depth of the plane z = distance + a x + b y."""
    u, v = pixel_grid(32, 48)
    return (distance / (1 - a * (u - K[0, 0, 2]) / K[0, 0, 0] - b * (v - K[0, 1, 2]) / K[0, 1, 1]))[None]


def test_wall_head_on_points_away_from_the_camera():
    np.testing.assert_allclose(normals(plane(0, 0), K)[0], np.broadcast_to([0, 0, 1], (32, 48, 3)), atol=1e-6)


def test_plane_normal_is_constant_and_scale_invariant():
    depth = plane(0.4, -0.3)
    expected = np.array([-0.4, 0.3, 1]) / np.linalg.norm([-0.4, 0.3, 1])
    inner = normals(depth, K)[0, 1:-1, 1:-1]
    np.testing.assert_allclose(inner, np.broadcast_to(expected, inner.shape), atol=2e-4)
    np.testing.assert_allclose(normals(2 * depth, K), normals(depth, K), atol=1e-6)


def test_degenerate_surface_has_finite_gradients():
    nothing = jnp.zeros((1, 32, 48))
    assert not normals(nothing, K).any()
    gradient = jax.grad(lambda depth: jnp.sum(normals(depth, K) ** 2))(nothing)
    assert jnp.isfinite(gradient).all()
