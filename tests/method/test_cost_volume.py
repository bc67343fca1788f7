import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from skimage.data import stereo_motorcycle

from dd_jax.config import CostVolumeConfig
from dd_jax.geometry import sampling, se3, warp
from dd_jax.method import cost_volume, occlusion_filling
from dd_jax.runtime import forms

HEIGHT, WIDTH, CHANNELS = 12, 16, 5
K = jnp.array([[[12.0, 0.0, 7.5], [0.0, 12.0, 5.5], [0.0, 0.0, 1.0]]])
BINS = jnp.array([1.0, 1.5, 2.5, 4.0, 7.0, 12.0])


@functools.cache
def compiled(options):
    config = CostVolumeConfig(bins=len(BINS), **dict(options))
    return jax.jit(lambda *args: cost_volume.build(*args, config))


def build(scene, holes=None, present=None, bins=BINS, **options):
    target, lookup, T = scene
    present = jnp.ones(T.shape[:2], bool) if present is None else jnp.asarray(present)
    intrinsics = jnp.tile(K, (len(target), 1, 1))
    return compiled(tuple(sorted(options.items())))(target, lookup, T, present, holes, intrinsics, bins)


@pytest.fixture
def scene():
    """Two samples with two unrelated lookup frames each: features and poses."""
    rng = np.random.default_rng(0)
    target = rng.uniform(0, 1, (2, HEIGHT, WIDTH, CHANNELS))
    lookup = rng.uniform(0, 1, (2, 2, HEIGHT, WIDTH, CHANNELS))
    T = se3.pose_from_parameters(*(jnp.asarray(rng.uniform(-0.1, 0.1, (2, 2, 3)), jnp.float32) for _ in range(2)))
    return jnp.asarray(target, jnp.float32), jnp.asarray(lookup, jnp.float32), T


def first_frame(scene):
    return scene[0], scene[1][:, :1], scene[2][:, :1]


def holes_of(scene):
    holes = np.zeros(scene[1].shape[:-1], np.float32)
    holes[0, 0, 3:8, 5:12] = 1
    holes[1, 0, 6:9, 2:6] = 1
    return jnp.asarray(holes)


def by_hand(scene, holes, mode, radius=1, threshold=0.7):
    """Reference computation for the first lookup frame, one bin at a time: costs and occlusion (b, h, w, k)."""
    target, lookup, T = scene[0], scene[1][:, 0], scene[2][:, 0]
    intrinsics = jnp.tile(K, (len(target), 1, 1))
    sample = jax.jit(sampling.sample_zeros)
    features, occluded = [], []
    for depth in BINS:
        coords = warp.reproject(jnp.full(target.shape[:3], depth), intrinsics, T)
        features.append(np.asarray(sample(lookup, coords)))
        occluded.append(np.asarray(sample(holes[:, 0, ..., None], coords))[..., 0] > threshold)
    features, occluded = np.stack(features, 1), np.stack(occluded, 1)  # (b, k, h, w[, c])
    if mode == "set_one":
        features[occluded] = 1.0
    if mode == "feature_pool":
        visible = np.where(occluded[..., None], 0.0, features)
        margins = [(0, 0), (radius, radius), (radius, radius), (radius, radius), (0, 0)]
        padded = np.pad(visible, margins, constant_values=-np.inf)
        shifts = itertools.product(range(2 * radius + 1), repeat=3)
        size = features.shape[1:4]
        window = [padded[:, i : i + size[0], j : j + size[1], m : m + size[2]] for i, j, m in shifts]
        features = np.where(occluded[..., None], np.max(window, axis=0), features)
    costs = np.abs(features - np.asarray(target)[:, None]).mean(-1)
    return np.moveaxis(costs, 1, -1), np.moveaxis(occluded, 1, -1)


