import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax.losses.depth_ranking import depth_ranking, draw_pairs, ranking, ranking_mean

H, W = 12, 20


def pair(depth_a, depth_b, prior_a, prior_b):
    depth, prior = jnp.array([[[depth_a, depth_b]]]), jnp.array([[[prior_a, prior_b]]])
    return ranking(depth, prior, jnp.array([[0]]), jnp.array([[1]]))


@pytest.mark.parametrize(
    ("prior", "order"), [((2.0, 1.0), 1), ((1.0, 2.0), -1), ((1.1, 1.0), 0), ((1.0, 1.1), 0), ((1.15, 1.0), 1), ((1.0, 1.15), 0)]
)
def test_only_pairs_ordered_by_the_prior_count(prior, order):
    total, count = pair(3.0, 1.0, *prior)
    assert count == abs(order)
    assert total == pytest.approx(np.log1p(np.exp(-order * 2.0)) if order else 0.0, rel=1e-6)


def test_huge_differences_stay_finite():
    def cost(depth):
        return ranking(depth, jnp.array([[[1.0, 2.0]]]), jnp.array([[0]]), jnp.array([[1]]))[0]

    value, gradient = jax.value_and_grad(cost)(jnp.array([[[1000.0, 0.0]]]))
    assert value == 1000 and np.array_equal(gradient, [[[1, -1]]])


def test_unreliable_pixels_are_paired_with_reliable_ones():
    weight = jnp.asarray(np.random.default_rng(0).uniform(size=(3, H, W)).astype(np.float32))
    a, b = draw_pairs(weight, jnp.arange(3, dtype=jnp.uint32))
    few = int(0.2 * H * W)
    assert a.shape == b.shape == (3, few + int(0.1 * H * W))
    flat = weight.reshape(3, -1)
    for i in range(3):
        limit = np.sort(flat[i])[few - 1]
        assert (flat[i, a[i, :few]] <= limit).all() and len(set(a[i, :few].tolist())) == few
        assert (flat[i, b[i, :few]] > limit).all()
    assert not np.array_equal(a[0, few:], a[1, few:])


def test_equal_prior_depths_give_zero_loss():
    ones = jnp.ones((2, H, W))
    value, gradient = jax.value_and_grad(lambda d: depth_ranking(d, ones, ones, jnp.arange(2, dtype=jnp.uint32), None))(3 * ones)
    assert value == 0 and not gradient.any()
    assert ranking_mean(jnp.float32(0), jnp.float32(0), None) == 0


def test_four_devices_equal_one():
    rng = np.random.default_rng(1)
    depth, prior, weight = (jnp.asarray(rng.uniform(1, 3, (4, H, W)).astype(np.float32)) for _ in range(3))
    seed = jnp.arange(4, dtype=jnp.uint32)
    alone = depth_ranking(depth, prior, weight, seed, None)
    mapped = jax.pmap(lambda *args: depth_ranking(*args, "d"), axis_name="d", devices=jax.devices()[:4])
    four = mapped(*(x[:, None] for x in (depth, prior, weight, seed)))
    np.testing.assert_allclose(four, alone, rtol=1e-6)
