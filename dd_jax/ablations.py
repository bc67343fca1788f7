"""The results table: rows times seeds, each a training and an evaluation of its own, and what they say together.

A run lies in ``OUT/ROW/seedN``; what it found, ``OUT/results/ROW-N.json``, is all that the table needs. A run that has found
its result is not made again, an interrupted one goes on.
"""

import csv
import dataclasses
import hashlib
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
from dd_jax.checkpoint import versions
from dd_jax.config import Config, ConfigError, from_dict, to_dict
from dd_jax.evaluate import NETWORKS, REGIONS
from dd_jax.report import read_history

ROOT = Path(__file__).parents[1]
DRAWS = 10_000
"""Resamplings of the test frames behind an interval."""

Interval = tuple[float, float, float]  # mean difference, and the 2.5 and 97.5 per cent quantiles of its resamplings


PLACES = {"data": ("root", "split_dir", "cache_dir", "threads", "ground_truth_file", "allow_pickle")}
"""Fields that say where a run finds its data, not what it computes."""


@dataclasses.dataclass(frozen=True)
class Run:
    """One training: a row with a seed."""

    row: str
    seed: int
    config: Config
    flags: tuple[str, ...]  # of scripts/train.py; they make ``config``
    folder: Path

    @property
    def file(self) -> Path:
        """Where its result is kept."""
        return self.folder.parents[1] / "results" / f"{self.row}-{self.seed}.json"

    def result(self) -> "Result | None":
        """What it found; None before it has ended.

        Raises:
          ConfigError: the file holds the result of another config.
        """
        if not self.file.is_file():
            return None
        result = Result(**json.loads(self.file.read_text()))
        if _without_places(to_dict(from_dict(result.config))) != _without_places(to_dict(self.config)):
            raise ConfigError(f"{self.file} is the result of another config: name another folder with --out, or remove it")
        return result


@dataclasses.dataclass
class Result:
    """What one run found on the test split."""

    config: dict
    versions: dict[str, str]
    step_seconds: float | None
    scores: dict[str, dict[str, float | int | None]]  # region -> the seven metrics and "pixels", of the student if there is one
    errors: dict[str, list[float | None]]  # region -> abs_rel of every test frame; None where it has no such pixel
    frames: str  # digest of the frames' names


@dataclasses.dataclass
class Line:
    """What the seeds of one row say together."""

    row: str
    title: str
    seeds: list[int]
    scores: dict[str, dict[str, tuple[float, float]]]  # region -> metric -> mean and standard deviation over the seeds
    differences: dict[str, Interval]  # region -> abs_rel minus the baseline's, over test frames; empty for the baseline
    by_seed: dict[str, list[float]]  # region -> the same of each seed that both have run
    step_seconds: float | None
    published: tuple[float, ...] | None


def execute(runs: Sequence[Run], jobs: int) -> None:
    """Trains and evaluates what is not finished, ``jobs`` at once, each with its share of the cores and, by number, its GPU.

    What they print goes to ``train.log`` in their folders.

    Raises:
      ConfigError: a run failed; the others are not lost. The message names its log.
    """
    waiting = [run for run in runs if run.result() is None]
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
    environment = {"JAX_COMPILATION_CACHE_DIR": str(run.folder.parents[1] / ".compiled")} | os.environ  # seeds share it
    if gpu is not None:
        environment["CUDA_VISIBLE_DEVICES"] = str(gpu)
    commands = (
        [ROOT / "scripts/train.py", *run.flags, f"--workdir={run.folder}"],
        [ROOT / "scripts/evaluate.py", f"--checkpoint={run.folder}"],
    )
    pinned = ["taskset", "-c", ",".join(map(str, cores))] if gpu is not None and cores else []
    with (run.folder / "train.log").open("a") as log:
        for command in commands:
            process = subprocess.run([*pinned, sys.executable, *command], cwd=ROOT, env=environment, stdout=log, stderr=log)
            if process.returncode or not _trained(run):
                return False
    run.file.parent.mkdir(exist_ok=True)
    begun = run.file.with_suffix(".part")
    begun.write_text(json.dumps(dataclasses.asdict(read_result(run))) + "\n")
    begun.rename(run.file)
    return True


def _trained(run: Run) -> bool:
    """Whether it has seen all of its steps: a training that was stopped by a signal ends without an error too."""
    return max((record["step"] for record in read_history(run.folder)), default=0) >= run.config.optim.steps


