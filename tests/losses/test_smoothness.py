import jax
import jax.numpy as jnp
import numpy as np

from dd_jax.losses import smoothness as module
from dd_jax.losses.smoothness import normalized

edge_weights, smoothness = jax.jit(module.edge_weights), jax.jit(module.smoothness, static_argnums=2)


def random_pyramid(seed, b=2, h=16, w=24):
    image = np.random.default_rng(seed).random((b, h, w, 3), np.float32)
    return jax.jit(module.image_pyramid)(jnp.asarray(image))


def random_disps(seed, b=2, h=16, w=24):
    rng = np.random.default_rng(seed)
    return tuple(jnp.asarray(rng.uniform(0.1, 0.9, (b, h >> s, w >> s)).astype(np.float32)) for s in range(4))


def test_pyramid_levels_are_block_means():
    pyramid = random_pyramid(0)
    assert [level.shape for level in pyramid] == [(2, 16 >> s, 24 >> s, 3) for s in range(4)]
    for s in range(4):
        blocks = pyramid[0].reshape(2, 16 >> s, 2**s, 24 >> s, 2**s, 3).mean((2, 4))
        np.testing.assert_allclose(pyramid[s], blocks, rtol=1e-6)


def test_constant_disparity_has_zero_smoothness():
    flat = tuple(jnp.full((2, 16 >> s, 24 >> s), 0.3) for s in range(4))
    np.testing.assert_allclose(smoothness(flat, edge_weights(random_pyramid(1)), None), 0, atol=1e-6)
    gradient = jax.grad(lambda d: smoothness(d, edge_weights(random_pyramid(1)), None).sum())(flat)
    assert all(jnp.isfinite(g).all() for g in gradient)


def test_smoothness_is_scale_invariant():
    disps, edges = random_disps(2), edge_weights(random_pyramid(3))
    smaller = tuple(0.25 * d for d in disps)
    np.testing.assert_allclose(smoothness(disps, edges, None), smoothness(smaller, edges, None), rtol=1e-5)
    np.testing.assert_allclose(normalized(disps[0]).mean((1, 2)), 1, rtol=1e-5)


def test_literal_value_on_a_step():
    # One vertical edge of the disparity; the image has the same edge on the right sample only.
    disp = jnp.tile(jnp.array([1.0, 1.0, 3.0, 3.0]), (2, 4, 1))
    picture = jnp.zeros((2, 4, 4, 3)).at[1, :, 2:].set(jnp.array([0.3, 0.6, 0.9]))
    value = smoothness((disp,), edge_weights((picture,)), None)
    # Normalised step 1, on one of three column gaps; weight exp(-0.6) where the image has its edge.
    np.testing.assert_allclose(value, [(1 + np.exp(-0.6)) / 2 / 3], rtol=1e-6)


def test_each_coarser_scale_has_half_the_weight():
    disp, picture = random_disps(4)[0], random_pyramid(5)[0]
    terms = smoothness((disp, disp, disp), edge_weights((picture,) * 3), None)
    np.testing.assert_allclose(terms, terms[0] / jnp.array([1, 2, 4]), rtol=1e-6)


def test_flow_smoothness_counts_every_frame_and_halves_per_scale():
    flow = jnp.zeros((1, 2, 4, 6, 2)).at[0, 1, :, 3:, 0].set(1.0)  # one step, in one of two frames
    along_x = (4 * 1) / (2 * 4 * 5 * 2)
    np.testing.assert_allclose(module.flow_smoothness((flow, flow), None), [along_x, along_x / 2], rtol=1e-6)
    np.testing.assert_allclose(module.flow_smoothness((2 * flow,), None), [2 * along_x], rtol=1e-6)
