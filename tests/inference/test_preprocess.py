"""Frames and cameras arrive at the networks exactly as the loader would bring them there."""

import numpy as np
import pytest
import tiny

from dd_jax.config import ConfigError
from dd_jax.data import frames
from dd_jax.inference import preprocess

DATA = tiny.config().data


def test_floats_are_the_same_pictures():
    picture = tiny.frames(1)[0]
    np.testing.assert_array_equal(preprocess.as_uint8(picture / 255, "x"), picture)
    np.testing.assert_array_equal(preprocess.as_uint8((picture / 255).astype(np.float32), "x"), picture)
    assert preprocess.as_uint8(picture, "x") is picture


def test_frames_and_masks_are_resized_as_by_the_loader():
    picture, mask = tiny.frames(1)[0], np.arange(90 * 150).reshape(90, 150) % 7
    view = preprocess.to_network_size(picture, mask, DATA, "x")
    np.testing.assert_array_equal(view.image, frames.resize_image(picture, 64, 96, "area"))
    np.testing.assert_array_equal(view.mask, frames.resize_mask(mask > 0, 64, 96))
    assert not preprocess.to_network_size(picture, None, DATA, "x").mask.any()


def test_the_camera_is_resized_with_the_frame():
    K = np.array([[100, 0, 74.5], [0, 90, 44.5], [0, 0, 1]])
    expected = frames.intrinsics(100.0, 90.0, 74.5, 44.5, (90, 150), (64, 96), "x")
    np.testing.assert_array_equal(preprocess.camera(K, (90, 150), DATA), expected)
    np.testing.assert_allclose(preprocess.camera(K, (64, 96), DATA), K, rtol=1e-6)


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (np.zeros((4, 5), np.uint8), r"x must be an array of shape \(H, W, 3\), RGB: it is \[4, 5\]"),
        (np.zeros((4, 5, 4), np.uint8), r"RGB: it is \[4, 5, 4\]"),
        (np.zeros((0, 5, 3), np.uint8), r"RGB: it is \[0, 5, 3\]"),
        (np.zeros((4, 5, 3), np.int32), "uint8, or float in .0, 1.: it is int32"),
        (np.full((4, 5, 3), 255.0), r"x has floats outside \[0, 1\]: divide by 255"),
        (np.full((4, 5, 3), np.nan), r"x has floats outside \[0, 1\]"),
    ],
)
def test_what_is_no_frame_is_refused(picture, message):
    with pytest.raises(ConfigError, match=message):
        preprocess.to_network_size(picture, None, DATA, "x")


@pytest.mark.parametrize(
    ("K", "message"),
    [
        (np.eye(4), r"K must be an array of shape \(3, 3\), in pixels of the frame: it is \[4, 4\]"),
        (np.array([[50, 1, 40], [0, 50, 40], [0, 0, 1.0]]), "without skew: it is"),
        (np.array([[50, 0, 40], [0, 50, 40], [0, 0, 2.0]]), "without skew: it is"),
        (np.array([[0.5, 0, 0.5], [0, -1, 0.5], [0, 0, 1]]), "focal lengths fx=0.5 fy=-1 must be positive"),
        (np.array([[50, 0, 400], [0, 50, 40], [0, 0, 1.0]]), "principal point cx=400 cy=40 lies outside the image of 150 x 90"),
    ],
)
def test_what_is_no_camera_is_refused(K, message):
    with pytest.raises(ConfigError, match=message):
        preprocess.camera(K, (90, 150), DATA)


def test_a_mask_has_the_size_of_its_frame():
    with pytest.raises(ConfigError, match=r"the mask of x must be an array of shape \[90, 150\]: it is \[90, 149\]"):
        preprocess.to_network_size(tiny.frames(1)[0], np.zeros((90, 149), bool), DATA, "x")


def test_sizes_stay():
    preprocess.check_size((3, 4), (3, 4), "x")
    with pytest.raises(ConfigError, match="frame 7 has 5 x 3 pixels, the frames before it 4 x 3"):
        preprocess.check_size((3, 5), (3, 4), "frame 7")


def test_frames_that_are_none_do_not_exist():
    config = tiny.config()
    first, second = (preprocess.to_network_size(picture, None, config.data, "x") for picture in tiny.frames(2))
    K = np.eye(3, dtype=np.float32)
    batch = preprocess.assemble(None, second, None, K, config)
    assert batch.images.shape == (1, 2, 64, 96, 3) and batch.exists.tolist() == [[False, True]] and not batch.images[0, 0].any()
    config.cost_volume.future_frame = True
    batch = preprocess.assemble(first, second, None, K, config)
    assert batch.images.shape == (1, 3, 64, 96, 3) and batch.exists.tolist() == [[True, True, False]]


def test_neighbours():
    assert list(preprocess.neighbours("abc", ahead=True)) == [(None, "a", "b"), ("a", "b", "c"), ("b", "c", None)]
    assert list(preprocess.neighbours("abc", ahead=False)) == [(None, "a", None), ("a", "b", None), ("b", "c", None)]
    assert list(preprocess.neighbours("", ahead=True)) == list(preprocess.neighbours("", ahead=False)) == []
