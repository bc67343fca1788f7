import base64
import re
import xml.etree.ElementTree as ET

import matplotlib.figure
import numpy as np
import pytest

from dd_jax.report.curves import MOST_POINTS, averaged, line_chart, scatter_chart


@pytest.fixture
def axes(monkeypatch):
    """The axes of every chart that the test makes."""
    made = []
    plain = matplotlib.figure.Figure.add_axes
    monkeypatch.setattr(matplotlib.figure.Figure, "add_axes", lambda *given: made.append(plain(*given)) or made[-1])
    return made


def svg_of(chart):
    return base64.b64decode(re.search(r'src="data:image/svg\+xml;base64,([^"]+)"', chart)[1]).decode()


def test_chart_is_valid_svg_and_reproducible():
    chart = line_chart({"a": ([0, 1, 2], [1.0, 3.0, 2.0])})
    assert ET.fromstring(svg_of(chart)).tag.endswith("svg")
    assert line_chart({"a": ([0, 1, 2], [1.0, 3.0, 2.0])}) == chart


def test_values_drawn_with_gaps(axes):
    line_chart({"a": ([0, 1, 2, 3], [1.0, float("nan"), float("inf"), 3.0])})
    (line,) = axes[0].lines
    np.testing.assert_array_equal(line.get_xdata(), [0, 1, 2, 3])
    np.testing.assert_array_equal(line.get_ydata(), [1.0, np.nan, np.nan, 3.0])


def test_short_series_has_markers(axes):
    line_chart({"short": ([5], [1.0]), "long": (range(50), range(50))})
    assert [line.get_marker() for line in axes[0].lines] == [".", "None"]


def test_logarithmic_only_if_positive(axes):
    for values, logarithmic in (([0.1, 1.0, 10.0], True), ([0.0, 1.0, 10.0], True), ([0.1, 1.0, 10.0], False)):
        line_chart({"a": ([0, 1, 2], values)}, logarithmic)
    assert [one.get_yscale() for one in axes] == ["log", "linear", "linear"]


def test_no_finite_value():
    assert "nothing logged" in line_chart({"a": ([], [])}) and "nothing logged" in line_chart({"a": ([1], [float("nan")])})


def test_names_escaped_and_in_legend(axes):
    chart = line_chart({"<b>": ([0, 1], [0, 1]), "c": ([0, 1], [1, 0])})
    assert "<b>" not in chart and 'alt="&lt;b&gt;, c"' in chart and "&lt;b&gt;" in svg_of(chart)
    assert [text.get_text() for text in axes[0].get_legend().get_texts()] == ["<b>", "c"]


def test_averaging_keeps_the_mean(axes):
    x, y = list(range(3000)), list(np.random.default_rng(0).normal(size=3000))
    assert [len(column) for column in averaged(x, y)] == [MOST_POINTS] * 2
    np.testing.assert_allclose(np.mean(averaged(x, y), axis=1), (np.mean(x), np.mean(y)))
    line_chart({"a": (x, y)})
    assert len(axes[0].lines[0].get_xdata()) == MOST_POINTS
    assert averaged([1, 2], [3, 5]) == [[1, 2], [3, 5]]


def test_points_and_the_line_of_equality(axes):
    chart = scatter_chart([0.0, 1.0, 2.0], [0.5, 0.5, 0.7], "true", "<predicted>")
    assert ET.fromstring(svg_of(chart)).tag.endswith("svg") and 'alt="&lt;predicted&gt; by true"' in chart
    equal, points = axes[0].lines
    assert equal.get_slope() == 1 and equal.get_xy1() == (0, 0)
    np.testing.assert_array_equal(points.get_xydata(), [[0, 0.5], [1, 0.5], [2, 0.7]])
    assert (axes[0].get_xlabel(), axes[0].get_ylabel()) == ("true", "<predicted>")
