import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax.config import LossConfig
from dd_jax.losses import normals as module
from dd_jax.losses.normals import Surfaces, draw, edge_pixels, normal_l1, sample_across_edges

H, W = 24, 40
LOSS = LossConfig(normal_anchors=256)
ranking = jax.jit(functools.partial(module.normal_ranking, loss=LOSS, axis=None))


def uniform(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).uniform(size=shape).astype(np.float32))


def unit(seed, *shape):
    vectors = uniform(seed, *shape, 3) - 0.5
    return vectors / jnp.linalg.norm(vectors, axis=-1, keepdims=True)


@pytest.fixture(scope="module")
def scene():
    """(surfaces, prior depth, image, seed) of four random samples."""
    surfaces = Surfaces(student=unit(0, 4, 4, H, W), prior=unit(1, 4, 4, H, W))
    return surfaces, 1 + uniform(2, 4, H, W), uniform(3, 4, H, W, 3), jnp.arange(4, dtype=jnp.uint32)


def test_equal_surfaces_have_zero_loss(scene):
    surfaces, *rest = scene
    same = surfaces.replace(student=surfaces.prior)
    assert ranking(same, *rest) == 0 and not normal_l1(same, None).any()
    assert ranking(surfaces, *rest) > 0.01


def test_l1_is_the_mean_over_components():
    surfaces = Surfaces(student=jnp.zeros((2, 1, 2, 2, 3)), prior=jnp.zeros((2, 1, 2, 2, 3)).at[1, 0, 0, 0].set(1.0))
    np.testing.assert_allclose(normal_l1(surfaces, None), [0, 0.25])


def test_constant_inputs_are_finite(scene):
    surfaces, _, _, seed = scene
    flat = jnp.zeros((4, 4, H, W, 3)).at[..., 2].set(1.0)

    def cost(student, depth, image):
        return ranking(surfaces.replace(student=student, prior=flat), depth, image, seed)

    value, gradient = jax.value_and_grad(cost)(surfaces.student, jnp.ones((4, H, W)), jnp.full((4, H, W, 3), 0.5))
    assert jnp.isfinite(value) and jnp.isfinite(gradient).all()


def test_four_devices_equal_one(scene):
    surfaces, depth, image, seed = scene
    alone = ranking(surfaces, depth, image, seed)
    split = jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0)[:, :, None], surfaces)  # (device, scale, 1, h, w, 3)
    mapped = jax.pmap(functools.partial(module.normal_ranking, loss=LOSS, axis="d"), axis_name="d", devices=jax.devices()[:4])
    shared = mapped(split, depth[:, None], image[:, None], seed[:, None])
    np.testing.assert_allclose(shared, jnp.broadcast_to(alone, 4), rtol=1e-5)


def test_anchors_lie_on_edges_and_points_across_them():
    """A vertical edge at columns 19 and 20: points left and right of it, on the anchor's row."""
    step = jnp.zeros((1, H, W)).at[:, :, 20:].set(1.0)
    edges = module.edges_from(*module.sobel(step))
    candidates = edge_pixels(edges.strength)
    assert set(np.flatnonzero(candidates[0].any(axis=0))) == {19, 20}
    count = jnp.sum(candidates, axis=(1, 2), dtype=jnp.int32)
    ranks, distances = draw(jnp.array([7], jnp.uint32), 0, count, 500)
    assert ranks.min() >= 0 and ranks.max() < count[0] and len(np.unique(ranks)) > 30
    assert distances.min() == 3 and distances.max() == 19
    chain = np.asarray(sample_across_edges(candidates, edges.direction, ranks, distances))[0]
    rows, columns = chain // W, chain % W
    assert (rows == rows[0]).all() and (rows[0] > 0).all() and (rows[0] < H - 1).all()
    assert (columns[:2] <= 17).all() and (columns[2:] >= 22).all()


def test_draws_depend_on_seed_and_edge_kind():
    count = jnp.array([100, 100], jnp.int32)
    ranks, _ = draw(jnp.array([1, 2], jnp.uint32), 0, count, 50)
    again, _ = draw(jnp.array([1, 1], jnp.uint32), 1, count, 50)
    assert (ranks[0] != ranks[1]).any() and (ranks[0] != again[0]).any()
    np.testing.assert_array_equal(again[0], again[1])
