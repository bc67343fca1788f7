import logging
from pathlib import Path

import numpy as np
import pytest
from odd_pictures import upright
from PIL import Image

from dd_jax.config import ConfigError
from dd_jax.data import camera_check, video_camera

KITTI = (721.5377, 721.5377, 609.5593, 172.854)


def in_pixels_of(camera, size, other):
    """A camera of pictures of ``size`` (width, height), in pixels of these pictures resized to ``other``."""
    fx, fy, cx, cy = camera
    sx, sy = other[0] / size[0], other[1] / size[1]
    return fx * sx, fy * sy, (cx + 0.5) * sx - 0.5, (cy + 0.5) * sy - 0.5


@pytest.mark.parametrize("other", [(240, 135), (192, 108), (480, 270), (640, 360), (1280, 720), (3840, 2160)])
def test_intrinsics_of_another_size_are_named(other):
    camera = video_camera.from_fov(64.0, *other)
    with pytest.raises(ConfigError, match=rf"flag: .* of about {other[0]} x {other[1]}: give all four in pixels of 320 x 180, "):
        camera_check.check_intrinsics(*camera, (180, 320), "flag")


@pytest.mark.parametrize("other", [(416, 128), (640, 192), (832, 256), (1024, 320), (621, 188), (1920, 580)])
def test_kitti_camera_at_another_size_is_named(other):
    camera = in_pixels_of(KITTI, (1242, 375), other)
    with pytest.raises(ConfigError, match="likely those of a picture of about"):
        camera_check.check_intrinsics(*camera, (375, 1242), "K")
    camera_check.check_intrinsics(*camera, other[::-1], "K")


@pytest.mark.parametrize(
    ("camera", "size"),
    [
        (KITTI, (375, 1242)),
        ((718.335, 718.335, 600.389, 181.512), (374, 1238)),
        ((721.5377, 721.5377, 596.5593, 149.854), (352, 1216)),  # KITTI's benchmark crop, with its own camera
        ((2262.52, 2265.3, 1096.98, 513.137), (1024, 2048)),
        ((2262.52, 2265.3, 1096.98, 513.137), (768, 2048)),  # without the bonnet
        ((959.791, 956.925, 696.02, 224.18), (512, 1392)),
        ((1500.0, 1500.0, 860.0, 480.0), (1080, 1920)),  # phones, 4 to 6 % off centre
        ((1500.0, 1500.0, 1060.0, 610.0), (1080, 1920)),
        ((800.0, 800.0, 639.5, 500.0), (720, 1280)),  # far off in one direction only, as after cutting off the sky
        ((800.0, 800.0, 639.5, 200.0), (720, 1280)),
    ],
)
def test_usual_cameras_are_accepted(camera, size):
    camera_check.check_intrinsics(*camera, size, "K")


def test_intrinsics_of_the_picture_before_it_was_turned_are_named():
    with pytest.raises(ConfigError, match=r"K: .* is that of a picture of 1920 x 1080, but this one is 1080 x 1920"):
        camera_check.check_intrinsics(1500.0, 1500.0, 970.0, 530.0, (1920, 1080), "K")


def test_fractions_of_the_size_are_named():
    with pytest.raises(ConfigError, match=r"K has the focal length fx=0.58 .* give it in pixels of the frame, not as a fraction"):
        camera_check.check_intrinsics(0.58, 1.92, 0.5, 0.5, (375, 1242), "K")


def check(size, raw=None):
    camera_check.check_pictures(Path("x.png"), size, (375, 1242), "calib.txt", raw)


@pytest.mark.parametrize("size", [(352, 1216), (370, 1224), (375, 1200), (350, 1242), (176, 1000)])
def test_cropped_pictures_are_refused(size):
    with pytest.raises(ConfigError, match=rf"x.png has {size[1]} x {size[0]} pixels, but calib.txt is for 1242 x 375: .* crop"):
        check(size, raw=(512, 1392))


@pytest.mark.parametrize("size", [(512, 1392), (256, 696), (480, 1304)])
def test_unrectified_pictures_are_refused(size):
    with pytest.raises(ConfigError, match=r"is for 1242 x 375: the pictures are distorted, not rectified"):
        check(size, raw=(512, 1392))
    if size[1] > 1242:
        with pytest.raises(ConfigError, match="not rectified"):
            check(size)


@pytest.mark.parametrize(("size", "words"), [((375, 1242), ""), ((188, 621), ""), ((192, 640), ""), ((320, 1024), "resized"),
                                             ((128, 416), "resized"), ((376, 1241), "another date")])  # fmt: skip
def test_resized_pictures_are_accepted_and_doubts_named(size, words, caplog):
    with caplog.at_level(logging.WARNING):
        check(size, raw=(512, 1392))
    assert bool(words) == bool(caplog.text)
    assert words.removeprefix("an") in caplog.text.replace("of another", "other")


def test_size_in_header_after_orientation(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no image")
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(tmp_path / "b.png")
    upright(tmp_path / "c.jpg", 48, 80)
    assert camera_check.picture_size([tmp_path / "a.png", tmp_path / "absent.png"]) is None
    assert camera_check.picture_size([tmp_path / "a.png", tmp_path / "b.png"]) == (tmp_path / "b.png", (20, 30))
    assert camera_check.picture_size([tmp_path / "c.jpg"]) == (tmp_path / "c.jpg", (80, 48))
