"""The results table, summarised over seeds: Markdown, CSV, JSON and a figure."""

import csv
import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from dd_jax.ablations.runs import Result, Run
from dd_jax.config import ConfigError
from dd_jax.evaluate import REGIONS
from dd_jax.evaluation import metrics

DRAWS = 10_000
"""Bootstrap resamplings of the test frames."""

Interval = tuple[float, float, float]  # mean difference, and its 2.5 and 97.5 % bootstrap quantiles


@dataclasses.dataclass
class Line:
    """One row, summarised over its seeds."""

    row: str
    title: str
    seeds: list[int]
    scores: dict[str, dict[str, tuple[float, float]]]  # region -> metric -> mean and standard deviation over the seeds
    differences: dict[str, Interval]  # region -> abs_rel minus the baseline's, over test frames; empty for the baseline
    by_seed: dict[str, list[float]]  # region -> the same for each seed that both rows have
    step_seconds: float | None
    published: tuple[float, ...] | None


def tabulate(runs: Sequence[Run], rows: Mapping[str, object], baseline: str) -> list[Line]:
    """One line per row with finished runs, in the order of ``rows``, whose values have ``title`` and ``published``.

    Raises:
      ConfigError: the runs were evaluated on different frames.
    """
    found = [(run, result) for run in runs if (result := run.result()) is not None]
    if len({result.frames for _, result in found}) > 1:
        raise ConfigError("the runs were evaluated on different test frames: evaluate them again on the same data")
    base_runs = {run.seed: result for run, result in found if run.row == baseline}
    lines = []
    for row in rows:
        own = [(run.seed, result) for run, result in found if run.row == row]
        if not own:
            continue
        seeds, results = map(list, zip(*own))
        pairs = [(result, base_runs[seed]) for seed, result in zip(seeds, results) if row != baseline and seed in base_runs]
        errors, base = (_frame_errors(list(side)) for side in (zip(*pairs) if pairs else ((), ())))
        seconds = [result.step_seconds for result in results if result.step_seconds is not None]
        lines.append(
            Line(
                row=row,
                title=rows[row].title,
                seeds=seeds,
                scores={
                    region: {
                        name: mean_and_deviation([result.scores[region][name] for result in results]) for name in metrics.ERRORS
                    }
                    for region in REGIONS
                    if all(result.scores[region]["pixels"] for result in results)
                },
                differences={region: paired_bootstrap(errors[region], base[region]) for region in errors.keys() & base.keys()},
                by_seed={
                    region: [ours.scores[region]["abs_rel"] - theirs.scores[region]["abs_rel"] for ours, theirs in pairs]
                    for region in REGIONS
                    if all(result.scores[region]["pixels"] for pair in pairs for result in pair)
                },
                step_seconds=float(np.median(seconds)) if seconds else None,
                published=rows[row].published,
            )
        )
    return lines


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation (0 for one value)."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def paired_bootstrap(errors: Float[np.ndarray, " n"], baseline: Float[np.ndarray, " n"]) -> Interval:
    """Mean difference over the frames that both have, with its 95 % bootstrap interval over frames.

    NaN marks a frame without a score. Neighbouring frames are correlated and seeds are not resampled, so the interval covers
    the choice of frames only.
    """
    difference = errors - baseline
    difference = difference[np.isfinite(difference)]
    rng = np.random.default_rng(0)
    means = np.array([difference[rng.integers(len(difference), size=len(difference))].mean() for _ in range(DRAWS)])
    return float(difference.mean()), *(float(q) for q in np.quantile(means, (0.025, 0.975)))


def _frame_errors(results: Sequence[Result]) -> dict[str, Float[np.ndarray, " n"]]:
    """region -> abs_rel of every frame, averaged over the results; regions without pixels are left out."""
    found = {region: np.array([result.errors[region] for result in results], float) for region in REGIONS if results}
    return {region: values.mean(axis=0) for region, values in found.items() if np.isfinite(values).any()}


def markdown(lines: Sequence[Line], baseline: str) -> str:
    """The table: abs_rel by region, difference to the row ``baseline``, seconds per step, and the figure of the poster."""
    head = ["row", "seeds", *REGIONS, "Δ all", "Δ moving", "s / step", "published*"]
    body = [
        [
            line.title,
            str(len(line.seeds)),
            *(_mean(line, region) for region in REGIONS),
            *(_difference(line, region) for region in ("all", "moving")),
            "" if line.step_seconds is None else f"{line.step_seconds:.2f}",
            "" if line.published is None else f"{line.published[0]:.4f}",
        ]
        for line in lines
    ]
    rows = [head, ["---"] * len(head), *body]
    reference = next((f"the row “{line.title}”" for line in lines if line.row == baseline), "the baseline (not in this table)")
    note = (
        f"abs_rel, mean ± standard deviation over seeds; Δ is the difference to {reference} with the same seeds, with its 95 % "
        "paired bootstrap interval over test frames, and the number of seeds with the same sign. Seconds are the median of the "
        "whole training and depend on the load of the machine.\n\n\\* the poster, Cityscapes, one run each, best checkpoint "
        "chosen on the test split; not comparable in level."
    )
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) + f"\n\n{note}\n"


