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


def test_gradient_is_finite_inside_holes():
    holes = jnp.ones((1, 1, H, W), bool)

    def total(depth):
        return synthesize(depth, sideways(0.5), jnp.zeros((1, 1, H, W, 3)), holes, K).warped.sum()

    assert jnp.isfinite(jax.grad(total)(jnp.full((1, 1, H, W), 5.0))).all()


def test_full_size_flow_is_in_pixels():
    flow = jnp.ones((2, 3, 4, 2))  # half an image in either direction
    np.testing.assert_allclose(full_size_flow(flow, (6, 8)), jnp.broadcast_to(jnp.array([3.5, 2.5]), (2, 6, 8, 2)))
