import dataclasses
import math
from pathlib import Path

import cv2
import numpy as np
import pytest

from dd_jax.config import ConfigError
from dd_jax.prepare.video import DELETED, KEPT, RESIZED, STATIC, UNREADABLE, Prepared, Row
from dd_jax.prepare.video_report import check_image, sentences


def prepared(count=20, motion=0.012, parallax=0.5, sharpness=100.0, **changes):
    rows = [Row(0, KEPT, math.nan, math.nan, sharpness)]
    rows += [Row(number, KEPT, motion, parallax, sharpness) for number in range(1, count)]
    values = {"rate": 10.0, "every": 1, "width": 160, "height": 96, "camera": "", "missing": 0}
    return Prepared(Path("frames"), rows, **(values | changes))


def line(found, topic):
    (one,) = (text for text in sentences(found) if text.startswith(f"{topic}:"))
    return one


def test_good_video_without_advice():
    text = "\n".join(sentences(prepared()))
    assert "20 kept of 20" in text and "0.1 s apart" in text and "which is fine" in text and "100% of the frames" in text
    assert "0 of 20 frames are blurred" in text and "160 x 96 in all frames" in text
    assert "try" not in text and "damage" not in text and "camera:" not in text


@pytest.mark.parametrize(
    ("motion", "every", "advice"),
    [
        (0.003, 1, "which is little: try --every=4"),
        (0.0408, 3, "which is much: try --every=1"),
        (0.06, 1, "which is much, but no other --every comes closer"),
        (math.inf, 1, "unknown, too few corners"),
    ],
)
def test_advice_on_step_from_motion(motion, every, advice):
    assert advice in line(prepared(motion=motion, every=every), "motion")


def test_rotating_camera_reported():
    assert "gives no depth signal" in line(prepared(parallax=0.02), "parallax")
    assert not [text for text in sentences(prepared(parallax=math.nan)) if text.startswith("parallax")]


def test_blurred_frames_counted():
    found = prepared()
    found.rows[7] = dataclasses.replace(found.rows[7], sharpness=20.0)
    assert line(found, "sharpness").endswith("1 of 20 frames are blurred compared with their neighbours, the first is 000007")


def test_damage_counted():
    found = prepared(missing=5)
    found.rows.extend([Row(20, UNREADABLE), Row(21, RESIZED), Row(22, RESIZED), Row(23, STATIC, 0.0, 0.0, 100.0)])
    text = "\n".join(sentences(found))
    assert "1 left out (static camera)" in text and "unreadable: 1 frames cannot be decoded" in text
    assert "resized: 2 frames have another size" in text and "the first is 000021" in text
    assert "ends 5 frames before" in text


def test_deleted_frames_counted():
    found = prepared()
    for place in (5, 6):
        found.rows[place] = dataclasses.replace(found.rows[place], outcome=DELETED)
    assert line(found, "frames").startswith("frames: 18 kept of 20 checked")
    assert line(found, "deleted").startswith("deleted: 2 frames have been deleted since they were extracted")


def test_guess_and_too_few_frames_reported():
    assert "guessed 60" in line(prepared(camera="guessed 60"), "camera")
    assert "training needs three in a row" in line(prepared(count=2), "frames")
    assert check_image(prepared(count=2)) is None


@pytest.mark.parametrize(("every", "word"), [(1, ""), (2, "2nd "), (3, "3rd "), (4, "4th "), (11, "11th "), (21, "21st ")])
def test_ordinal_of_step(every, word):
    assert f"every {word}frame taken" in line(prepared(every=every), "frame rate")


def test_check_picture_shows_median_motion(tmp_path, picture):
    found = dataclasses.replace(prepared(count=6), folder=tmp_path)
    for number, moved in enumerate((0.001, 0.09, 0.02, 0.03)):
        found.rows[number + 1] = dataclasses.replace(found.rows[number + 1], motion=moved)
    for number in range(6):
        cv2.imwrite(str(tmp_path / f"{number:06d}.png"), np.full((96, 160, 3), 10 * number, np.uint8))
    shown = check_image(found)
    assert shown.shape == (3 * 96 + 8, 2 * 160 + 4, 3)
    assert [int(value) for value in (shown[80, 80, 0], shown[80, 250, 0], shown[180, 80, 0])] == [40, 30, 50]
    for number in range(6):
        (tmp_path / f"{number:06d}.png").write_bytes(b"damaged")
    with pytest.raises(ConfigError, match=r"the frame .*\.png cannot be decoded any more: remove the folder to extract"):
        check_image(found)
