"""The results table: Markdown, CSV, JSON and a figure."""

import csv
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from dd_jax.ablations.comparison import Line, MovingPixels
from dd_jax.ablations.statistics import Estimate

SHOWN = ("all", "moving", "static")
"""Regions in the Markdown table and the figure; the other files have all."""


def markdown(lines: Sequence[Line]) -> str:
    """The table and, for every row with a control, what its differences say."""
    columns = {
        "row": lambda line: line.title,
        "control": lambda line: _title(lines, line.control),
        "seeds": lambda line: str(len(line.seeds)),
        **{region: lambda line, region=region: _score(line, region) for region in SHOWN},
        **{f"Δ {region}": lambda line, region=region: _difference(line, "previous", region) for region in SHOWN},
        "Δ moving, no lookup frame": lambda line: _difference(line, "none", "moving"),
        "gain over no frame": lambda line: _gain(line, "none"),
        "gain over another frame": lambda line: _gain(line, "other"),
        "published*": lambda line: "" if line.published is None else f"{line.published:.4f}",
    }
    table = [list(columns), ["---"] * len(columns), *([cell(line) for cell in columns.values()] for line in lines)]
    note = (
        "abs_rel of the student at the last step, mean ± standard deviation over seeds. Δ: difference to the control with the "
        "same seeds and test drives. Gain: 1 - abs_rel with the previous frame / abs_rel without a lookup frame, or with a frame "
        f"of another drive. In brackets: 95 % bootstrap intervals over {lines[0].drives} test drives and, where there are "
        "several, the seeds.\n\n"
        "\\* abs_rel of the poster, Cityscapes, one run each, best checkpoint chosen on the test split; not comparable in level."
    )
    said = "\n".join(f"- {line.title}: {finding(line)}." for line in lines)
    return "\n".join("| " + " | ".join(row) + " |" for row in table) + f"\n\n{note}\n\n{said}\n"


def finding(line: Line) -> str:
    """What the numbers say, in words; a difference is called better or worse only if its interval excludes 0."""
    if line.drives < 2:
        return "not judged, because intervals need two test drives"
    words = [_lookup_verdict(line.gains["other"]["all"])]
    if line.effect is None:
        return words[0]
    if line.effect.of_row == 0:
        return f"no effect, the scores are those of {line.control}"
    if line.effect.of_seed is not None and line.effect.of_row < line.effect.of_seed:
        words.append("the scores of the drives change less than from seed to seed")
    if not (line.effect.lookup.clear and line.effect.lookup.value > 0):
        words.append(f"its control {line.control} does not profit from the lookup frame, so that matching is not compared")
    differences = line.differences["previous"]
    words.append(", ".join(f"{region} pixels {_verdict(differences[region])}" for region in SHOWN if region in differences))
    if line.moving is not None:
        words += _moving_verdict(line.moving)
    return "; ".join(words)


def _lookup_verdict(gain: Estimate) -> str:
    if gain.value == 0:
        return "ignores the lookup frame"
    if not gain.clear:
        return "gain of the lookup frame inside the noise"
    return "the lookup frame helps" if gain.value > 0 else "the lookup frame harms"


def _verdict(difference: Estimate) -> str:
    if not difference.clear:
        return "inside the noise"
    return "better" if difference.value < 0 else "worse"


def _moving_verdict(moving: MovingPixels) -> list[str]:
    if moving.ahead is None:
        return []
    if not moving.ahead:
        return ["on moving pixels not ahead by more than twice the spread over seeds"]
    without = "not seen" if moving.vanishes else f"also {'better' if moving.without_lookup.value < 0 else 'worse'}"
    return [f"on moving pixels ahead by more than twice the spread over seeds, which without a lookup frame is {without}"]


def _title(lines: Sequence[Line], row: str | None) -> str:
    return next((line.title for line in lines if line.row == row), "")


def _score(line: Line, region: str) -> str:
    if region not in line.scores["previous"]:
        return ""
    deviation = line.spreads["previous"][region]
    return f"{line.scores['previous'][region].value:.4f}" + ("" if deviation is None else f" ± {deviation:.4f}")


def _difference(line: Line, who: str, region: str) -> str:
    found = line.differences.get(who, {}).get(region)
    return "" if found is None else _text(found, "+.4f")


def _gain(line: Line, lookup: str) -> str:
    return _text(line.gains[lookup]["all"], "+.1%")


def _text(number: Estimate, form: str) -> str:
    interval = "" if number.low is None else f" [{number.low:{form}}, {number.high:{form}}]"
    return f"{number.value:{form}}{interval}"


def write(lines: Sequence[Line], out: Path) -> None:
    """Writes ``results.md``, ``results.csv`` (a line per row, predictor and region), ``results.json`` and ``results.png``."""
    (out / "results.md").write_text(markdown(lines))
    found = [dataclasses.asdict(line) | {"finding": finding(line)} for line in lines]
    (out / "results.json").write_text(json.dumps(found, indent=1) + "\n")
    with (out / "results.csv").open("w", newline="") as file:
        entries = [_entry(line, who, region) for line in lines for who, regions in line.scores.items() for region in regions]
        writer = csv.DictWriter(file, list(entries[0]))
        writer.writeheader()
        writer.writerows(entries)
    plot(lines, out / "results.png")


def _entry(line: Line, who: str, region: str) -> dict[str, object]:
    """A line of the CSV; missing values are empty."""
    spread, difference = line.spreads[who][region], line.differences.get(who, {}).get(region)
    values = {"abs_rel": line.scores[who][region].value, "spread": spread}
    for name, part in (("difference", "value"), ("difference_low", "low"), ("difference_high", "high")):
        values[name] = difference and getattr(difference, part)
    written = {name: "" if value is None else f"{value:.6f}" for name, value in values.items()}
    about = {"row": line.row, "title": line.title, "control": line.control or "", "seeds": len(line.seeds)}
    return about | {"predictor": who, "region": region} | written


def plot(lines: Sequence[Line], path: Path) -> None:
    """Differences to the control with their intervals, one panel per region."""
    from matplotlib.figure import Figure  # slow to import; not pyplot, which would need a display

    shown = [line for line in lines if line.differences]
    regions = [region for region in SHOWN if all(region in line.differences["previous"] for line in shown)]
    figure = Figure(figsize=(3.2 * len(regions) + 3.5, 0.32 * len(shown) + 1.2), layout="constrained")
    panels = figure.subplots(1, len(regions), sharey=True, squeeze=False)[0]
    for panel, region in zip(panels, regions, strict=True):
        panel.axvline(0, color="0.6", linestyle="--", linewidth=1)
        for place, line in enumerate(shown):
            difference = line.differences["previous"][region]
            if difference.low is not None:
                panel.plot((difference.low, difference.high), (place, place), color="#93b4f5")
            panel.plot(difference.value, place, "o", color="#2563eb", markersize=4)
        panel.set_title(region)
        panel.set_xlabel("abs_rel minus that of the control")
        panel.grid(axis="x", alpha=0.3)
    panels[0].set_yticks(range(len(shown)), [f"{line.title} - {_title(lines, line.control)}" for line in shown])
    panels[0].invert_yaxis()
    figure.savefig(path, dpi=110)
