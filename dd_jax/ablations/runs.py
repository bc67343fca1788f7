"""The training runs of the table: unfinished runs are started or resumed, several at once.

A run is in ``OUT/ROW/seedN``; its result ``OUT/results/ROW-N.json`` is all that the table needs. A run that has a result is
not repeated.
"""

import dataclasses
import fcntl
import itertools
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
from typing import TextIO

import numpy as np
from tqdm import tqdm

from dd_jax.ablations import measure, result
from dd_jax.ablations.result import Result, computed
from dd_jax.config import Config, ConfigError
from dd_jax.report import read_history
from dd_jax.runtime import files
from dd_jax.runtime.versions import versions

ROOT = Path(__file__).parents[2]

LOG = "train.log"


@dataclasses.dataclass(frozen=True)
class Run:
    """One training run: a row with a seed."""

    row: str
    seed: int
    config: Config
    base: str  # digest of the model from which it starts
    flags: tuple[str, ...]  # of scripts/train.py, which give ``config``
    folder: Path

    @property
    def file(self) -> Path:
        """Path of its result."""
        return self.folder.parents[1] / "results" / f"{self.row}-{self.seed}.json"

    def result(self) -> Result | None:
        """Its result; None before it has finished.

        Raises:
          ConfigError: the file is damaged, or is the result of another config or another base.
        """
        found = result.read(self.file)
        if found is not None and (found.base, computed(found.config)) != (self.base, computed(self.config)):
            raise ConfigError(f"{self.file} is the result of another config or base: choose another --out, or delete the file")
        return found


def execute(runs: Sequence[Run], jobs: int) -> None:
    """Trains and evaluates the unfinished runs, ``jobs`` at once, each with its share of the cores and its own GPU.

    Their output goes to ``train.log`` in their folders. A run that fails is reported, and the others go on. SIGTERM and Ctrl-C
    are forwarded to them, and they save before they exit.

    Raises:
      ConfigError: runs failed, or a signal stopped the runs; finished results are kept. Before any run starts: fewer GPUs than
        jobs, another process trains in one of the folders, or it holds a run that started from another base.
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
                _require_base(run)
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
            if run is not None and not programs.stopping:
                bar.write(f"row {run.row}, seed {run.seed}, failed: {last_words(run)} ({run.folder / LOG})", sys.stderr)
    if unfinished and programs.stopping:
        raise ConfigError(f"stopped by a signal: {len(unfinished)} of {len(runs)} runs unfinished, the same command continues")
    if unfinished:
        raise ConfigError(f"{len(unfinished)} of {len(runs)} runs failed, the others are kept; the same command tries them again")


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
        """The exit status of a command, which writes to ``log``; after a signal to stop none is started."""
        if self.stopping:
            return -signal.SIGTERM
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


def commands(run: Run) -> list[list[str | Path]]:
    """The arguments of Python for training and evaluating a run."""
    return [[ROOT / "scripts/train.py", *run.flags, f"--workdir={run.folder}"], ["-m", measure.__name__, run.folder]]


def _make(run: Run, programs: Programs, gpu: str | None, cores: Sequence[int]) -> bool:
    environment = {"JAX_COMPILATION_CACHE_DIR": str(run.folder.parents[1] / ".compiled")} | os.environ  # seeds share it
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    if gpu is not None:
        environment["CUDA_VISIBLE_DEVICES"] = gpu
    pinned = ["taskset", "-c", ",".join(map(str, cores))] if cores else []
    run.folder.mkdir(parents=True, exist_ok=True)
    with _log(run) as log:
        files.replace(run.folder / "base", run.base)
        for command in commands(run):
            if programs.run([*pinned, sys.executable, *command], environment, log) or not _trained(run):
                return False
    result.write(run.file, collect_result(run))
    return True


@contextmanager
def _log(run: Run) -> Iterator[TextIO]:
    """The log of a run, locked for this process and its children; they keep the lock even if they outlive it."""
    with (run.folder / LOG).open("a") as log:
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
    rates = [record["images_per_second"] for record in read_history(run.folder) if "images_per_second" in record]
    return Result(
        row=run.row,
        config=run.config,
        base=run.base,
        versions=versions(),
        step_seconds=round(run.config.data.batch_size / float(np.median(rates)), 4) if rates else None,
        scores=result.read_scores(run.folder / measure.FILE),
    )


def last_words(run: Run) -> str:
    """The end of a run's log: the reason why it failed."""
    lines = [line.strip() for line in (run.folder / LOG).read_text(errors="replace").splitlines()]
    return next((line.removeprefix("error: ") for line in reversed(lines) if line), "it wrote nothing")


def _require_base(run: Run) -> None:
    file = run.folder / "base"
    if file.is_file() and file.read_text() != run.base:
        raise ConfigError(f"{run.folder} holds a run from another --base: choose another --out, or delete the folder")
