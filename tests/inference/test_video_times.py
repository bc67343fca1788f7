"""Metres, trajectory and ranges of a video follow its time stamps; what decoding shows wrong reaches the user."""

import json
import runpy
from pathlib import Path

import made_videos
import numpy as np
import pytest
import tiny

from dd_jax.inference import inputs
from dd_jax.inference.metric_scale import Prediction, Scaler, Speed

SCRIPT = Path(__file__).parents[2] / "scripts/predict.py"
PICTURES = made_videos.views(9)
PAUSED = [place / 10 + 60 * (place >= 5) for place in range(9)]
EVAL = tiny.config(eval={"crop": "none"}).eval


def write(path, pictures=PICTURES, seconds=None):
    """Every frame is coded for itself and alike, so that neither times nor other frames change it."""
    return made_videos.write(path, pictures, "mjpeg", seconds, "yuvj420p", strict="-1", qmin="3", qmax="3")


def test_source_has_the_times_of_the_container(tmp_path):
    regular = inputs.open_source([str(write(tmp_path / "regular.mkv"))])
    assert regular.seconds is None and regular.rate == 10 and regular.findings == []
    path = str(write(tmp_path / "paused.mkv", seconds=PAUSED))
    paused = inputs.open_source([path])
    assert paused.seconds == pytest.approx(PAUSED) and paused.rate == pytest.approx(10) and len(paused.findings) == 1
    stated = inputs.open_source([path], rate=5.0)
    assert stated.seconds is None and stated.rate == 5.0
    last = inputs.open_source([path], chosen=slice(-3, None))
    assert last.names == ["000006", "000007", "000008"] and last.rate == pytest.approx(10)


def factors(scale, frame_step=1):
    T = np.eye(4, dtype=np.float32)
    T[2, 3] = 0.5
    moved = Prediction(np.ones((2, 2), np.float32), T, "student")
    still = Prediction(moved.inverse_depth, None, "teacher")
    scaler = Scaler(scale, EVAL, frame_step)
    return [scaler.factor(moved if place >= frame_step else still, np.eye(3, dtype=np.float32)) for place in range(9)]


@pytest.mark.parametrize("frame_step", [1, 2])
def test_pause_does_not_change_metres(frame_step):
    """One interval of a minute among those of 0.1 s; a mean rate would make everything 60 times as large."""
    expected = factors(Speed(3.0, rate=10.0), frame_step)
    assert factors(Speed(3.0, rate=0.15, seconds=PAUSED), frame_step) == pytest.approx(expected)


def test_equal_times_give_the_metres_of_the_rate():
    seconds = [place / 8 for place in range(9)]
    assert factors(Speed(3.0, 8.0, seconds)) == factors(Speed(3.0, 8.0))
    assert factors(Speed(3.0, 8.0, [*seconds[:4], np.nan, *seconds[5:]])) == factors(Speed(3.0, 8.0))


def test_script_uses_time_stamps_and_names_blank_and_repeated_frames(tmp_path, capsys, monkeypatch):
    tiny.share_compiled_prediction(monkeypatch)
    tiny.model().save(tmp_path / "model")
    shown = PICTURES.copy()
    shown[3], shown[7] = 0, shown[6]
    main = runpy.run_path(str(SCRIPT))["main"]
    for name, seconds in (("regular", None), ("paused", PAUSED)):
        clip = write(tmp_path / f"{name}.mkv", shown, seconds)
        flags = ["--fov=60", "--save=npy,trajectory", "--speed=3"]
        main([str(clip), f"--checkpoint={tmp_path / 'model'}", f"--out={tmp_path / name}", *flags])
        printed = capsys.readouterr().out
        assert f"warning: 1 of 9 frames are black, first frame 3 of {clip}: do not trust their depth" in printed
        assert f"warning: 1 of 9 frames are equal to the one before, first frame 7 of {clip}: " in printed
        assert (f"warning: the frame rate of {clip} varies" in printed) == (name == "paused")
    for frame in range(9):
        regular, paused = (np.load(tmp_path / f"{name}/depth/{frame:06d}.npy") for name in ("regular", "paused"))
        np.testing.assert_allclose(paused, regular, rtol=1e-6 if frame < 5 else 0.3)  # one ratio more in their median
    stamps = np.loadtxt(tmp_path / "paused/trajectory_tum.txt")[:, 0]
    assert stamps == pytest.approx(PAUSED) and json.loads((tmp_path / "paused/predict.json").read_text())["rate"] == 10
