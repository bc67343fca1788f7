"""Line charts as inline SVG: no script, no font, no file beside the page."""

import math
from collections.abc import Mapping, Sequence
from html import escape

COLOURS = ("#2563eb", "#dc2626", "#059669", "#d97706", "#7c3aed", "#0891b2")
WIDTH, HEIGHT = 440, 210
LEFT, RIGHT, TOP, BOTTOM = 56, 10, 10, 26
MOST_POINTS = 300

Number = int | float
Series = tuple[Sequence[Number], Sequence[Number]]


def line_chart(series: Mapping[str, Series], logarithmic: bool = False) -> str:
    """One chart of ``name -> (x, y)``; long series are averaged down, points that are not finite leave a gap.

    ``logarithmic`` applies to y, where every value is positive.
    """
    thinned = {name: thin(x, y) for name, (x, y) in series.items()}
    xs = [x for points in thinned.values() for x, _ in points]
    ys = [y for points in thinned.values() for _, y in points if math.isfinite(y)]
    if not ys:
        return '<p class="quiet">nothing logged yet</p>'
    logarithmic = logarithmic and min(ys) > 0
    scale = math.log10 if logarithmic else float
    x_low, x_high = _span(min(xs), max(xs))
    y_low, y_high = _span(scale(min(ys)), scale(max(ys)))

    def place(x: Number, y: Number) -> tuple[float, float]:
        across = (x - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT)
        up = (scale(y) - y_low) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM)
        return round(LEFT + across, 1), round(HEIGHT - BOTTOM - up, 1)

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">']
    for tick in ticks(y_low, y_high, 4):
        value = 10**tick if logarithmic else tick
        _, y = place(x_low, value)
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}" class="rule"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 3.5}" text-anchor="end">{_number(value)}</text>')
    for tick in ticks(x_low, x_high, 4):
        x, _ = place(tick, 10**y_low if logarithmic else y_low)
        parts.append(f'<text x="{x}" y="{HEIGHT - 8}" text-anchor="middle">{_number(tick)}</text>')
    for (name, points), colour in zip(thinned.items(), COLOURS * len(thinned)):
        parts.append(_line([place(x, y) if math.isfinite(y) else None for x, y in points], colour, name))
    parts.append("</svg>")
    if len(thinned) > 1:
        keys = "".join(f'<span style="color:{c}">■ {escape(n)}</span>' for n, c in zip(thinned, COLOURS * len(thinned)))
        parts.append(f'<p class="key">{keys}</p>')
    return "".join(parts)


def thin(x: Sequence[Number], y: Sequence[Number]) -> list[tuple[float, float]]:
    """At most ``MOST_POINTS`` points: means over stretches of equally many."""
    size = -(-len(x) // MOST_POINTS) or 1
    return [
        (sum(x[i : i + size]) / len(x[i : i + size]), sum(y[i : i + size]) / len(y[i : i + size])) for i in range(0, len(x), size)
    ]


def ticks(low: Number, high: Number, about: int) -> list[float]:
    """Round numbers inside [low, high]: 1, 2 or 5 times a power of ten apart."""
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [index * step for index in range(first, math.floor(high / step + 1e-9) + 1)]


def _line(points: list[tuple[float, float] | None], colour: str, name: str) -> str:
    runs: list[list[tuple[float, float]]] = [[]]
    for point in points:
        if point is None:
            runs.append([])
        else:
            runs[-1].append(point)
    parts = []
    for run in filter(None, runs):
        path = " ".join(f"{x},{y}" for x, y in run)
        parts.append(f'<polyline points="{path}" stroke="{colour}" class="line"><title>{escape(name)}</title></polyline>')
        if len(run) < 12:
            parts += [f'<circle cx="{x}" cy="{y}" r="2.4" fill="{colour}"/>' for x, y in run]
    return "".join(parts)


def _span(low: Number, high: Number) -> tuple[float, float]:
    """The range to draw: never empty, with a little air."""
    air = (high - low) * 0.04 or abs(high) * 0.05 or 1.0
    return low - air, high + air


def _number(value: Number) -> str:
    if value == 0 or abs(value) < 1e-12:
        return "0"
    if abs(value) >= 10_000:
        return f"{value / 1000:.4g}k"
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
