import jax
import jax.numpy as jnp
import numpy as np

from dd_jax.method.view_synthesis import full_size_flow, synthesize

H, W = 8, 12
K = jnp.array([[[10.0, 0, 5.5], [0, 10, 3.5], [0, 0, 1]]])


def sideways(pixels, depth=5.0):
    """A pose that shifts points at ``depth`` by this many pixels."""
    return jnp.eye(4)[None, None].at[0, 0, 0, 3].set(pixels * depth / 10)


def view(source, holes, T):
    return jax.jit(synthesize)(jnp.full((1, 1, H, W), 5.0), T, source, holes, K)


def test_identity_pose_returns_the_source():
    source = jnp.asarray(np.random.default_rng(0).uniform(size=(1, 1, H, W, 3)).astype(np.float32))
    np.testing.assert_allclose(view(source, None, jnp.eye(4)[None, None]).warped[0, 0], source[0], atol=1e-5)


def test_holes_do_not_darken_their_neighbours():
    """A sample with a quarter of its weight in a hole is the mean of the rest; with three quarters, it is a hole."""
    holes = jnp.zeros((1, 1, H, W), bool).at[..., 6:].set(True)
    source = jnp.where(holes[..., None], 0.0, 0.8 * jnp.ones((1, 1, H, W, 3)))
    for shift, filled in ((0.25, True), (0.75, False)):
        found = view(source, holes, sideways(shift))
        assert bool(found.holes[0, 0, 0, 4, 5]) != filled
        if filled:
            np.testing.assert_allclose(found.warped[0, 0, 0, :, 1:6], 0.8, rtol=1e-5)
    assert found.holes[0, 0, 0, :, 6:].all() and not found.holes[0, 0, 0, :, :5].any()


def test_gradient_at_the_border_of_a_hole():
    """Finite everywhere, equal to finite differences, and 0 where a single pixel outside of the hole decides."""
    holes = jnp.zeros((1, 1, H, W), bool).at[..., 6:].set(True)
    image = jnp.asarray(np.random.default_rng(0).uniform(size=(1, 1, H, W, 3)).astype(np.float32))
    source, weights = jnp.where(holes[..., None], 0.0, image), jnp.arange(1.0, W + 1)[:, None]

    def total(depth):
        found = synthesize(depth, sideways(0.2), source, holes, K)
        return jnp.sum(jnp.where(found.holes[..., None], 0.0, found.warped) * weights)

    depth = jnp.full((1, 1, H, W), 5.0)
    gradient = jax.jit(jax.grad(total))(depth)
    assert jnp.isfinite(gradient).all()
    np.testing.assert_allclose(gradient[..., 5], 0, atol=1e-5)
    change = 1e-2 * jnp.ones_like(depth)
    expected = (jax.jit(total)(depth + change) - jax.jit(total)(depth - change)) / 2
    np.testing.assert_allclose(jnp.sum(gradient * change), expected, rtol=2e-2)


def test_full_size_flow_is_in_pixels():
    flow = jnp.ones((2, 3, 4, 2))  # half an image in either direction
    np.testing.assert_allclose(full_size_flow(flow, (6, 8)), jnp.broadcast_to(jnp.array([3.5, 2.5]), (2, 6, 8, 2)))