def read_result(run: Run) -> Result:
    """The result of a run whose training and evaluation have ended."""
    scores = json.loads((run.folder / "metrics.json").read_text())
    predictor = next(name for name in NETWORKS if name in scores)
    errors: dict[str, dict[str, float]] = {}  # frame -> region -> abs_rel
    with (run.folder / "per_image.csv").open(newline="") as file:
        for entry in csv.DictReader(file):
            if entry["predictor"] == predictor:
                errors.setdefault(entry["image"], {})[entry["region"]] = round(float(entry["abs_rel"]), 5)
    rates = [record["images_per_second"] for record in read_history(run.folder) if "images_per_second" in record]
    return Result(
        config=to_dict(run.config),
        versions=versions(),
        step_seconds=round(run.config.data.batch_size / float(np.median(rates)), 4) if rates else None,
        scores=scores[predictor],
        errors={region: [frame.get(region) for frame in errors.values()] for region in REGIONS},
        frames=hashlib.sha256("\n".join(errors).encode()).hexdigest()[:16],
    )


def _without_places(config: dict) -> dict:
    return {
        section: {name: value for name, value in fields.items() if name not in PLACES.get(section, ())}
        if isinstance(fields, dict)
        else fields
        for section, fields in config.items()
    }


def tabulate(runs: Sequence[Run], rows: Mapping[str, object], baseline: str) -> list[Line]:
    """A line per row with finished runs, in the order of ``rows``, whose values have a ``title`` and a ``published``.

    Raises:
      ConfigError: the runs were measured on different frames.
    """
    found = [(run, result) for run in runs if (result := run.result()) is not None]
    if len({result.frames for _, result in found}) > 1:
        raise ConfigError("the runs were measured on different test frames, which cannot be compared: make them anew")
    base_runs = {run.seed: result for run, result in found if run.row == baseline}
    lines = []
    for row in rows:
        seeds = [run.seed for run, _ in found if run.row == row]
        results = [result for run, result in found if run.row == row]
        if not results:
            continue
        pairs = [(result, base_runs[seed]) for seed, result in zip(seeds, results) if row != baseline and seed in base_runs]
        errors, base = (_frame_errors(list(side)) for side in (zip(*pairs) if pairs else ((), ())))
        seconds = [result.step_seconds for result in results if result.step_seconds is not None]
        lines.append(
            Line(
                row=row,
                title=rows[row].title,
                seeds=seeds,
                scores={
                    region: {name: spread([result.scores[region][name] for result in results]) for name in metrics.ERRORS}
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


def spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation (of a sample; 0 for one value)."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def paired_bootstrap(errors: Float[np.ndarray, " n"], baseline: Float[np.ndarray, " n"]) -> Interval:
    """Mean difference over the frames both have measured, with its 95 % interval under resampling of the frames.

    NaN where a frame was not measured. Neighbouring frames are alike, and seeds are not resampled: the interval says what
    these frames can tell, not more.
    """
    difference = errors - baseline
    difference = difference[np.isfinite(difference)]
    rng = np.random.default_rng(0)
    means = np.array([difference[rng.integers(len(difference), size=len(difference))].mean() for _ in range(DRAWS)])
    return float(difference.mean()), *(float(q) for q in np.quantile(means, (0.025, 0.975)))


def _frame_errors(results: Sequence[Result]) -> dict[str, Float[np.ndarray, " n"]]:
    """region -> abs_rel of every frame, mean over the results; regions that no frame has are absent."""
    found = {region: np.array([result.errors[region] for result in results], float) for region in REGIONS if results}
    return {region: values.mean(axis=0) for region, values in found.items() if np.isfinite(values).any()}


def markdown(lines: Sequence[Line]) -> str:
    """The table for people: abs_rel by region, difference to the baseline, cost, and the poster's figure."""
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
    note = (
        "abs_rel, mean ± standard deviation over seeds; Δ is the difference to the first row with the same seeds, with its 95 % "
        "paired bootstrap interval over test frames, and how many of the seeds have its sign.\n\n\\* the poster, Cityscapes, one "
        "run each, best checkpoint chosen on the test split; not comparable in level."
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
    seeds = line.by_seed[region]
    return f"{mean:+.4f} [{low:+.4f}, {high:+.4f}] {sum(np.sign(seeds) == np.sign(mean))}/{len(seeds)}"


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
