"""The training runs of the table: unfinished runs are started or resumed, several at once.

A run is in ``OUT/ROW/seedN``; its result ``OUT/results/ROW-N.json`` is all that the table needs. A run that has a result is
not repeated.
"""

import csv
import dataclasses
import fcntl
import hashlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TextIO

import numpy as np
from tqdm import tqdm

from dd_jax.checkpoints.run_folder import versions
from dd_jax.config import Config, ConfigError, from_dict, to_dict
from dd_jax.evaluate import NETWORKS, REGIONS
from dd_jax.report import read_history
from dd_jax.runtime import files

SCRIPTS = Path(__file__).parents[2] / "scripts"

PATHS = {"data": ("root", "split_dir", "cache_dir", "threads", "ground_truth_file", "allow_pickle")}
"""Fields that say where the data are and do not change what is computed."""


@dataclasses.dataclass(frozen=True)
class Run:
    """One training run: a row with a seed."""

    row: str
    seed: int
    config: Config
    flags: tuple[str, ...]  # of scripts/train.py, which give ``config``
    folder: Path

    @property
    def file(self) -> Path:
        """Path of its result."""
        return self.folder.parents[1] / "results" / f"{self.row}-{self.seed}.json"

    def result(self) -> "Result | None":
        """Its result; None before it has finished.

        Raises:
          ConfigError: the file is damaged, or is the result of another config.
        """
        result = read_result(self.file)
        if result is not None and computed(result.config) != computed(self.config):
            raise ConfigError(f"{self.file} is the result of another config: choose another --out, or delete the file")
        return result


@dataclasses.dataclass
class Result:
    """Scores of one run on the test split."""

    config: Config
    versions: dict[str, str]
    step_seconds: float | None
    scores: dict[str, dict[str, float | int | None]]  # region -> the seven metrics and "pixels", of the student if there is one
    errors: dict[str, list[float | None]]  # region -> abs_rel of every test frame; None where it has no such pixel
    frames: str  # digest of the frame names

    def __post_init__(self):
        if not set(REGIONS) == set(self.scores) == set(self.errors):
            raise ValueError(f"it must have the regions {', '.join(REGIONS)}")


def read_result(file: Path) -> Result | None:
    """The result that :func:`write_result` wrote; None if the file does not exist.

    Raises:
      ConfigError: the file is damaged, or of a version with other fields.
    """
    if not file.is_file():
        return None
    try:
        values = json.loads(file.read_text())
        return Result(**values | {"config": from_dict(values["config"])})
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(
            f"{file} is damaged, or of a version with other fields: delete it and run again, which repeats the evaluation"
        ) from error


def write_result(file: Path, result: Result) -> None:
    """Writes a result; an interrupted write leaves the file unchanged."""
    files.replace(file, json.dumps(dataclasses.asdict(result)) + "\n")


def computed(config: Config) -> dict[str, Any]:
    """The config without the paths of the data."""
    return {
        section: {name: value for name, value in fields.items() if name not in PATHS.get(section, ())}
        if isinstance(fields, dict)
        else fields
        for section, fields in to_dict(config).items()
    }


