import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax.config import DsDepthConfig
from dd_jax.method import ds_depth
from dd_jax.runtime import forms

MARGIN = 2

H, W, C = 12, 20, 6
K = jnp.array([[[10.0, 0, 9.5], [0, 10, 5.5], [0, 0, 1]]])
BINS = jnp.array([1.0, 2.0, 4.0, 8.0])
HERE = jnp.array([True])


def features(seed=0):
    return jnp.asarray(np.random.default_rng(seed).uniform(size=(1, H, W, C)).astype(np.float32))


def sideways(step):
    return jnp.eye(4)[None].at[0, 0, 3].set(step)


@functools.cache
def compiled(own_mask):
    return jax.jit(functools.partial(ds_depth.build_cost_volume, config=DsDepthConfig(own_mask=own_mask)))


def build(target, lookup, T, residual, own_mask=True, present=HERE):
    return compiled(own_mask)(target, lookup, T, present, residual, K, BINS)


def test_zero_flow_gives_equal_volumes():
    found = build(features(), features(1), sideways(0.4), jnp.zeros((1, H, W, 2)))
    static, dynamic = jnp.split(found.static_and_dynamic, 2, axis=-1)
    np.testing.assert_array_equal(static, dynamic)
    sure = found.confidence[..., None]
    np.testing.assert_allclose(found.costs, static * sure)


def test_moving_point_matches_at_its_depth_along_the_flow():
    target = features()
    T, residual = sideways(0.4), jnp.zeros((1, H, W, 2)).at[..., 0].set(3.0)
    lookup = jnp.roll(target, 2 + 3, axis=2)  # 2 pixels of parallax at depth 2, plus 3 pixels of object motion
    found = build(target, lookup, T, residual)
    inside = found.confidence[0] > 0
    assert inside.sum() > 20
    np.testing.assert_allclose(found.lowest[0][inside], 1 / 2)
    np.testing.assert_allclose(found.costs[0][..., 1][inside][5:10], 0, atol=1e-5)
    blind = build(target, lookup, T, jnp.zeros((1, H, W, 2)))
    assert (blind.lowest[0][inside] != 1 / 2).mean() > 0.5


@pytest.mark.parametrize("form", forms.OPERATIONS["bins"])
def test_bins_per_round_change_nothing(form):
    arguments = features(), features(1), sideways(0.4), jnp.full((1, H, W, 2), 0.3)
    with forms.use(bins=form):
        volume = build(*arguments)
    for a, b in zip(jax.tree.leaves(volume), jax.tree.leaves(build(*arguments)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_complete_volume_replaces_incomplete_one():
    residual = jnp.zeros((1, H, W, 2)).at[..., 0].set(100.0)  # out of the image
    found = build(features(), features(1), sideways(0.4), residual)
    rigid = build(features(), features(1), sideways(0.4), jnp.zeros((1, H, W, 2)))
    np.testing.assert_array_equal(found.confidence, rigid.confidence)
    shared = build(features(), features(1), sideways(0.4), residual, own_mask=False)
    np.testing.assert_array_equal(shared.confidence, rigid.confidence)


@pytest.mark.parametrize("present", [True, False])
def test_missing_frames_and_borders_are_unobserved(present):
    found = build(features(), features(1), sideways(0.0), jnp.zeros((1, H, W, 2)), present=jnp.array([present]))
    sure = np.array(found.confidence[0] > 0)
    assert (sure[MARGIN + 1 : -MARGIN, MARGIN + 1 : -MARGIN] == present).all()
    sure[MARGIN:-MARGIN, MARGIN:-MARGIN] = False
    assert not sure.any()
    assert jnp.isfinite(found.costs).all() and jnp.isfinite(found.static_and_dynamic).all() and jnp.isfinite(found.lowest).all()
