import cv2
import numpy as np

from dd_jax.prepare import triplet


def wide_picture():
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    return cv2.resize(noise, (240, 160), interpolation=cv2.INTER_CUBIC)


def test_alignment_removes_shift():
    wide = wide_picture()
    tiles = triplet.tiles(wide[:, :200], wide[:, 6:206], wide[:, 12:212], "7")
    before, after = (tile[40:-40, 20:-20].mean() for tile in tiles[4:])  # away from the labels and the border
    assert len(tiles) == 6 and before > 30 and after < before / 5
    np.testing.assert_array_equal(tiles[1][40:], wide[40:, :200])


def test_blank_images_not_aligned():
    blank = np.full((48, 64, 3), 90, np.uint8)
    tiles = triplet.tiles(blank, blank, blank, "0")
    assert not tiles[5][30:].any() and (tiles[3][30:] == 90).all()


def test_wide_images_reduced():
    assert triplet.shown(np.zeros((540, 960, 3), np.uint8)).shape == (360, 640, 3)
    assert triplet.shown(np.zeros((96, 160, 3), np.uint8)).shape == (96, 160, 3)


def test_jpeg_channel_order():
    red = np.zeros((32, 32, 3), np.uint8)
    red[..., 0] = 200
    decoded = cv2.imdecode(np.frombuffer(triplet.jpeg(red), np.uint8), cv2.IMREAD_COLOR_RGB)
    assert np.abs(decoded.astype(int) - red).max() < 10