@pytest.mark.parametrize("binning", ["linear", "inverse", "log"])
def test_depth_bins(binning):
    bins = np.asarray(cost_volume.depth_bins(jnp.array([0.5, 8.0]), CostVolumeConfig(bins=9, binning=binning)))
    np.testing.assert_allclose(bins[[0, -1]], [0.5, 8.0], rtol=1e-6)
    space = {"linear": bins, "inverse": -1 / bins, "log": np.log(bins)}[binning]
    np.testing.assert_allclose(np.diff(space), np.diff(space).mean(), rtol=1e-4)
    assert np.all(np.diff(bins) > 0)


def test_depth_range_follows_the_teacher():
    depth = jnp.array([[[2.0, 4.0]], [[1.0, 10.0]]])
    config = CostVolumeConfig(tracker_momentum=0.75)
    updated = cost_volume.update_depth_range(jnp.array([0.5, 20.0]), depth, config, 0.1, None)
    np.testing.assert_allclose(updated, [0.75 * 0.5 + 0.25 * 0.9 * 1.5, 0.75 * 20 + 0.25 * 1.1 * 7], rtol=1e-6)
    floor = cost_volume.update_depth_range(jnp.array([0.5, 20.0]), depth, config, 2.0, None)
    np.testing.assert_allclose(floor[0], 0.75 * 0.5 + 0.25 * 2.0, rtol=1e-6)


def test_percentiles_ignore_outliers():
    depth = np.full((2, 16, 100), 3.0, np.float32)
    depth[:, 8:] = 6.0
    depth[:, 0, 0], depth[:, 4, 4] = 0.2, 90.0
    start, config = jnp.array([0.5, 20.0]), CostVolumeConfig(tracker_momentum=0.0, range_percentile=2.0)
    np.testing.assert_allclose(
        cost_volume.update_depth_range(start, jnp.asarray(depth), config, 0.1, None), [0.9 * 3, 1.1 * 6], rtol=1e-5
    )


def test_normalised_colours_match_across_exposures_and_shift_with_the_image():
    image = jnp.asarray(np.random.default_rng(4).random((1, 48, 64, 3), np.float32)) ** 2
    colours = cost_volume.normalised_colours(image)
    assert colours.shape == (1, 12, 16, 3)
    darker = cost_volume.normalised_colours(0.7 * image + 0.1)
    shifted = cost_volume.normalised_colours(jnp.roll(image, 4, axis=2))
    inside = (slice(None), slice(5, -5), slice(6, -5))
    size = np.abs(colours[inside]).mean()
    assert np.abs(darker - colours)[inside].mean() < 0.15 * size
    np.testing.assert_allclose(shifted[inside], jnp.roll(colours, 1, axis=2)[inside], atol=1e-5)
    assert np.abs(jnp.roll(colours, 1, axis=2) - colours)[inside].mean() > 0.8 * size


@pytest.mark.parametrize("window", [1, 3, 5])
def test_window_mean_is_over_the_seen_pixels(window):
    rng = np.random.default_rng(5)
    costs, seen = rng.random((2, 3, 6, 9), np.float32), rng.random((2, 3, 6, 9)) < 0.6
    seen[0, 0] = False
    found = np.asarray(jax.jit(cost_volume.window_mean, static_argnums=2)(costs, seen, window))
    if window == 1:
        np.testing.assert_array_equal(found, costs)
        return
    radius = window // 2
    for place in np.ndindex(costs.shape):
        rows, columns = (slice(max(0, x - radius), x + radius + 1) for x in place[2:])
        around = costs[place[:2]][rows, columns][seen[place[:2]][rows, columns]]
        np.testing.assert_allclose(found[place], around.mean() if around.size else 0, rtol=1e-5)


@pytest.mark.parametrize("margin", [0, 1, 2])
def test_margin_is_the_border_without_observation(margin):
    features = jnp.ones((1, HEIGHT, WIDTH, CHANNELS))
    config = CostVolumeConfig(bins=2, margin=margin, occlusion="none")
    still = cost_volume.build(
        features, features[:, None], jnp.eye(4)[None, None], jnp.ones((1, 1), bool), None, K, BINS[:2], config
    )
    seen = np.asarray(still.confidence[0])
    assert seen[margin + 1 : HEIGHT - margin - 1, margin + 1 : WIDTH - margin - 1].all()  # just at the limit, rounding decides
    assert not seen[:margin].any() and not seen[:, :margin].any() and (margin == 0 or not seen[-margin:].any())
    assert seen.sum() >= (HEIGHT - 2 * margin - 1) * (WIDTH - 2 * margin - 1)


