import logging

import pytest

from dd_jax.runtime.file_order import in_order, stamps_of


@pytest.mark.parametrize(
    "ordered",
    [
        ["1341846313.592026", "1341846313.6", "1341846313.64", "1341846314.05"],  # TUM's RGB-D data, zeros cut off
        ["cam0_1341846313.59_left", "cam0_1341846313.6_left"],
        ["999999999.9", "1000000000.1"],
        ["2024-01-02T10-11-12", "2024-01-02T10-11-12.25", "2024-01-02T10-11-12.5", "2024-01-02T10-11-13"],
        ["2023-12-31 23.59.59", "2024-01-01 00.00.00"],
        ["VID_20240102_101112_050", "VID_20240102_101112_500", "VID_20240102_101113_000"],
        ["1403636579763555584", "1403636579813555456"],  # nanoseconds
    ],
)
def test_names_that_are_times_are_ordered_by_time(ordered, caplog):
    with caplog.at_level(logging.WARNING):
        for given in (ordered, ordered[::-1], sorted(ordered)):
            assert in_order([f"{stem}.png" for stem in given], "DIR") == [f"{stem}.png" for stem in ordered]
    assert not caplog.text
    times = stamps_of(ordered)
    assert times == sorted(set(times))


def test_times_in_names_are_exact():
    assert [float(b - a) for a, b in [stamps_of(["1341846313.592026", "1341846313.692026"])]] == [0.1]
    assert [float(b - a) for a, b in [stamps_of(["2024-01-02T10-11-12.25", "2024-01-02T10-12-12.5"])]] == [60.25]
    assert [float(b - a) for a, b in [stamps_of(["1704190272123", "1704190272223"])]] == [0.1]


@pytest.mark.parametrize(
    "stems",
    [
        ["0000000001", "0000000002"],  # KITTI
        ["f1", "f2"],
        ["2011_09_26_drive_0001_sync_000001", "2011_09_26_drive_0001_sync_000002"],
        ["2011_09_26_000105", "2011_09_26_000106"],  # a date and a frame's number
        ["20240199_101112", "20240102_101113"],  # no such day
        ["1341846313.592026_left", "1341846313.692026_right"],
        ["aachen_000000_000019_leftImg8bit", "aachen_000000_000020_leftImg8bit"],
    ],
)
def test_other_numbers_are_no_times(stems):
    assert stamps_of(stems) is None


@pytest.mark.parametrize("names", [["f2.png", "f10.jpg", "f011.png"], ["a_1_2.png", "a_1_10.png"], ["1.5.png", "1.7.png"]])
def test_numbers_are_ordered_as_numbers_without_a_warning(names, caplog):
    with caplog.at_level(logging.WARNING):
        assert in_order(names[::-1], "DIR") == names
    assert not caplog.text


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (["before.png", "after.png"], "differ in more than numbers"),
        (["GOPR0001.jpg", "GP010001.jpg"], "differ in more than numbers"),
        (["left_1.png", "right_1.png"], "differ in more than numbers"),
        (["3fa9c1.png", "b07d22.png", "0c9e11.png"], "differ in more than numbers"),
        (["31-01-2024_10-11-12.png", "01-02-2024_10-11-12.png"], "the year of the dates comes last"),
        (["s1.9.png", "s1.10.png"], "numbers after the point have different lengths"),
    ],
)
def test_ambiguous_order_is_named(names, reason, caplog):
    with caplog.at_level(logging.WARNING):
        assert sorted(in_order(names, "DIR")) == sorted(names)
    assert "the order of the frames in DIR is a guess" in caplog.text and reason in caplog.text
