"""Charts show the numbers they are given."""

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from dd_jax.report.curves import MOST_POINTS, _number, line_chart, thin, ticks


def points_of(svg):
    return [[tuple(map(float, p.split(","))) for p in line.split()] for line in re.findall(r'polyline points="([^"]*)"', svg)]


def test_chart_is_well_formed_and_linear():
    chart = line_chart({"a": ([0, 1, 2], [1.0, 3.0, 2.0])})
    ET.fromstring(chart)
    ((x0, y0), (x1, y1), (x2, y2)) = points_of(chart)[0]
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.11)
    assert y1 < y2 < y0 and (y0 - y2) == pytest.approx(y2 - y1, abs=0.11)  # up is more


def test_logarithmic_spacing():
    ((_, a), (_, b), (_, c)) = points_of(line_chart({"a": ([0, 1, 2], [0.1, 1.0, 10.0])}, logarithmic=True))[0]
    assert a - b == pytest.approx(b - c, abs=0.11)


def test_gaps_single_points_and_nothing():
    assert len(points_of(line_chart({"a": ([0, 1, 2, 3], [1.0, float("nan"), 2.0, 3.0])}))) == 2
    assert len(points_of(line_chart({"a": ([5], [1.0])}))) == 1
    assert len(points_of(line_chart({"zero": ([0, 1], [0.0, 0.0])}, logarithmic=True))) == 1
    assert "nothing" in line_chart({"a": ([], [])}) and "nothing" in line_chart({"a": ([1], [float("nan")])})


def test_names_are_escaped_and_in_the_key():
    chart = line_chart({"<b>": ([0, 1], [0, 1]), "c": ([0, 1], [1, 0])})
    assert "<b>" not in chart and "&lt;b&gt;" in chart and chart.count("■") == 2


def test_thinning_keeps_the_mean():
    x, y = list(range(3000)), list(np.random.default_rng(0).normal(size=3000))
    points = thin(x, y)
    assert len(points) == MOST_POINTS
    np.testing.assert_allclose(np.mean(points, axis=0), (np.mean(x), np.mean(y)))


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-3.2, 17), (1e-5, 3e-5), (0, 123_456)])
def test_ticks_are_inside_and_few(low, high):
    marks = ticks(low, high, 4)
    assert 2 <= len(marks) <= 6
    assert all(low - 1e-9 <= mark <= high + 1e-9 for mark in marks)


def test_numbers_are_short_and_plain():
    assert [_number(v) for v in (0, 1e-17, 0.1 + 0.2, 2000, 66_000, 123_456.0, -0.05)] == [
        "0",
        "0",
        "0.3",
        "2000",
        "66k",
        "123.5k",
        "-0.05",
    ]