def test_depth_range_is_the_same_on_two_devices():
    depth = jnp.asarray(np.random.default_rng(0).uniform(1, 9, (4, 3, 5)), jnp.float32)
    before, config = jnp.array([0.5, 20.0]), CostVolumeConfig()
    alone = cost_volume.update_depth_range(before, depth, config, 0.1, None)
    apart = jax.vmap(lambda d: cost_volume.update_depth_range(before, d, config, 0.1, "devices"), axis_name="devices")(
        depth.reshape(2, 2, 3, 5)
    )
    np.testing.assert_allclose(apart, [alone, alone], rtol=1e-6)


def test_static_scene_has_the_lowest_cost_at_its_depth():
    """A wall at the depth of a bin, seen from two places."""
    true, T = 3, se3.pose_from_parameters(jnp.array([[0.01, -0.02, 0.01]]), jnp.array([[0.4, 0.1, 0.2]]))
    world = jnp.asarray(np.random.default_rng(1).uniform(0, 1, (1, HEIGHT, WIDTH, CHANNELS)), jnp.float32)
    coords = warp.reproject(jnp.full((1, HEIGHT, WIDTH), BINS[true]), K, T)
    target = sampling.sample_zeros(world, coords)  # the lookup frame is the world itself
    volume = build((target, world[:, None], T[:, None]))
    seen = np.asarray(volume.observed)[..., true]
    assert seen.sum() > 50
    np.testing.assert_array_equal(np.argmin(volume.costs, axis=-1)[seen], true)
    np.testing.assert_allclose(np.asarray(volume.lowest)[seen], 1 / BINS[true], rtol=1e-6)


def test_missing_frames_observe_nothing(scene):
    volume = build(scene, present=[[False, False], [True, False]])
    assert np.all(np.asarray(volume.costs)[0] == 0) and not np.any(np.asarray(volume.observed)[0])
    np.testing.assert_array_equal(volume.confidence[0], 0.0)
    np.testing.assert_allclose(volume.lowest[0], 1 / BINS[0])
    alone = build(first_frame(scene))
    np.testing.assert_allclose(volume.costs[1], alone.costs[1], atol=1e-6)


def test_zero_poses_of_missing_frames_have_no_effect(scene):
    volume = build((scene[0], scene[1], scene[2] * 0), present=np.zeros((2, 2), bool))
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(volume))


def test_unobserved_entries_hold_the_largest_cost(scene):
    volume = build(first_frame(scene))
    costs, observed = np.asarray(volume.costs), np.asarray(volume.observed)
    assert 0.1 < observed.mean() < 0.9
    worst = np.where(observed, costs, 0).max(-1, keepdims=True)
    np.testing.assert_array_equal(costs[~observed], np.broadcast_to(worst, costs.shape)[~observed])
    np.testing.assert_array_equal(volume.confidence, observed.all(-1))
    np.testing.assert_allclose(volume.lowest, 1 / np.asarray(BINS)[np.argmin(costs, axis=-1)], rtol=1e-6)


def test_borders_are_unobserved(scene):
    observed = np.asarray(build(first_frame(scene)).observed)
    inner = np.zeros((HEIGHT, WIDTH), bool)
    inner[2:-2, 2:-2] = True
    assert not np.any(observed[:, ~inner]) and np.any(observed[:, inner])