def _mean(line: Line, region: str) -> str:
    if region not in line.scores:
        return ""
    mean, deviation = line.scores[region]["abs_rel"]
    return f"{mean:.4f} ± {deviation:.4f}" if len(line.seeds) > 1 else f"{mean:.4f}"


def _difference(line: Line, region: str) -> str:
    if region not in line.differences:
        return ""
    mean, low, high = line.differences[region]
    return f"{mean:+.4f} [{low:+.4f}, {high:+.4f}] {_seeds_of_same_sign(line, region)}/{len(line.by_seed[region])}"


def _seeds_of_same_sign(line: Line, region: str) -> int:
    """Number of seeds whose difference to the baseline has the sign of the mean."""
    return int(np.sum(np.sign(line.by_seed[region]) == np.sign(line.differences[region][0])))


def write(lines: Sequence[Line], baseline: str, out: Path) -> None:
    """Writes ``results.md``, ``results.csv`` (one line per row and region, all metrics), ``results.json`` and ``results.png``."""
    (out / "results.md").write_text(markdown(lines, baseline))
    (out / "results.json").write_text(json.dumps([dataclasses.asdict(line) for line in lines], indent=1) + "\n")
    with (out / "results.csv").open("w", newline="") as file:
        entries = [_entry(line, region) for line in lines for region in line.scores]
        writer = csv.DictWriter(file, list(entries[0]))
        writer.writeheader()
        writer.writerows(entries)
    plot(lines, baseline, out / "results.png")


def _entry(line: Line, region: str) -> dict[str, object]:
    """A line of the CSV; missing values are empty. The published figures are over all pixels."""
    scores = {f"{name}_{kind}": x for name in metrics.ERRORS for kind, x in zip(("mean", "std"), line.scores[region][name])}
    compared = region in line.differences
    low_to_high = line.differences[region] if compared else (None,) * 3
    differences = dict(zip(("abs_rel_difference", "abs_rel_difference_low", "abs_rel_difference_high"), low_to_high))
    differences |= {"compared_seeds": len(line.by_seed[region]) if compared else None}
    differences |= {"compared_seeds_of_its_sign": _seeds_of_same_sign(line, region) if compared else None}
    figures = line.published if line.published is not None and region == "all" else (None,) * len(metrics.ERRORS)
    published = {f"published_{name}": figure for name, figure in zip(metrics.ERRORS, figures, strict=True)}
    values = scores | differences | {"step_seconds": line.step_seconds} | published
    values = {name: f"{value:.6f}" if isinstance(value, float) else value for name, value in values.items()}
    return {"row": line.row, "title": line.title, "seeds": len(line.seeds), "region": region} | values


def plot(lines: Sequence[Line], baseline: str, path: Path) -> None:
    """abs_rel of every row with error bars, one panel per region; the dashed line marks the row ``baseline``."""
    from matplotlib.figure import Figure  # slow to import; not pyplot, which would need a display

    regions = [region for region in REGIONS if all(region in line.scores for line in lines)]
    figure = Figure(figsize=(3.2 * len(regions) + 2.5, 0.32 * len(lines) + 1.2), layout="constrained")
    panels = figure.subplots(1, len(regions), sharey=True, squeeze=False)[0]
    rows = np.arange(len(lines))
    for panel, region in zip(panels, regions, strict=True):
        means, deviations = zip(*(line.scores[region]["abs_rel"] for line in lines), strict=True)
        for line in lines:
            if line.row == baseline:
                panel.axvline(line.scores[region]["abs_rel"][0], color="0.6", linestyle="--", linewidth=1)
        panel.errorbar(means, rows, xerr=deviations, fmt="o", color="#2563eb", ecolor="#93b4f5", capsize=3, markersize=4)
        panel.set_title(region)
        panel.set_xlabel("abs_rel")
        panel.grid(axis="x", alpha=0.3)
    panels[0].set_yticks(rows, [line.title for line in lines])
    panels[0].invert_yaxis()
    figure.savefig(path, dpi=110)
