import math
import struct

import av
import numpy as np
import pytest

from dd_jax.config import ConfigError
from dd_jax.data import video_camera


def movie(path, value, key=video_camera.FOCAL_KEY):
    """A QuickTime or MP4 file of one frame with one item of metadata, written as Apple does."""
    with av.open(str(path), "w", options={"movflags": "use_metadata_tags"}) as container:
        container.metadata[key] = value
        stream = container.add_stream("mpeg4", rate=10, width=64, height=32, pix_fmt="yuv420p")
        container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((32, 64, 3), np.uint8), format="rgb24")))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("name", ["clip.mov", "clip.mp4"])
@pytest.mark.parametrize("value", ["26", "26.000000"])
def test_focal_length_from_metadata(tmp_path, name, value):
    (focal, _, cx, cy), text = video_camera.guess(movie(tmp_path / name, value), 1920, 1080)
    assert focal == pytest.approx(26 / 36 * 1920) and (cx, cy) == (959.5, 539.5)
    assert "69 degrees" in text and "26 mm" in text


@pytest.mark.parametrize(("kind", "value"), [(21, b"\x1a"), (22, b"\x00\x1a"), (23, struct.pack(">f", 26)), (1, b"26")])
def test_focal_length_of_each_quicktime_type(tmp_path, kind, value):
    """Well-known types of the QuickTime File Format: integers, float and text."""
    path = movie(tmp_path / "clip.mov", "x" * (len(value)))
    data = path.read_bytes()
    text = struct.pack(">I4sII", 16 + len(value), b"data", 1, 0) + b"x" * len(value)
    assert data.count(text) == 1
    path.write_bytes(data.replace(text, text[:8] + struct.pack(">II", kind, 0) + value))
    assert "26 mm" in video_camera.guess(path, 1920, 1080)[1]


def test_portrait_and_landscape_share_the_focal_length(tmp_path):
    path = movie(tmp_path / "clip.mov", "26")
    assert video_camera.guess(path, 1080, 1920)[0][0] == video_camera.guess(path, 1920, 1080)[0][0]


def test_default_field_of_view_without_metadata(tmp_path):
    text, cut = tmp_path / "text.mov", tmp_path / "cut.mov"
    text.write_text("no video")
    cut.write_bytes(movie(tmp_path / "whole.mov", "26").read_bytes()[:-300])
    cases = [movie(tmp_path / "other.mov", "26", key="com.example.other"), movie(tmp_path / "silly.mov", "0")]
    cases += [movie(tmp_path / "words.mov", "wide"), text, cut, tmp_path / "absent.mov", tmp_path]
    for path in cases:
        camera, text = video_camera.guess(path, 960, 540)
        assert camera == pytest.approx(video_camera.from_fov(60.0, 960, 540)), path
        assert "no focal length" in text


def test_field_of_view_spans_outer_pixel_edges():
    fx, fy, cx, _ = video_camera.from_fov(90.0, 200, 100)
    assert fx == fy == pytest.approx(100)
    assert math.degrees(math.atan((199.5 - cx) / fx) - math.atan((-0.5 - cx) / fx)) == pytest.approx(90)


CAMERA, SIZE = (150.0, 152.0, 101.0, 60.0), (200, 120)


def scene(x, y):
    """Grey value as a function of the normalised ray."""
    return np.uint8(127 + 60 * np.sin(9 * x) * np.cos(7 * y) + 60 * np.sin(5 * x + 3 * y))


def brown(x, y, k1, k2, p1, p2, k3=0.0):
    """Distorted position of a normalised ray (Brown 1966)."""
    square = x * x + y * y
    radial = 1 + k1 * square + k2 * square**2 + k3 * square**3
    return (
        x * radial + 2 * p1 * x * y + p2 * (square + 2 * x * x),
        y * radial + p1 * (square + 2 * y * y) + 2 * p2 * x * y,
    )


@pytest.mark.parametrize("coefficients", [(-0.2, 0.05, 0.001, -0.002), (0.15, -0.02, 0.0, 0.001, 0.01)])
def test_undistorted_image_matches_new_intrinsics(coefficients):
    """A scene seen through the lens and undistorted equals the scene seen by a pinhole camera with the returned intrinsics."""
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
    assert np.mean(np.abs(seen[..., 0].astype(int) - scene(*rays(CAMERA)))) > 2  # the distortion is visible


@pytest.mark.parametrize(
    ("camera", "coefficients", "size"),
    [
        ((959.791, 956.9251, 696.0217, 224.1806), (-0.3691481, 0.1968681, 0.001353473, 0.0005677587, -0.06770705), (1392, 512)),
        ((150.0, 152.0, 101.0, 60.0), (0.15, -0.02, 0.0, 0.001), (200, 120)),
        ((150.0, 300.0, 60.0, 101.0), (-0.2, 0.05, 0.001, -0.002), (120, 200)),
    ],
)
def test_undistortion_keeps_the_proportions_of_pixels(camera, coefficients, size):
    """The first is the lens of KITTI's camera 2."""
    (fx, fy, cx, cy), straighten = video_camera.undistortion(camera, coefficients, *size)
    assert fx / fy == pytest.approx(camera[0] / camera[1])
    assert 0.7 < fx / camera[0] < 1.4 and abs(cx / size[0] - 0.5) < 0.1 and abs(cy / size[1] - 0.5) < 0.1
    inner = np.zeros((size[1], size[0], 3), np.uint8)
    inner[1:-1, 1:-1] = 255
    assert np.mean(straighten(inner) > 0) > 0.98  # no empty borders


def test_zero_distortion_is_identity(picture):
    camera, straighten = video_camera.undistortion(CAMERA, (0.0, 0.0, 0.0, 0.0), *SIZE)
    np.testing.assert_allclose(camera, CAMERA, atol=1.5)
    image = picture(0, 120, 200)
    assert np.abs(straighten(image).astype(int) - image).mean() < 3


def test_folding_distortion_raises():
    with pytest.raises(ConfigError, match=r"--distortion=-5,0,0,0 leaves .* of the image empty: check"):
        video_camera.undistortion(CAMERA, (-5.0, 0.0, 0.0, 0.0), *SIZE)