def test_aggregation(scene):
    frames = [build((scene[0], scene[1][:, i : i + 1], scene[2][:, i : i + 1])) for i in range(2)]
    seen, costs = (np.stack([np.asarray(getattr(f, name)) for f in frames]) for name in ("observed", "costs"))
    least, mean = build(scene, aggregate="min"), build(scene, aggregate="mean")
    some = seen.any(0)
    np.testing.assert_array_equal(least.observed, some)
    np.testing.assert_allclose(np.asarray(least.costs)[some], np.where(seen, costs, np.inf).min(0)[some], atol=1e-6)
    expected = np.where(seen, costs, 0).sum(0)[some] / seen.sum(0)[some]
    np.testing.assert_allclose(np.asarray(mean.costs)[some], expected, atol=1e-6)
    one = first_frame(scene)
    np.testing.assert_array_equal(build(one, aggregate="min").costs, build(one, aggregate="mean").costs)


@pytest.mark.parametrize(("mode", "radius"), [("none", 1), ("set_one", 1), ("feature_pool", 1), ("feature_pool", 2)])
def test_occluded_features(scene, mode, radius):
    one = first_frame(scene)
    holes = holes_of(one)
    expected, occluded = by_hand(one, holes, mode, radius)
    volume = build(one, holes, occlusion=mode, pool_radius=radius)
    seen = np.asarray(volume.observed)
    assert (occluded & seen).sum() > 50 and (~occluded & seen).sum() > 50
    np.testing.assert_allclose(np.asarray(volume.costs)[seen], expected[seen], atol=1e-5)


def test_pooling_does_not_depend_on_the_chunk_size(scene, monkeypatch):
    one = first_frame(scene)
    whole = build(one, holes_of(one), occlusion="feature_pool")
    for name, form, size in [("CHUNK", "chunks", 7), ("WHOLE", "whole", 7), ("WHOLE", "whole", 2000)]:
        monkeypatch.setattr(occlusion_filling, name, size)
        compiled.cache_clear()
        with forms.use(pooling=form):
            chunked = build(one, holes_of(one), occlusion="feature_pool")
        np.testing.assert_allclose(chunked.costs, whole.costs, atol=1e-6)


