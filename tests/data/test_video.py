import json
import math
import runpy
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from dd_jax.config import ConfigError, DataConfig
from dd_jax.data import video
from dd_jax.data.loader import open_split

SCRIPT = Path(__file__).parents[2] / "scripts/prepare_video.py"


@pytest.fixture
def clip(tmp_path, picture):
    """A view sliding over a wide picture: it moves for 10 frames, stands for 8, moves for 6. A block crosses it all along."""

    def write(name="drive.avi", height=96, width=160):
        path = tmp_path / name
        wide = picture(0, height, width * 2)
        noise = np.random.default_rng(1).integers(0, 256, (height // 4, width // 2), dtype=np.uint8)
        wide = wide // 2 + cv2.resize(noise, (width * 2, height))[..., None] // 2
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (width, height))
        assert writer.isOpened()
        offset = 0
        for frame in range(24):
            view = wide[:, offset : offset + width].copy()
            view[40:60, frame * 5 : frame * 5 + 20] = (0, 0, 255)
            writer.write(view)
            offset += 0 if 9 <= frame < 17 else 3
        writer.release()
        return path

    return write


def names(folder):
    return sorted(path.stem for path in folder.iterdir() if path.suffix != ".json")


def test_frames_of_a_standing_camera_are_left_out(clip, tmp_path):
    result = video.prepare(clip(), tmp_path / "out", fov=60.0)
    assert names(result.folder) == [f"{frame:06d}" for frame in [*range(10), *range(18, 24)]]
    assert (result.kept, result.static) == (16, 8)


def test_what_is_written_can_be_trained_on(clip, tmp_path):
    video.prepare(clip(), tmp_path / "out", fov=60.0)
    video.prepare(clip("second.avi"), tmp_path / "out", intrinsics=(100.0, 101.0, 80.0, 48.0))
    source = open_split(DataConfig(source="folder", root=str(tmp_path / "out"), height=96, width=160), "train")
    focal = 80 / math.tan(math.radians(30))
    np.testing.assert_allclose(source[0].K, [[focal, 0, 79.5], [0, focal, 47.5], [0, 0, 1]], rtol=1e-5)
    np.testing.assert_allclose(source[len(source) - 1].K, [[100, 0, 80], [0, 101, 48], [0, 0, 1]], rtol=1e-5)
    assert source.name(0) == "drive 000001" and source[0].exists.all()


def test_every_start_and_end_choose_frames(clip, tmp_path):
    result = video.prepare(clip(), tmp_path / "out", fov=60.0, every=2, start=0.4, end=2.0, min_motion=0.0, suffix="png")
    assert names(result.folder) == [f"{frame:06d}" for frame in range(4, 20, 2)] and result.static == 0
    assert (result.folder / "000004.png").is_file()


def test_motion_is_the_pictures_shift(picture):
    noise = np.random.default_rng(0).integers(0, 256, (40, 60), dtype=np.uint8)
    wide = cv2.resize(noise, (240, 160), interpolation=cv2.INTER_CUBIC)
    assert video.motion(wide[:, :200], wide[:, 4:204]) == pytest.approx(4 / 200, rel=0.05)
    assert video.motion(wide, wide) < 1e-4
    blank = np.zeros((40, 60), np.uint8)
    assert video.motion(blank, blank) == math.inf


def test_what_cannot_be_read_is_refused_in_one_sentence(clip, tmp_path):
    (tmp_path / "text.mp4").write_text("no video")
    for name in ("text.mp4", "absent.mp4"):
        with pytest.raises(ConfigError, match=f"{name} cannot be read as a video"):
            video.prepare(tmp_path / name, tmp_path / "out", fov=60.0)
    path = clip()
    with pytest.raises(ConfigError, match=r"--fov=200"):
        video.prepare(path, tmp_path / "out", fov=200.0)
    with pytest.raises(ConfigError, match=r"--intrinsics.*cx=200.*160 x 96"):
        video.prepare(path, tmp_path / "out", intrinsics=(100.0, 100.0, 200.0, 48.0))
    with pytest.raises(ConfigError, match=r"either --fov"):
        video.prepare(path, tmp_path / "out")
    with pytest.raises(ConfigError, match=r"no frame between --start=9"):
        video.prepare(path, tmp_path / "out", fov=60.0, start=9.0)
    with pytest.raises(ConfigError, match=r"--every=0"):
        video.prepare(path, tmp_path / "out", fov=60.0, every=0)
    video.prepare(path, tmp_path / "out", fov=60.0)
    with pytest.raises(ConfigError, match=r"drive holds files already"):
        video.prepare(path, tmp_path / "out", fov=60.0)


def test_the_script_says_what_it_did(clip, tmp_path, capsys):
    main = runpy.run_path(str(SCRIPT))["main"]
    main([str(clip()), "--out", str(tmp_path / "out"), "--intrinsics=100,101,80,48", "--every", "3"])
    assert "6 frames kept, 2 left out" in capsys.readouterr().out
    assert json.loads((tmp_path / "out/frames/drive/intrinsics.json").read_text())["fy"] == 101


def test_the_script_fails_with_one_line(tmp_path):
    path = tmp_path / "text.mp4"
    path.write_text("no video")
    run = subprocess.run([sys.executable, SCRIPT, path, "--out", tmp_path, "--fov=60"], capture_output=True, text=True)
    assert run.returncode == 1 and run.stderr == f"error: {path} cannot be read as a video\n"
