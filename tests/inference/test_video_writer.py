"""A film has every picture, in order, and is there completely or not at all."""

import resource
import signal

import cv2
import numpy as np
import pytest

from dd_jax.config import ConfigError
from dd_jax.inference.video_writer import LONGEST, Movie


def read(path):
    capture, pictures = cv2.VideoCapture(str(path)), []
    while (found := capture.read())[0]:
        pictures.append(found[1][..., ::-1])
    return capture.get(cv2.CAP_PROP_FPS), pictures


def flat(value, height=48, width=64):
    return np.full((height, width, 3), value, np.uint8)


def test_pictures_lie_side_by_side_in_order(tmp_path):
    movie = Movie(tmp_path / "a.mp4", 12.5)
    for value in (40, 120, 200):
        movie.add(flat((value, 0, 0)), flat((0, 0, value)))
        assert not (tmp_path / "a.mp4").exists()
    movie.close()
    movie.abandon()  # nothing is left to remove
    rate, pictures = read(tmp_path / "a.mp4")
    assert rate == pytest.approx(12.5) and [picture.shape for picture in pictures] == [(48, 128, 3)] * 3
    for picture, value in zip(pictures, (40, 120, 200)):
        np.testing.assert_allclose(picture[8:40, 8:56].mean((0, 1)), [value, 0, 0], atol=12)
        np.testing.assert_allclose(picture[8:40, 72:120].mean((0, 1)), [0, 0, value], atol=12)
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


@pytest.mark.parametrize(
    ("size", "shape"),
    [((31, 101), (62, 100)), ((33, 41), (32, 82)), ((200, LONGEST + 2), (200, LONGEST // 2)), ((20, 50), (40, 50))],
)
def test_wide_pictures_lie_below_one_another_and_large_ones_are_halved(tmp_path, size, shape):
    movie = Movie(tmp_path / "a.mp4", 10.0)
    movie.add(flat(10, *size), flat(20, *size))
    movie.close()
    height, width = read(tmp_path / "a.mp4")[1][0].shape[:2]
    assert (height, width) == shape


def test_what_is_abandoned_leaves_nothing(tmp_path):
    movie = Movie(tmp_path / "a.mp4", 10.0)
    movie.add(flat(10), flat(20))
    movie.abandon()
    assert list(tmp_path.iterdir()) == []
    Movie(tmp_path / "b.mp4", 10.0).close()
    assert list(tmp_path.iterdir()) == []


def test_a_film_that_cannot_be_written_is_said(tmp_path, monkeypatch):
    class Closed:
        def __init__(self, *_):
            pass

        def isOpened(self):
            return False

        release = isOpened

    monkeypatch.setattr(cv2, "VideoWriter", Closed)
    with pytest.raises(ConfigError, match=r"a.mp4 cannot be written as a video"):
        Movie(tmp_path / "a.mp4", 10.0).add(flat(1), flat(2))


def test_a_film_that_the_disk_has_no_room_for_is_said(tmp_path):
    """OpenCV writes on without a word."""
    movie, noise = Movie(tmp_path / "a.mp4", 10.0), np.random.default_rng(0).integers(0, 256, (60, 48, 64, 3), np.uint8)
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, limits[1]))
        for picture in noise:
            movie.add(picture, picture)
        with pytest.raises(ConfigError, match=r"a.mp4 could not be written to its end: make room on the disk, then run this"):
            movie.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    movie.abandon()
    assert list(tmp_path.iterdir()) == []


def test_a_film_as_slow_as_a_container_can_be(tmp_path):
    movie = Movie(tmp_path / "a.mp4", 0.001)
    movie.add(flat(10), flat(20))
    movie.close()
    assert read(tmp_path / "a.mp4")[0] == pytest.approx(0.01)
