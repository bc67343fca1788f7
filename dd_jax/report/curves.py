"""Line charts for the report page, as SVG images inside the HTML."""

import base64
import io
import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from statistics import fmean
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Series = tuple[Sequence[int | float], Sequence[int | float]]
"""x and y."""

MOST_POINTS = 300
"""Longer series are averaged over groups of points."""

FEW_POINTS = 12
"""Series with fewer points get markers, since single points have no line."""


def line_chart(series: Mapping[str, Series], logarithmic: bool = False) -> str:
    """HTML of one chart of ``name -> (x, y)``, with a legend for several series; non-finite values leave gaps.

    ``logarithmic`` applies to y, if every finite value is positive.
    """
    finite = [value for _, y in series.values() for value in y if math.isfinite(value)]
    if not finite:
        return '<p class="quiet">nothing logged yet</p>'

    def draw(axes: "Axes") -> None:
        for name, (x, y) in series.items():
            x, y = averaged(x, [value if math.isfinite(value) else math.nan for value in y])
            axes.plot(x, y, label=name, linewidth=1.2, marker="." if len(x) < FEW_POINTS else None)
        if logarithmic and min(finite) > 0:
            axes.set_yscale("log")
        if len(series) > 1:
            axes.legend(fontsize="small")

    return _image(draw, ", ".join(series))


def scatter_chart(x: Sequence[float], y: Sequence[float], x_name: str, y_name: str) -> str:
    """HTML of one chart of points, with the line on which both are equal."""

    def draw(axes: "Axes") -> None:
        axes.axline((0, 0), slope=1, color="0.7", linewidth=1)
        axes.plot(x, y, ".", markersize=3)
        axes.margins(0.1)
        axes.set_xlabel(x_name, fontsize="small")
        axes.set_ylabel(y_name, fontsize="small")

    return _image(draw, f"{y_name} by {x_name}", bottom=0.22)


def _image(draw: Callable[["Axes"], None], description: str, bottom: float = 0.13) -> str:
    """HTML of one chart; ``bottom``: share of its height for the labels of x."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure  # slow to import; not pyplot, which would need a display

    figure = Figure(figsize=(4.4, 2.1))
    axes = figure.add_axes((0.16, bottom, 0.82, 0.97 - bottom))  # fixed: to fit labels, all would be drawn again and again
    draw(axes)
    axes.grid(alpha=0.3)
    axes.tick_params(which="both", labelsize="small")
    axes.spines[["top", "right"]].set_visible(False)

    svg = io.BytesIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "dd_jax"}):  # text stays text; the same data, the same bytes
        figure.savefig(svg, format="svg", metadata={"Date": None})
    data = base64.b64encode(svg.getvalue()).decode()
    return f'<img alt="{escape(description)}" src="data:image/svg+xml;base64,{data}">'


def averaged(*columns: Sequence[int | float]) -> list[list[float]]:
    """Means over groups of consecutive points, at most :data:`MOST_POINTS` of them."""
    size = -(-len(columns[0]) // MOST_POINTS)
    return [[fmean(column[i : i + size]) for i in range(0, len(column), size)] for column in columns]
