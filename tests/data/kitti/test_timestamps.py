import itertools
import logging

import pytest

from dd_jax.data.kitti import timestamps

RAW = "".join(
    f"2011-09-{day} {clock}.{tenth}03514{tenth:03d}\n"
    for day, clock, tenths in ((26, "23:59:59", 10), (27, "00:00:00", 4))
    for tenth in range(tenths)
)
"""14 frames around midnight."""


def differences(times):
    return [round(float(later - earlier), 3) for earlier, later in itertools.pairwise(times)]


def test_frame_number_is_line_number(tmp_path, caplog):
    path = tmp_path / "timestamps.txt"
    path.write_text(RAW)
    with caplog.at_level(logging.WARNING):
        times = timestamps.seconds_of(path, ["0000000008", "0000000009", "0000000010", "0000000013"])
    assert differences(times) == [0.1, 0.1, 0.3]
    assert not caplog.text


def test_odometry_times_are_seconds(tmp_path):
    path = tmp_path / "times.txt"
    path.write_text("0.000000e+00\n1.037359e-01\n2.074718e-01\n")
    assert differences(timestamps.seconds_of(path, ["000000", "000001", "000002"])) == [0.104, 0.104]


def test_one_line_per_frame_fits_a_later_part_of_a_drive(tmp_path):
    path = tmp_path / "timestamps.txt"
    path.write_text("0\n0.2\n0.5\n")
    assert differences(timestamps.seconds_of(path, ["16", "17", "18"])) == [0.2, 0.3]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "timestamps.txt does not exist: 10 frames per second are assumed, give --rate"),
        ("0\n0.1\n", "it has 2 lines, but there is a frame 7"),
        ("0\n0.1\n0.2\n0.2\n0.4\n0.5\n0.6\n0.7\n", "the time after frame 2 does not increase"),
        ("yesterday\n" * 9, "does not fit the frames"),
        ("2011-09-26 1:2\n" * 9, "does not fit the frames"),
    ],
)
def test_file_that_does_not_fit_is_named_and_frames_keep_their_gaps(tmp_path, text, reason, caplog):
    path = tmp_path / "timestamps.txt"
    if text is not None:
        path.write_text(text)
    with caplog.at_level(logging.WARNING):
        assert differences(timestamps.seconds_of(path, ["1", "2", "3", "7"])) == [0.1, 0.1, 0.4]
    assert reason in caplog.text


def test_names_without_number_have_no_time(tmp_path):
    assert timestamps.seconds_of(tmp_path / "timestamps.txt", ["a", "b"]) is None