@pytest.mark.parametrize("holes", ["some", "none", "all"])
@pytest.mark.parametrize("radius", [1, 2])
def test_forms_of_the_pooling_are_equal(scene, holes, radius):
    one = first_frame(scene)
    known = {"some": holes_of(one), "none": jnp.zeros(one[1].shape[:-1]), "all": jnp.ones(one[1].shape[:-1])}[holes]
    volumes = []
    for form in forms.OPERATIONS["pooling"]:
        with forms.use(pooling=form):
            volumes.append(build(one, known, occlusion="feature_pool", pool_radius=radius))
    for a, b in zip(*map(jax.tree.leaves, volumes), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("form", forms.OPERATIONS["bins"])
@pytest.mark.parametrize("bins", [5, 16, 20])
def test_bins_per_round_change_nothing(scene, form, bins):
    depths = jnp.linspace(1.0, 12.0, bins)
    alone = build(scene, holes_of(scene), bins=depths, occlusion="feature_pool")
    with forms.use(bins=form):
        volume = build(scene, holes_of(scene), bins=depths, occlusion="feature_pool")
    for a, b in zip(jax.tree.leaves(volume), jax.tree.leaves(alone), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_export_of_mapped_samples_equals_batch(scene):
    """As in an exported program of symbolic batch size, which maps over samples."""
    arguments = (*scene, jnp.ones((2, 2), bool), holes_of(scene), jnp.tile(K, (2, 1, 1)))
    (batch,) = jax.export.symbolic_shape("batch")
    unknown = [jax.ShapeDtypeStruct((batch, *x.shape[1:]), x.dtype) for x in arguments]
    config = CostVolumeConfig(bins=len(BINS))

    def build_sample(sample):
        return cost_volume.build(*(x[None] for x in sample), BINS, config).costs[0]

    exported = jax.export.export(jax.jit(lambda *args: jax.lax.map(build_sample, args)))(*unknown)
    known = build(scene, holes_of(scene), occlusion="feature_pool")
    np.testing.assert_allclose(jax.jit(exported.call)(*arguments), known.costs, rtol=1e-6)


@pytest.mark.parametrize("mode", ["set_one", "feature_pool", "cost_fill"])
def test_without_holes_every_mode_is_the_same(scene, mode):
    plain = build(scene, occlusion="none")
    for holes in (None, jnp.zeros(scene[1].shape[:-1])):
        for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(build(scene, holes, occlusion=mode)), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6)


def test_every_frame_has_its_own_holes(scene):
    holes = holes_of(scene)
    swapped = tuple(jnp.flip(x, axis=1) if i else x for i, x in enumerate(scene))
    volumes = build(scene, holes, occlusion="feature_pool"), build(swapped, jnp.flip(holes, axis=1), occlusion="feature_pool")
    np.testing.assert_allclose(volumes[0].costs, volumes[1].costs, atol=1e-6)
    alone = build(first_frame(scene), holes[:, :1], occlusion="feature_pool")
    kept = build(scene, holes, present=[[True, False]] * 2, occlusion="feature_pool")
    np.testing.assert_allclose(kept.costs, alone.costs, atol=1e-6)


@pytest.mark.parametrize("radius", [1, 2])
def test_costs_filled_from_visible_neighbours(scene, radius):
    """Static camera: holes project to the same pixels at every depth."""
    target, lookup, T = first_frame(scene)
    still = target, lookup, jnp.broadcast_to(jnp.eye(4), T.shape)
    holes = jnp.zeros((2, 1, HEIGHT, WIDTH)).at[:, :, 4:9, 4:11].set(1.0)
    plain, filled = build(still, occlusion="none"), build(still, holes, occlusion="cost_fill", pool_radius=radius)
    costs, outcome = np.asarray(plain.costs), np.asarray(filled.costs)
    np.testing.assert_allclose(outcome[:, 4, 6], costs[:, 3, 6], atol=1e-6)
    np.testing.assert_allclose(outcome[:, 4, 4], (costs[:, 3, 4] + costs[:, 4, 3]) / 2, atol=1e-6)
    unseen = np.zeros((HEIGHT, WIDTH), bool)
    unseen[4 + radius : 9 - radius, 4 + radius : 11 - radius] = True
    np.testing.assert_array_equal(filled.observed, np.asarray(plain.observed) & ~unseen[None, ..., None])


def test_sweep_over_a_real_stereo_pair():
    """A window of costs finds the depth of textured pixels more often than single colours."""
    left, right, disparity = (np.asarray(x, np.float32)[::4, ::4] for x in stereo_motorcycle())
    left, right, disparity = left / 255, right / 255, disparity / 4
    height, width = disparity.shape
    focal, baseline = 250.0, 0.2
    near, far = focal * baseline / 18, focal * baseline / 2.5
    texture = np.abs(np.diff(left.mean(-1), axis=1, prepend=0)) > 0.04
    known = np.isfinite(disparity) & (disparity > 3) & (disparity < 17.5) & texture
    arguments = (
        jnp.asarray(left)[None],
        jnp.asarray(right)[None, None],
        se3.pose_from_parameters(jnp.zeros((1, 3)), jnp.array([[-baseline, 0.0, 0.0]]))[:, None],
        jnp.ones((1, 1), bool),
        None,
        jnp.array([[[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]]]),
    )

    def share_found(window):
        config = CostVolumeConfig(bins=32, binning="inverse", window=window)
        bins = cost_volume.depth_bins(jnp.array([near, far]), config)
        volume = jax.jit(lambda *args: cost_volume.build(*args, config))(*arguments, bins)
        sure = known & (np.asarray(volume.confidence)[0] == 1)
        assert sure.sum() > 1000
        return np.mean(np.abs(focal * baseline * np.asarray(volume.lowest)[0] - disparity)[sure] < 1.0)

    shares = [share_found(window) for window in (1, 3, 7)]
    assert shares[0] < 0.6 and min(shares[1:]) > 0.8
