import json
import runpy
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from dd_jax.config import ConfigError, DataConfig
from dd_jax.data import video_camera
from dd_jax.data.loader import open_split
from dd_jax.prepare.undistort import undistort

SCRIPT = Path(__file__).parents[2] / "scripts/prepare_video.py"
CAMERA, LENS = (150.0, 150.0, 81.0, 46.0), (-0.2, 0.02, 0.0, 0.001)


@pytest.fixture
def pictures(tmp_path):
    """Five pictures of 160 x 96 in a KITTI drive."""
    folder = tmp_path / "drive_extract/image_02/data"
    folder.mkdir(parents=True)
    for frame in range(5):
        image = np.random.default_rng(frame).integers(0, 256, (12, 20, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{frame:010d}.png"), cv2.resize(image, (160, 96), interpolation=cv2.INTER_CUBIC))
    return folder


def test_folder_is_undistorted_as_a_video_would_be(pictures, tmp_path):
    done = undistort(tmp_path / "drive_extract", tmp_path / "out", CAMERA, LENS, "png")
    camera, straighten = video_camera.undistortion(CAMERA, LENS, 160, 96)
    assert done.folder == tmp_path / "out/frames/drive_extract" and (done.count, done.size, done.camera) == (5, (96, 160), camera)
    for path in pictures.iterdir():
        expected = straighten(np.ascontiguousarray(cv2.imread(str(path))[..., ::-1]))
        np.testing.assert_array_equal(cv2.imread(str(done.folder / path.name))[..., ::-1], expected)
    written = json.loads((done.folder / "intrinsics.json").read_text())
    assert tuple(written[key] for key in ("fx", "fy", "cx", "cy")) == camera and camera[0] == pytest.approx(camera[1])
    source = open_split(DataConfig(source="folder", root=str(tmp_path / "out"), height=96, width=160), "train")
    np.testing.assert_allclose(source[0].K[[0, 1, 0, 1], [0, 1, 2, 2]], camera, rtol=1e-6)


def test_continued_and_other_settings(pictures, tmp_path):
    done = undistort(pictures, tmp_path / "out", CAMERA, LENS)
    (done.folder / "0000000003.jpg").unlink()
    (done.folder / "0000000002.jpg").write_bytes(b"kept")
    undistort(pictures, tmp_path / "out", CAMERA, LENS)
    assert (done.folder / "0000000003.jpg").is_file() and (done.folder / "0000000002.jpg").read_bytes() == b"kept"
    with pytest.raises(ConfigError, match=r"undistorted.json records other settings"):
        undistort(pictures, tmp_path / "out", CAMERA, (-0.1, 0.0, 0.0, 0.0))


def test_invalid_input_raises(pictures, tmp_path):
    for camera, lens in ((None, LENS), (CAMERA, ())):
        with pytest.raises(ConfigError, match="is a folder: give --intrinsics and --distortion to undistort its pictures"):
            undistort(pictures, tmp_path / "out", camera, lens)
    with pytest.raises(ConfigError, match=r"--intrinsics: .* likely those of a picture of about 240 x 144"):
        undistort(pictures, tmp_path / "out", tuple(1.5 * value for value in (150.0, 150.0, 79.67, 47.67)), LENS)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"empty has no .png, .jpg, .jpeg images"):
        undistort(tmp_path / "empty", tmp_path / "out", CAMERA, LENS)
    assert not (tmp_path / "out").exists()
    cv2.imwrite(str(pictures / "0000000003.png"), np.zeros((50, 60, 3), np.uint8))
    with pytest.raises(ConfigError, match=r"0000000003.png has 60 x 50 pixels, the first picture 160 x 96"):
        undistort(pictures, tmp_path / "out", CAMERA, LENS)
    (pictures / "0000000003.png").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"0000000003.png is damaged or cut off: replace or remove it, then run this again"):
        undistort(pictures, tmp_path / "out", CAMERA, LENS)


def test_script(pictures, tmp_path, monkeypatch, capsys):
    numbers = (",".join(map(str, values)) for values in (CAMERA, LENS))
    flags = [f"--out={tmp_path / 'out'}", *(f"--{name}={text}" for name, text in zip(("intrinsics", "distortion"), numbers))]
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), str(pictures), *flags])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    assert "out/frames/data: 5 pictures of 160 x 96, now with the camera " in capsys.readouterr().out