def execute(runs: Sequence[Run], jobs: int) -> None:
    """Trains and evaluates the unfinished runs, ``jobs`` at once, each with its share of the cores and its own GPU.

    Their output goes to ``train.log`` in their folders. SIGTERM and Ctrl-C are forwarded to them, and they save before they
    exit.

    Raises:
      ConfigError: a run failed, or a signal stopped the runs; finished results are kept. Before any run starts: fewer GPUs
        than jobs, or another process trains in one of the folders.
    """
    gpus = visible_gpus() if jobs > 1 else []
    if gpus and jobs > len(gpus):
        raise ConfigError(
            f"--jobs={jobs} needs one GPU per job, and there are {len(gpus)} ({', '.join(gpus)}): "
            f"set --jobs={len(gpus)}, or JAX_PLATFORMS=cpu to use none"
        )
    waiting = [run for run in runs if run.result() is None]
    for run in waiting:
        if run.folder.is_dir():
            with _log(run):
                pass
    cores = sorted(os.sched_getaffinity(0)) if jobs > 1 and hasattr(os, "sched_getaffinity") else []
    shares: SimpleQueue[tuple[str | None, list[int]]] = SimpleQueue()
    for job in range(jobs):
        shares.put((gpus[job] if gpus else None, cores[job * len(cores) // jobs : (job + 1) * len(cores) // jobs]))

    def work(run: Run) -> Run | None:
        gpu, share = shares.get()
        try:
            return None if not programs.stopping and _make(run, programs, gpu, share) else run
        finally:
            shares.put((gpu, share))

    unfinished = []
    with (
        Programs() as programs,
        ThreadPoolExecutor(jobs) as pool,
        tqdm(total=len(runs), initial=len(runs) - len(waiting), unit="run", desc="rows x seeds") as bar,
    ):
        for run in pool.map(work, waiting):
            unfinished += [] if run is None else [run]
            bar.update(run is None)
    if unfinished and programs.stopping:
        raise ConfigError(f"stopped by a signal: {len(unfinished)} of {len(runs)} runs unfinished, the same command continues")
    if unfinished:
        names = ", ".join(str(run.folder / "train.log") for run in unfinished)
        raise ConfigError(f"{len(unfinished)} of {len(runs)} runs failed, the others are kept; see {names}")


def visible_gpus() -> list[str]:
    """The GPUs that runs may use, as CUDA_VISIBLE_DEVICES names them; empty if JAX_PLATFORMS excludes GPUs."""
    platforms = os.environ.get("JAX_PLATFORMS", "")
    if platforms and not {"cuda", "gpu"} & set(platforms.split(",")):
        return []
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:  # CUDA stops at the first invalid entry
        return list(itertools.takewhile(lambda name: name not in ("", "-1"), (name.strip() for name in given.split(","))))
    if shutil.which("nvidia-smi") is None:
        return []
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False).stdout
    return [str(number) for number in range(sum(line.startswith("GPU ") for line in listed.splitlines()))]


class Programs:
    """Child processes started from any thread; a signal to stop is forwarded to them."""

    def __init__(self):
        self._running: set[subprocess.Popen] = set()
        self.stopping = False

    def run(self, command: Sequence[str | Path], environment: dict[str, str], log: TextIO) -> int:
        """The exit status of a command, which writes to ``log``."""
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        self._running.add(process)
        if self.stopping:  # the signal may have come before the process was registered
            process.terminate()
        try:
            return process.wait()
        finally:
            self._running.discard(process)

    def __enter__(self) -> "Programs":
        self._previous = {number: signal.signal(number, self._stop) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def _stop(self, *_: object) -> None:
        self.stopping = True
        for process in list(self._running):
            process.terminate()

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)


def _make(run: Run, programs: Programs, gpu: str | None, cores: Sequence[int]) -> bool:
    run.folder.mkdir(parents=True, exist_ok=True)
    environment = {"JAX_COMPILATION_CACHE_DIR": str(run.folder.parents[1] / ".compiled")} | os.environ  # seeds share it
    if gpu is not None:
        environment["CUDA_VISIBLE_DEVICES"] = gpu
    commands = (
        [SCRIPTS / "train.py", *run.flags, f"--workdir={run.folder}"],
        [SCRIPTS / "evaluate.py", f"--checkpoint={run.folder}"],
    )
    pinned = ["taskset", "-c", ",".join(map(str, cores))] if cores else []
    with _log(run) as log:
        for command in commands:
            if programs.run([*pinned, sys.executable, *command], environment, log) or not _trained(run):
                return False
    write_result(run.file, collect_result(run))
    return True


@contextmanager
def _log(run: Run) -> Iterator[TextIO]:
    """The log of a run, locked for this process and its children; they keep the lock even if they outlive it."""
    with (run.folder / "train.log").open("a") as log:
        try:
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(f"another process trains in {run.folder}: wait for it, or stop it") from error
        yield log


def _trained(run: Run) -> bool:
    """Whether all steps were done: a training stopped by a signal also exits without an error."""
    return max((record["step"] for record in read_history(run.folder)), default=0) >= run.config.optim.steps


def collect_result(run: Run) -> Result:
    """The result of a run whose training and evaluation have finished."""
    scores = json.loads((run.folder / "metrics.json").read_text())
    predictor = next(name for name in NETWORKS if name in scores)
    errors: dict[str, dict[str, float]] = {}  # frame -> region -> abs_rel
    with (run.folder / "per_image.csv").open(newline="") as file:
        for entry in csv.DictReader(file):
            if entry["predictor"] == predictor:
                errors.setdefault(entry["image"], {})[entry["region"]] = round(float(entry["abs_rel"]), 5)
    rates = [record["images_per_second"] for record in read_history(run.folder) if "images_per_second" in record]
    return Result(
        config=run.config,
        versions=versions(),
        step_seconds=round(run.config.data.batch_size / float(np.median(rates)), 4) if rates else None,
        scores=scores[predictor],
        errors={region: [frame.get(region) for frame in errors.values()] for region in REGIONS},
        frames=hashlib.sha256("\n".join(errors).encode()).hexdigest()[:16],
    )
