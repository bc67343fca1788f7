import numpy as np
import pytest

from dd_jax.report import colorize_depth, colorize_error, panel
from dd_jax.report.pictures import NO_VALUE, depth_limits, grid, shrink_sparse

RNG = np.random.default_rng(0)


def test_near_brighter_than_far():
    depth = np.linspace(1.0, 50.0, 64)[None].repeat(4, axis=0)
    brightness = colorize_depth(depth)[0].astype(int).sum(axis=-1)
    assert (np.diff(brightness) <= 1).all() and brightness[0] > brightness[-1] + 300


def test_invalid_pixels_have_one_colour():
    depth = np.full((3, 4), 5.0)
    depth[0] = (0.0, -1.0, np.nan, np.inf)
    valid = np.ones((3, 4), bool)
    valid[1, 1] = False
    picture = colorize_depth(depth, valid=valid)
    assert (picture[0] == NO_VALUE).all() and (picture[1, 1] == NO_VALUE).all()
    assert (picture[2] != NO_VALUE).any(axis=-1).all()


def test_empty_and_constant_maps():
    assert (colorize_depth(np.zeros((3, 4))) == NO_VALUE).all()
    assert colorize_depth(np.full((3, 4), 7.0)).shape == (3, 4, 3)


def test_scale_ignores_outliers():
    depth = RNG.uniform(5, 50, (40, 40))
    spoilt = depth.copy()
    spoilt[0, :8] = 1e-3
    np.testing.assert_allclose(depth_limits(spoilt), depth_limits(depth), rtol=0.2)


def test_error_colours():
    truth = np.full((2, 3), 10.0)
    truth[0, 0] = 0
    right, wrong = colorize_error(truth, truth), colorize_error(truth * 2, truth)
    assert (right[0, 0] == NO_VALUE).all()
    assert (wrong[1, 1] == colorize_error(truth * 9, truth)[1, 1]).all()
    assert wrong[1, 1, 0] > wrong[1, 1, 2] and right[1, 1, 2] > right[1, 1, 0]


def test_shrinking_keeps_nearest_depth():
    depth = np.zeros((40, 40))
    depth[3, 5], depth[2, 4] = 8.0, 20.0
    small = shrink_sparse(depth, (20, 20))
    assert small[1, 2] == 8.0
    assert (small > 0).sum() == 9  # one cell, dilated
    dense = RNG.uniform(1, 9, (20, 20))
    np.testing.assert_allclose(shrink_sparse(dense, (20, 20)), dense)


def test_grid_places_tiles_on_white():
    tiles = [np.full((2, 3, 3), value, np.uint8) for value in (10, 20, 30)]
    page = grid(tiles, columns=2, gap=1)
    assert page.shape == (5, 7, 3)
    assert (page[:2, :3] == 10).all() and (page[:2, 4:] == 20).all() and (page[3:, :3] == 30).all()
    assert (page[2] == 255).all() and (page[3:, 4:] == 255).all()


@pytest.mark.parametrize("with_truth", [True, False])
def test_panel_has_tile_per_argument(with_truth):
    h, w = 32, 64
    image = RNG.integers(0, 255, (h, w, 3), np.uint8)
    truth = RNG.uniform(3, 60, (2 * h, 2 * w)) if with_truth else None
    dynamic = np.zeros((h, w), bool)
    dynamic[4:9, 4:9] = True
    arguments = {
        "depths": {"student": RNG.uniform(0.1, 2, (h, w)), "teacher": RNG.uniform(0.1, 2, (h, w))},
        "previous": image / np.float32(255),
        "disentangled": image,
        "holes": dynamic,
        "dynamic": dynamic,
        "truth": truth,
    }
    before = image.copy()
    page = panel(image, **arguments)
    rows = 4 if with_truth else 3
    large_h, large_w = 8 * h, 8 * w  # the smallest integer factor that makes 64 columns at least 480
    assert page.shape == (rows * (large_h + 4) - 4, 2 * (large_w + 4) - 4, 3) and page.dtype == np.uint8
    np.testing.assert_array_equal(image, before)
    assert panel(image).shape == (large_h, large_w, 3)


def test_panel_uses_scale_of_ground_truth():
    """A perfect prediction looks like the ground truth and has one colour in the error map."""
    truth = RNG.uniform(3, 60, (64, 480))
    page = panel(np.zeros((64, 480, 3), np.uint8), depths={"student": truth}, truth=truth, columns=1)
    tiles = [page[i * 68 : i * 68 + 64][20:] for i in range(4)]  # below the labels
    np.testing.assert_array_equal(tiles[1], tiles[2])
    assert len(np.unique(tiles[3].reshape(-1, 3), axis=0)) == 1


def test_error_map_of_first_predictor_on_scored_pixels():
    truth = RNG.uniform(3, 60, (64, 480))
    counted = np.zeros(truth.shape, bool)
    counted[32:] = True
    image = np.zeros((64, 480, 3), np.uint8)
    page = panel(image, depths={"student": truth, "teacher": 2 * truth}, truth=truth, counted=counted, columns=1)
    error = page[4 * 68 :]
    assert (error[24:32] == NO_VALUE).all() and (error[32:] == colorize_error(truth, truth)[0, 0]).all()


def test_panel_shows_residual_motion():
    offsets = np.zeros((64, 480, 3))
    offsets[40:, 100:200, 0] = 0.5
    page = panel(np.zeros((64, 480, 3), np.uint8), offsets=offsets, columns=1)
    assert page.shape[0] == 2 * 64 + 4
    tile = page[68:].astype(int)
    assert tile[50, 150, 0] > tile[50, 150, 2] and tile[50, 300, 2] > tile[50, 300, 0]  # red against blue
