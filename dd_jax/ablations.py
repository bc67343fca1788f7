"""The results table: rows times seeds, each a training and an evaluation of its own, and what they say together.

A run lies in ``OUT/ROW/seedN``; a finished one (its ``metrics.json`` exists) is not made again, an interrupted one goes on. The
table needs nothing but the finished runs' files, so it can be made anew at any time.
"""

import csv
import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

import numpy as np
from jaxtyping import Float
from tqdm import tqdm

from dd_jax import metrics
from dd_jax.config import Config, ConfigError, to_dict
from dd_jax.evaluate import NETWORKS, REGIONS
from dd_jax.report import read_history

ROOT = Path(__file__).parents[1]
DRAWS = 10_000
"""Resamplings of the test frames behind an interval."""

Interval = tuple[float, float, float]  # mean difference, and the 2.5 and 97.5 per cent quantiles of its resamplings


@dataclasses.dataclass(frozen=True)
class Run:
    """One training: a row with a seed."""

    row: str
    seed: int
    config: Config
    flags: tuple[str, ...]  # of scripts/train.py; they make ``config``
    folder: Path

    def finished(self) -> bool:
        """Whether it is done; refuses a folder that another config has written.

        Raises:
          ConfigError: the folder holds a run of another config.
        """
        asked = self.folder / "asked.json"
        if asked.is_file() and json.loads(asked.read_text()) != json.loads(json.dumps(to_dict(self.config))):
            raise ConfigError(f"{self.folder} holds a run of another config: name another folder with --out, or remove it")
        return (self.folder / "metrics.json").is_file()


@dataclasses.dataclass
class Line:
    """What the seeds of one row say together."""

    row: str
    title: str
    seeds: list[int]
    scores: dict[str, dict[str, tuple[float, float]]]  # region -> metric -> mean and standard deviation over the seeds
    differences: dict[str, Interval]  # region -> abs_rel minus the baseline's, over test frames; empty for the baseline
    step_seconds: float | None
    published: tuple[float, ...] | None


