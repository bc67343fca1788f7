"""A video has every frame, in order, and is written completely or not at all."""

import resource
import signal

import cv2
import numpy as np
import pytest

from dd_jax.config import ConfigError
from dd_jax.inference.video_writer import LONGEST, SideBySideVideo


def read(path):
    capture, images = cv2.VideoCapture(str(path)), []
    while (found := capture.read())[0]:
        images.append(found[1][..., ::-1])
    return capture.get(cv2.CAP_PROP_FPS), images


def flat(value, height=48, width=64):
    return np.full((height, width, 3), value, np.uint8)


def test_frames_side_by_side_in_order(tmp_path):
    video = SideBySideVideo(tmp_path / "a.mp4", 12.5)
    for value in (40, 120, 200):
        video.add(flat((value, 0, 0)), flat((0, 0, value)))
        assert not (tmp_path / "a.mp4").exists()
    video.close()
    video.abandon()  # no effect after close
    rate, images = read(tmp_path / "a.mp4")
    assert rate == pytest.approx(12.5) and [image.shape for image in images] == [(48, 128, 3)] * 3
    for image, value in zip(images, (40, 120, 200)):
        np.testing.assert_allclose(image[8:40, 8:56].mean((0, 1)), [value, 0, 0], atol=12)
        np.testing.assert_allclose(image[8:40, 72:120].mean((0, 1)), [0, 0, value], atol=12)
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


@pytest.mark.parametrize(
    ("size", "shape"),
    [((31, 101), (62, 100)), ((33, 41), (32, 82)), ((200, LONGEST + 2), (200, LONGEST // 2)), ((20, 50), (40, 50))],
)
def test_wide_frames_are_stacked_and_large_ones_halved(tmp_path, size, shape):
    video = SideBySideVideo(tmp_path / "a.mp4", 10.0)
    video.add(flat(10, *size), flat(20, *size))
    video.close()
    height, width = read(tmp_path / "a.mp4")[1][0].shape[:2]
    assert (height, width) == shape


def test_abandoned_video_leaves_no_file(tmp_path):
    video = SideBySideVideo(tmp_path / "a.mp4", 10.0)
    video.add(flat(10), flat(20))
    video.abandon()
    assert list(tmp_path.iterdir()) == []
    SideBySideVideo(tmp_path / "b.mp4", 10.0).close()
    assert list(tmp_path.iterdir()) == []


def test_unwritable_video_raises(tmp_path, monkeypatch):
    class Closed:
        def __init__(self, *_):
            pass

        def isOpened(self):
            return False

        release = isOpened

    monkeypatch.setattr(cv2, "VideoWriter", Closed)
    with pytest.raises(ConfigError, match=r"a.mp4 cannot be written as a video"):
        SideBySideVideo(tmp_path / "a.mp4", 10.0).add(flat(1), flat(2))


def test_full_disk_raises(tmp_path):
    """OpenCV reports no error."""
    video, noise = SideBySideVideo(tmp_path / "a.mp4", 10.0), np.random.default_rng(0).integers(0, 256, (60, 48, 64, 3), np.uint8)
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, limits[1]))
        for image in noise:
            video.add(image, image)
        with pytest.raises(ConfigError, match=r"a.mp4 was not written completely: free disk space, then run"):
            video.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    video.abandon()
    assert list(tmp_path.iterdir()) == []


def test_lowest_frame_rate(tmp_path):
    video = SideBySideVideo(tmp_path / "a.mp4", 0.001)
    video.add(flat(10), flat(20))
    video.close()
    assert read(tmp_path / "a.mp4")[0] == pytest.approx(0.01)
