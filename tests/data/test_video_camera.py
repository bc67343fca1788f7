import math
import struct

import numpy as np
import pytest

from dd_jax.config import ConfigError
from dd_jax.data import video_camera


def box(kind, content):
    return struct.pack(">I4s", len(content) + 8, kind) + content


def movie(path, kind, value, iso=False, name=video_camera.FOCAL_KEY, large=False):
    """The skeleton of a QuickTime or an ISO file with one item of metadata, behind another key."""
    names = [b"com.apple.quicktime.make", name]
    keys = box(b"keys", struct.pack(">II", 0, 2) + b"".join(struct.pack(">I4s", len(n) + 8, b"mdta") + n for n in names))
    data = box(b"data", struct.pack(">II", kind, 0) + value)
    maker = box(b"data", struct.pack(">II", 1, 0) + b"Maker")
    items = box(b"ilst", box(struct.pack(">I", 1), maker) + box(struct.pack(">I", 2), data))
    meta = box(b"meta", (bytes(4) if iso else b"") + box(b"hdlr", bytes(24)) + keys + items)
    pixels = struct.pack(">I4sQ", 1, b"mdat", 24) + bytes(8) if large else box(b"mdat", bytes(100))
    path.write_bytes(box(b"ftyp", b"qt  ") + pixels + box(b"moov", box(b"mvhd", bytes(100)) + meta))
    return path


@pytest.mark.parametrize("iso", [False, True])
@pytest.mark.parametrize(
    ("kind", "value"), [(21, b"\x1a"), (22, b"\x00\x1a"), (23, struct.pack(">f", 26)), (24, struct.pack(">d", 26)), (1, b"26")]
)
def test_focal_length_is_read_from_quicktime_and_iso_files(tmp_path, iso, kind, value):
    path = movie(tmp_path / "clip.mov", kind, value, iso, large=iso)
    assert video_camera.focal_of_metadata(path) == 26
    (focal, _, cx, cy), text = video_camera.guess(path, 1920, 1080)
    assert focal == pytest.approx(26 / 36 * 1920) and (cx, cy) == (959.5, 539.5)
    assert "69 degrees" in text and "26 mm" in text


def test_upright_videos_have_the_same_focal_length(tmp_path):
    path = movie(tmp_path / "clip.mov", 21, b"\x1a")
    assert video_camera.guess(path, 1080, 1920)[0][0] == video_camera.guess(path, 1920, 1080)[0][0]


def test_a_file_that_says_nothing_is_assumed_to_see_sixty_degrees(tmp_path):
    cases = [movie(tmp_path / "other.mov", 21, b"\x1a", name=b"com.example.other"), movie(tmp_path / "silly.mov", 21, b"\x00")]
    cases += [tmp_path / "text.mov", tmp_path / "cut.mov", tmp_path / "absent.mov", movie(tmp_path / "words.mov", 1, b"wide")]
    cases[2].write_text("no video")
    whole = movie(tmp_path / "whole.mov", 21, b"\x1a").read_bytes()
    cases[3].write_bytes(whole[:-30])
    for path in cases:
        camera, text = video_camera.guess(path, 960, 540)
        assert camera == pytest.approx(video_camera.from_fov(60.0, 960, 540)), path
        assert "no focal length" in text


def test_field_of_view_is_the_angle_between_the_outer_edges():
    fx, fy, cx, _ = video_camera.from_fov(90.0, 200, 100)
    assert fx == fy == pytest.approx(100)
    assert math.degrees(math.atan((199.5 - cx) / fx) - math.atan((-0.5 - cx) / fx)) == pytest.approx(90)


CAMERA, SIZE = (150.0, 152.0, 101.0, 60.0), (200, 120)


def scene(x, y):
    """A picture as a function of the normalised ray."""
    return np.uint8(127 + 60 * np.sin(9 * x) * np.cos(7 * y) + 60 * np.sin(5 * x + 3 * y))


def brown(x, y, k1, k2, p1, p2, k3=0.0):
    """Where the lens shows a ray (Brown 1966)."""
    square = x * x + y * y
    radial = 1 + k1 * square + k2 * square**2 + k3 * square**3
    return (
        x * radial + 2 * p1 * x * y + p2 * (square + 2 * x * x),
        y * radial + p1 * (square + 2 * y * y) + 2 * p2 * x * y,
    )


@pytest.mark.parametrize("coefficients", [(-0.2, 0.05, 0.001, -0.002), (0.15, -0.02, 0.0, 0.001, 0.01)])
def test_undistorted_pictures_are_those_of_the_new_camera(coefficients):
    """A scene seen through the lens, undistorted, is the scene seen by a pinhole with the camera that is returned."""
    u, v = np.meshgrid(np.arange(SIZE[0]), np.arange(SIZE[1]))

    def rays(camera):
        fx, fy, cx, cy = camera
        return (u - cx) / fx, (v - cy) / fy

    distorted = x, y = rays(CAMERA)
    for _ in range(100):  # Brown's model, solved for the ray by fixed-point iteration
        bent = brown(x, y, *coefficients)
        x, y = x + distorted[0] - bent[0], y + distorted[1] - bent[1]
    np.testing.assert_allclose(brown(x, y, *coefficients), distorted, atol=1e-9)
    seen = np.repeat(scene(x, y)[..., None], 3, axis=-1)
    camera, straighten = video_camera.undistortion(CAMERA, coefficients, *SIZE)
    error = np.abs(straighten(seen)[..., 0].astype(int) - scene(*rays(camera)))
    assert np.mean(error) < 1.0
    assert np.mean(np.abs(seen[..., 0].astype(int) - scene(*rays(CAMERA)))) > 2  # the lens does something


def test_no_distortion_changes_nothing(picture):
    camera, straighten = video_camera.undistortion(CAMERA, (0.0, 0.0, 0.0, 0.0), *SIZE)
    np.testing.assert_allclose(camera, CAMERA, atol=1.5)
    image = picture(0, 120, 200)
    assert np.abs(straighten(image).astype(int) - image).mean() < 3


def test_coefficients_that_fold_the_picture_are_refused():
    with pytest.raises(ConfigError, match=r"--distortion=-5,0,0,0 leaves .* of the picture empty: check"):
        video_camera.undistortion(CAMERA, (-5.0, 0.0, 0.0, 0.0), *SIZE)
