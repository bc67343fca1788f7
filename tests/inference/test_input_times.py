"""Times of frames: from the files of KITTI, from names, or a constant rate; and what depends on them."""

import logging
import shutil

import cv2
import numpy as np
import pytest
import tiny

from dd_jax.config import EvalConfig
from dd_jax.inference import inputs
from dd_jax.inference.metric_scale import Prediction, Scaler, Speed


@pytest.fixture(scope="module")
def rendered(drives):
    return next(drives.glob("*/*_sync"))


@pytest.fixture
def drive(rendered, tmp_path):
    """A rendered drive of 12 frames in which ``stamps`` sets the times."""
    shutil.copytree(rendered.parent, tmp_path / rendered.parent.name)
    return tmp_path / rendered.parent.name / rendered.name


def stamps(drive, seconds):
    lines = [f"2011-09-26 13:02:{25 + second:012.9f}\n" for second in seconds]
    (drive / "image_02/timestamps.txt").write_text("".join(lines))


def test_time_stamps_of_a_drive(drive):
    stamps(drive, 0.104 * np.arange(12))
    source = inputs.open_source([str(drive)])
    np.testing.assert_allclose(source.seconds, 0.104 * np.arange(12), atol=1e-9)
    assert source.rate == pytest.approx(1 / 0.104)
    part = inputs.open_source([str(drive)], chosen=slice(2, 9, 3))
    np.testing.assert_allclose(part.seconds, [0, 0.312, 0.624], atol=1e-9)
    assert part.rate == pytest.approx(1 / 0.312)
    given = inputs.open_source([str(drive)], rate=5.0)
    assert given.seconds is None and given.rate == 5


def test_time_stamps_at_the_nominal_rate_change_nothing(drive):
    source = inputs.open_source([str(drive)])
    assert source.seconds is None and source.rate == 10
    assert inputs.open_source([str(drive)], chosen=slice(1, None, 2)).rate == 5


def test_gap_is_named_and_has_its_time(drive, caplog):
    for frame in range(4, 8):
        (drive / f"image_02/data/{frame:010d}.png").unlink()
    with caplog.at_level(logging.WARNING):
        source = inputs.open_source([str(drive)])
    np.testing.assert_allclose(source.seconds, [0, 0.1, 0.2, 0.3, 0.8, 0.9, 1.0, 1.1], atol=1e-9)
    assert "0.5 s pass between the frames 0000000003 and 0000000008, 0.1 s between most" in caplog.text


def test_absent_time_stamps_are_named_and_the_rate_assumed(drive, caplog):
    (drive / "image_02/timestamps.txt").unlink()
    with caplog.at_level(logging.WARNING):
        source = inputs.open_source([str(drive)])
    assert source.seconds is None and source.rate == 10
    assert "image_02/timestamps.txt does not exist: 10 frames per second are assumed, give --rate" in caplog.text
    caplog.clear()
    inputs.open_source([str(drive)], rate=9.6)
    inputs.open_source([str(drive / "image_02/data/0000000003.png")])
    assert not caplog.text


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_times_in_names_are_used_for_order_and_time(tmp_path, suffix):
    frames = tiny.frames(3, height=48, width=80)
    for name, frame in zip(("1341846313.5", "1341846313.532", "1341846313.6"), frames):
        cv2.imwrite(str(tmp_path / f"{name}{suffix}"), frame)
    for given in (tmp_path, tmp_path / f"*{suffix}"):
        source = inputs.open_source([str(given)])
        assert source.names == ["1341846313.5", "1341846313.532", "1341846313.6"]
        assert source.seconds == [0, 0.032, 0.1] and source.rate == pytest.approx(20)


def test_speed_uses_the_times(drive):
    """The same speed over twice the time is twice the distance."""
    T = np.eye(4, dtype=np.float32)
    T[2, 3] = 0.5
    predictions = [Prediction(np.ones((4, 6), np.float32), pose, "student") for pose in (None, T, T)]
    factors = {}
    for interval in (0.1, 0.2):
        stamps(drive, interval * np.arange(12))
        source = inputs.open_source([str(drive)])
        scaler = Scaler(Speed(inputs.speeds_of(source), source.rate, source.seconds), EvalConfig())
        factors[interval] = [scaler.factor(prediction, np.eye(3, dtype=np.float32)) for prediction in predictions][-1]
    assert factors[0.2] == pytest.approx(2 * factors[0.1])
