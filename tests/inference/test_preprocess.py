"""Frames and intrinsics become network inputs exactly as in the loader."""

import weakref

import numpy as np
import pytest
import tiny

from dd_jax.config import ConfigError
from dd_jax.data import frames
from dd_jax.inference import preprocess

DATA = tiny.config().data


def test_float_images():
    image = tiny.frames(1)[0]
    np.testing.assert_array_equal(preprocess.as_uint8(image / 255, "x"), image)
    np.testing.assert_array_equal(preprocess.as_uint8((image / 255).astype(np.float32), "x"), image)
    assert preprocess.as_uint8(image, "x") is image


def test_resize_equals_loader():
    image, mask = tiny.frames(1)[0], np.arange(90 * 150).reshape(90, 150) % 7
    resized = preprocess.to_network_size(image, mask, DATA, "x")
    np.testing.assert_array_equal(resized.image, frames.resize_image(image, 64, 96, "area"))
    np.testing.assert_array_equal(resized.mask, frames.resize_mask(mask > 0, 64, 96))
    assert not preprocess.to_network_size(image, None, DATA, "x").mask.any()


def test_intrinsics_are_resized():
    K = np.array([[100, 0, 74.5], [0, 90, 44.5], [0, 0, 1]])
    expected = frames.intrinsics(100.0, 90.0, 74.5, 44.5, (90, 150), (64, 96), "x")
    np.testing.assert_array_equal(preprocess.camera(K, (90, 150), DATA), expected)
    own = np.array([[100, 0, 47.5], [0, 90, 31.5], [0, 0, 1]])
    np.testing.assert_allclose(preprocess.camera(own, (64, 96), DATA), own, rtol=1e-6)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 5), np.uint8), r"x must be an array of shape \(H, W, 3\), RGB: it is \[4, 5\]"),
        (np.zeros((4, 5, 4), np.uint8), r"RGB: it is \[4, 5, 4\]"),
        (np.zeros((0, 5, 3), np.uint8), r"RGB: it is \[0, 5, 3\]"),
        (np.zeros((4, 5, 3), np.int32), "uint8, or float in .0, 1.: it is int32"),
        (np.full((4, 5, 3), 255.0), r"x has floats outside \[0, 1\]: divide by 255"),
        (np.full((4, 5, 3), np.nan), r"x has floats outside \[0, 1\]"),
    ],
)
def test_invalid_frame_raises(image, message):
    with pytest.raises(ConfigError, match=message):
        preprocess.to_network_size(image, None, DATA, "x")


@pytest.mark.parametrize(
    ("K", "message"),
    [
        (np.eye(4), r"K must be an array of shape \(3, 3\), in pixels of the frame: it is \[4, 4\]"),
        (np.array([[50, 1, 40], [0, 50, 40], [0, 0, 1.0]]), "without skew: it is"),
        (np.array([[50, 0, 40], [0, 50, 40], [0, 0, 2.0]]), "without skew: it is"),
        (np.array([[0.5, 0, 0.5], [0, -1, 0.5], [0, 0, 1]]), "focal lengths fx=0.5 fy=-1 must be positive"),
        (np.array([[50, 0, 400], [0, 50, 40], [0, 0, 1.0]]), "principal point cx=400 cy=40 lies outside the image of 150 x 90"),
        (np.array([[50, 0, 24.5], [0, 50, 14.5], [0, 0, 1.0]]), "likely those of a picture of about 50 x 30: give"),
    ],
)
def test_invalid_intrinsics_raise(K, message):
    with pytest.raises(ConfigError, match=message):
        preprocess.camera(K, (90, 150), DATA)


def test_mask_of_other_size_raises():
    with pytest.raises(ConfigError, match=r"the mask of x must be an array of shape \[90, 150\]: it is \[90, 149\]"):
        preprocess.to_network_size(tiny.frames(1)[0], np.zeros((90, 149), bool), DATA, "x")


def test_frame_of_other_size_raises():
    preprocess.check_size((3, 4), (3, 4), "x")
    with pytest.raises(ConfigError, match="frame 7 has 5 x 3 pixels, the frames before it 4 x 3"):
        preprocess.check_size((3, 5), (3, 4), "frame 7")


def test_missing_frames_do_not_exist():
    config = tiny.config()
    first, second = (preprocess.to_network_size(image, None, config.data, "x") for image in tiny.frames(2))
    K = np.eye(3, dtype=np.float32)
    batch = preprocess.assemble(None, second, None, K, config)
    assert batch.images.shape == (1, 2, 64, 96, 3) and batch.exists.tolist() == [[False, True]] and not batch.images[0, 0].any()
    config.cost_volume.future_frame = True
    batch = preprocess.assemble(first, second, None, K, config)
    assert batch.images.shape == (1, 3, 64, 96, 3) and batch.exists.tolist() == [[True, True, False]]


def test_neighbours():
    assert list(preprocess.neighbours("abc", True, 1)) == [(None, "a", "b"), ("a", "b", "c"), ("b", "c", None)]
    assert list(preprocess.neighbours("abc", False, 1)) == [(None, "a", None), ("a", "b", None), ("b", "c", None)]
    assert list(preprocess.neighbours("", True, 1)) == list(preprocess.neighbours("", False, 1)) == []


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 9])
@pytest.mark.parametrize("step", [1, 2, 3])
def test_neighbours_are_step_items_away(count, step):
    items = dict(enumerate("abcdefghi"[:count]))
    expected = [(items.get(t - step), items[t], items.get(t + step)) for t in items]
    assert list(preprocess.neighbours(items.values(), True, step)) == expected
    assert list(preprocess.neighbours(items.values(), False, step)) == [(before, now, None) for before, now, _ in expected]


@pytest.mark.parametrize("ahead", [False, True])
def test_neighbours_hold_a_window_of_a_long_video(ahead):
    """An endless stream is read ``step`` items ahead at most, and older items are released."""

    class Frame:
        pass

    alive = weakref.WeakSet()

    def endless():
        while True:
            alive.add(frame := Frame())
            yield frame

    triplets = preprocess.neighbours(endless(), ahead, 3)
    for _ in range(50):
        triplet = next(triplets)
    assert all(frame is not None for frame in triplet[: 2 + ahead])
    assert len(alive) <= 2 + 3 * (1 + ahead)  # one is with the generator of this test
