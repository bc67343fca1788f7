"""The cost volume for any features, poses, cameras and bins: its range, its invariances and its missing frames."""

import functools

import draws
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from draws import cameras, floats
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dd_jax.config import CostVolumeConfig
from dd_jax.method import cost_volume

pytestmark = pytest.mark.property

FRAMES, HEIGHT, WIDTH, CHANNELS, BINS = 2, 6, 8, 2, 4


targets = floats((1, HEIGHT, WIDTH, CHANNELS), -2, 2)
lookups = floats((1, FRAMES, HEIGHT, WIDTH, CHANNELS), -2, 2)
poses = draws.poses(1, FRAMES, rotation=1)
ranges = st.tuples(st.floats(0.125, 10, width=32), st.floats(1.25, 50)).map(lambda pair: np.float32([pair[0], pair[0] * pair[1]]))
holes = arrays(np.float32, (1, FRAMES, HEIGHT, WIDTH), elements=st.sampled_from([0.0, 1.0]))
modes = st.sampled_from(["none", "set_one", "feature_pool", "cost_fill"])


@functools.cache
def compiled(**options):
    config = CostVolumeConfig(bins=BINS, **options)

    def build(target, lookup, T, present, holes, K, depth_range):
        bins = cost_volume.depth_bins(depth_range, config)
        return cost_volume.build(target, lookup, T, present, holes, K, bins, config)

    return jax.jit(build)


PRESENT = np.ones((1, FRAMES), bool)


@given(targets, lookups, poses, cameras, ranges, holes, modes, st.sampled_from(["mean", "min"]))
def test_costs_are_finite_and_say_which_bin_is_cheapest(target, lookup, T, K, depth_range, holes, mode, aggregate):
    volume = compiled(occlusion=mode, aggregate=aggregate)(target, lookup, T, PRESENT, holes, K, depth_range)
    costs, observed = np.asarray(volume.costs), np.asarray(volume.observed)
    assert np.isfinite(costs).all() and (costs >= 0).all()
    assert (costs <= 5 + 1e-5).all()  # the largest difference of two features, of which set_one raises one by 1
    largest = np.where(observed, costs, 0).max(axis=-1, keepdims=True)
    np.testing.assert_array_equal(np.where(observed, largest, costs), np.broadcast_to(largest, costs.shape))
    np.testing.assert_array_equal(volume.confidence, observed.all(axis=-1))
    bins = np.asarray(cost_volume.depth_bins(jnp.asarray(depth_range), CostVolumeConfig(bins=BINS)))
    np.testing.assert_allclose(volume.lowest, 1 / bins[costs.argmin(axis=-1)], rtol=1e-5)


@given(targets, cameras, ranges)
def test_without_motion_the_same_frame_costs_nothing(target, K, depth_range):
    lookup, rest = np.stack([target, target], axis=1), jnp.broadcast_to(jnp.eye(4), (1, FRAMES, 4, 4))
    volume = compiled()(target, lookup, rest, PRESENT, None, K, depth_range)
    np.testing.assert_allclose(volume.costs, 0, atol=2e-4)


@given(targets, lookups, poses, cameras, ranges, st.sampled_from([0.25, 2.0, 8.0]))
def test_metres_and_any_other_unit_give_the_same_costs(target, lookup, T, K, depth_range, scale):
    """Monocular depth has no scale. Only the 1e-7 m in ``divide`` stay, which decide at the very border of the image."""
    present = np.array([[True, False]])
    there = compiled()(target, lookup, T, present, None, K, depth_range)
    here = compiled()(target, lookup, T.at[..., :3, 3].multiply(scale), present, None, K, depth_range * np.float32(scale))
    both = np.asarray(here.observed) & np.asarray(there.observed)
    np.testing.assert_allclose(np.asarray(here.costs)[both], np.asarray(there.costs)[both], atol=1e-3)


@given(targets, lookups, poses, cameras, ranges, holes, modes)
def test_order_of_the_lookup_frames_does_not_matter(target, lookup, T, K, depth_range, holes, mode):
    build = compiled(occlusion=mode)
    there = build(target, lookup, T, PRESENT, holes, K, depth_range)
    here = build(target, lookup[:, ::-1], T[:, ::-1], PRESENT, holes[:, ::-1], K, depth_range)
    np.testing.assert_allclose(here.costs, there.costs, atol=1e-6)
    np.testing.assert_array_equal(here.observed, there.observed)


@given(targets, lookups, lookups, poses, poses, cameras, ranges, modes)
def test_missing_frame_has_no_effect(target, lookup, other, T, S, K, depth_range, mode):
    build, holes = compiled(occlusion=mode), np.zeros((1, FRAMES, HEIGHT, WIDTH), np.float32)
    present = np.array([[True, False]])
    there = build(target, lookup, T, present, holes, K, depth_range)
    changed = np.stack([lookup[:, 0], other[:, 1]], axis=1)
    here = build(target, changed, jnp.stack([T[:, 0], S[:, 1]], axis=1), present, holes, K, depth_range)
    np.testing.assert_array_equal(here.costs, there.costs)
    np.testing.assert_array_equal(here.observed, there.observed)


@given(ranges, st.sampled_from(["linear", "inverse", "log"]), st.integers(1, 96))
def test_bins_increase_from_the_nearest_to_the_farthest_depth(depth_range, binning, count):
    bins = np.asarray(cost_volume.depth_bins(jnp.asarray(depth_range), CostVolumeConfig(bins=count, binning=binning)))
    assert (np.diff(bins) > 0).all()
    np.testing.assert_allclose(bins[0], depth_range[0], rtol=1e-5)
    if count > 1:
        np.testing.assert_allclose(bins[-1], depth_range[1], rtol=1e-5)


@given(ranges, floats((2, 8, 8), 0.1, 100), st.sampled_from([0.0, 2.0]), st.floats(0, 1))
def test_tracked_range_stays_a_range(depth_range, depth, percentile, momentum):
    config = CostVolumeConfig(range_percentile=percentile, tracker_momentum=momentum)
    near, far = np.asarray(cost_volume.update_depth_range(jnp.asarray(depth_range), jnp.asarray(depth), config, 0.1, None))
    assert 0 < near < far
    assert near <= max(depth_range[0], depth.max()) and far <= max(depth_range[1], 1.1 * depth.max()) * (1 + 1e-6)