def execute(runs: Sequence[Run], jobs: int) -> None:
    """Trains and evaluates what is not finished, ``jobs`` at once, each with its share of the cores and, by number, its GPU.

    What they print goes to ``train.log`` in their folders.

    Raises:
      ConfigError: a run failed; the others are not lost. The message names its log.
    """
    waiting = [run for run in runs if not run.finished()]
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    shares: SimpleQueue[tuple[int, list[int]]] = SimpleQueue()
    for job in range(jobs):
        shares.put((job, cores[job * len(cores) // jobs : (job + 1) * len(cores) // jobs]))

    def work(run: Run) -> Run | None:
        job, share = shares.get()
        try:
            return None if _make(run, job if jobs > 1 else None, share) else run
        finally:
            shares.put((job, share))

    failed = []
    with (
        ThreadPoolExecutor(jobs) as pool,
        tqdm(total=len(runs), initial=len(runs) - len(waiting), unit="run", desc="rows x seeds") as bar,
    ):
        for run in pool.map(work, waiting):
            failed += [] if run is None else [run]
            bar.update()
    if failed:
        names = ", ".join(str(run.folder / "train.log") for run in failed)
        raise ConfigError(f"{len(failed)} of {len(runs)} runs failed, the others are kept; the reasons are in {names}")


def _make(run: Run, gpu: int | None, cores: list[int]) -> bool:
    run.folder.mkdir(parents=True, exist_ok=True)
    (run.folder / "asked.json").write_text(json.dumps(to_dict(run.config), indent=1) + "\n")
    environment = {"JAX_COMPILATION_CACHE_DIR": str(run.folder.parents[1] / ".compiled")} | os.environ  # seeds share it
    if gpu is not None:
        environment["CUDA_VISIBLE_DEVICES"] = str(gpu)
    commands = (
        [ROOT / "scripts/train.py", *run.flags, f"--workdir={run.folder}"],
        [ROOT / "scripts/evaluate.py", f"--checkpoint={run.folder}"],
    )
    pinned = ["taskset", "-c", ",".join(map(str, cores))] if gpu is not None and cores else []
    with (run.folder / "train.log").open("a") as log:
        return all(
            subprocess.run([*pinned, sys.executable, *command], cwd=ROOT, env=environment, stdout=log, stderr=log).returncode == 0
            for command in commands
        )


def tabulate(runs: Sequence[Run], rows: Mapping[str, object], baseline: str) -> list[Line]:
    """A line per row with finished runs, in the order of ``rows``, whose values have a ``title`` and a ``published``."""
    finished = {row: [run for run in runs if run.row == row and run.finished()] for row in rows}
    base = _frame_errors(finished.get(baseline, []))
    lines = []
    for row, members in finished.items():
        if not members:
            continue
        scores = [_scores(run) for run in members]
        errors = _frame_errors(members)
        seconds = [rate for run in members for rate in _step_seconds(run)]
        lines.append(
            Line(
                row=row,
                title=rows[row].title,
                seeds=[run.seed for run in members],
                scores={
                    region: {name: spread([score[region][name] for score in scores]) for name in metrics.ERRORS}
                    for region in REGIONS
                    if all(score[region]["pixels"] for score in scores)
                },
                differences={}
                if row == baseline
                else {r: paired_bootstrap(errors[r], base[r]) for r in REGIONS if errors.get(r) and base.get(r)},
                step_seconds=float(np.median(seconds)) if seconds else None,
                published=rows[row].published,
            )
        )
    return lines


def spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation (of a sample; 0 for one value)."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def paired_bootstrap(errors: Mapping[str, float], baseline: Mapping[str, float]) -> Interval:
    """Mean difference over the frames both have measured, with its 95 % interval under resampling of the frames.

    Neighbouring frames are alike, and seeds are not resampled: the interval says what these frames can tell, not more.
    """
    frames = sorted(errors.keys() & baseline.keys())
    difference: Float[np.ndarray, " n"] = np.array([errors[frame] - baseline[frame] for frame in frames])
    rng = np.random.default_rng(0)
    means = np.array([difference[rng.integers(len(frames), size=len(frames))].mean() for _ in range(DRAWS)])
    return float(difference.mean()), *(float(q) for q in np.quantile(means, (0.025, 0.975)))


def _predictor(scores: Mapping[str, object]) -> str:
    return next(name for name in NETWORKS if name in scores)


def _scores(run: Run) -> dict:
    scores = json.loads((run.folder / "metrics.json").read_text())
    return scores[_predictor(scores)]


def _frame_errors(runs: Sequence[Run]) -> dict[str, dict[str, float]]:
    """region -> frame -> abs_rel, mean over the runs."""
    found: dict[str, dict[str, list[float]]] = {}
    for run in runs:
        predictor = _predictor(json.loads((run.folder / "metrics.json").read_text()))
        with (run.folder / "per_image.csv").open(newline="") as file:
            for entry in csv.DictReader(file):
                if entry["predictor"] == predictor:
                    found.setdefault(entry["region"], {}).setdefault(entry["image"], []).append(float(entry["abs_rel"]))
    return {region: {frame: float(np.mean(values)) for frame, values in frames.items()} for region, frames in found.items()}


def _step_seconds(run: Run) -> list[float]:
    rates = [record["images_per_second"] for record in read_history(run.folder) if "images_per_second" in record]
    return [run.config.data.batch_size / float(np.median(rates))] if rates else []


def markdown(lines: Sequence[Line]) -> str:
    """The table for people: abs_rel by region, difference to the baseline, cost, and the poster's figure."""
    head = ["row", "seeds", *REGIONS, "Δ all", "Δ moving", "s / step", "published*"]
    body = [
        [
            line.title,
            str(len(line.seeds)),
            *(_mean(line.scores.get(region, {}).get("abs_rel")) for region in REGIONS),
            *(_interval(line.differences.get(region)) for region in ("all", "moving")),
            "" if line.step_seconds is None else f"{line.step_seconds:.2f}",
            "" if line.published is None else f"{line.published[0]:.4f}",
        ]
        for line in lines
    ]
    rows = [head, ["---"] * len(head), *body]
    note = (
        "abs_rel, mean ± standard deviation over seeds; Δ is the difference to the first row, with its 95 % paired bootstrap "
        "interval over test frames.\n\n\\* the poster, Cityscapes, one run each, best checkpoint chosen on the test split; "
        "not comparable in level."
    )
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) + f"\n\n{note}\n"


def _mean(value: tuple[float, float] | None) -> str:
    return "" if value is None else f"{value[0]:.4f} ± {value[1]:.4f}"


def _interval(value: Interval | None) -> str:
    return "" if value is None else f"{value[0]:+.4f} [{value[1]:+.4f}, {value[2]:+.4f}]"


def write(lines: Sequence[Line], out: Path) -> None:
    """``results.md``, ``results.csv`` (every metric), ``results.json`` (everything) and, with matplotlib, ``results.png``."""
    (out / "results.md").write_text(markdown(lines))
    (out / "results.json").write_text(json.dumps([dataclasses.asdict(line) for line in lines], indent=1) + "\n")
    with (out / "results.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["row", "seeds", "region", *(f"{name}_{kind}" for name in metrics.ERRORS for kind in ("mean", "std"))])
        for line in lines:
            for region, scores in line.scores.items():
                values = (f"{value:.6f}" for name in metrics.ERRORS for value in scores[name])
                writer.writerow([line.row, len(line.seeds), region, *values])
    plot(lines, out / "results.png")


def plot(lines: Sequence[Line], path: Path) -> None:
    """abs_rel of every row with error bars, a panel per region; the dashed line is the first row."""
    from matplotlib.figure import Figure  # an extra: nothing else here draws with it

    regions = [region for region in REGIONS if all(region in line.scores for line in lines)]
    figure = Figure(figsize=(3.2 * len(regions) + 2.5, 0.32 * len(lines) + 1.2), layout="constrained")
    panels = figure.subplots(1, len(regions), sharey=True, squeeze=False)[0]
    places = np.arange(len(lines))
    for panel, region in zip(panels, regions, strict=True):
        means, deviations = zip(*(line.scores[region]["abs_rel"] for line in lines), strict=True)
        panel.axvline(means[0], color="0.6", linestyle="--", linewidth=1)
        panel.errorbar(means, places, xerr=deviations, fmt="o", color="#2563eb", ecolor="#93b4f5", capsize=3, markersize=4)
        panel.set_title(region)
        panel.set_xlabel("abs_rel")
        panel.grid(axis="x", alpha=0.3)
    panels[0].set_yticks(places, [line.title for line in lines])
    panels[0].invert_yaxis()
    figure.savefig(path, dpi=110)
