"""The tests of the numeric folders on the accelerator, with the highest precision of products and with the default."""

import importlib.util
import itertools
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from dd_jax.benchmarks.accelerator.device import cores
from dd_jax.benchmarks.accelerator.task import Row, Task

ROOT = Path(__file__).parents[3]

NAME_FIRST = re.compile(r"^(tests/\S+::.+?) (PASSED|FAILED|ERROR|SKIPPED)\b")
NAME_LAST = re.compile(r"^\[gw\d+\].* (PASSED|FAILED|ERROR|SKIPPED) (tests/.+?)\s*$")
"""Lines of ``pytest -v`` in one process, and in several."""

REASON = re.compile(r"^(?:FAILED|ERROR) (tests/.+)$", re.MULTILINE)
"""A failure in pytest's summary, with the first line of the error."""

PROCESSES = 8
"""Tests compile more than they compute, so several processes share a GPU."""

INTERRUPTIBLE = (
    "import signal, sys, pytest; signal.signal(signal.SIGINT, signal.default_int_handler); sys.exit(pytest.main(sys.argv[1:]))"
)
"""pytest that SIGINT ends, also where this process ignores it, as with nohup or in the background of a script."""

ENDING = 15.0
"""Seconds in which pytest must print its summary when its time is over."""


def run(task: Task) -> Iterator[Row]:
    """A row for each group of folders and precision, which share the time; tests that did not run in time are not counted."""
    if not (ROOT / "tests").is_dir() or importlib.util.find_spec("pytest") is None:
        yield {"what": "tests", "note": "not run: they need a clone of the repository and pip install -e '.[test]'"}
        return
    processes = 1 if task.platform == "tpu" else min(PROCESSES, cores())  # a TPU belongs to one process
    runs = list(itertools.product(task.test_folders, ("highest", "default")))
    for place, (folders, precision) in enumerate(runs):
        seconds = (task.left() - ENDING) / (len(runs) - place)
        yield {"what": f"{', '.join(folders)}; {precision} precision"} | outcomes(folders, precision, seconds, processes)


def outcomes(folders: tuple[str, ...], precision: str, seconds: float, processes: int) -> Row:
    """Numbers of outcomes and failures of the fast tests of these folders, until ``seconds`` are over."""
    command = [sys.executable, "-c", INTERRUPTIBLE, "-v", "--tb=line", "-p", "no:cacheprovider"]
    command += ["-m", "not slow and not faults and not fuzz"]
    if processes > 1 and importlib.util.find_spec("xdist"):
        command += ["-n", str(processes)]
    environment = os.environ | {"COLUMNS": "300", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    environment.setdefault("JAX_PLATFORMS", "")  # the tests' own default is the CPU
    for name in ("JAX_DEFAULT_MATMUL_PRECISION", "JAX_COMPILATION_CACHE_DIR"):
        environment.pop(name, None)
    if precision != "default":
        environment["JAX_DEFAULT_MATMUL_PRECISION"] = precision
    command += [f"tests/{folder}" for folder in folders]
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    late = {}
    try:
        text, _ = process.communicate(timeout=max(seconds, 1))
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        late = {"note": "the time was over before all had run"}
        text, _ = process.communicate()
    sys.stderr.write(text)
    return counted(text) | late


def counted(text: str) -> Row:
    """Outcomes in the output of ``pytest -v``; of failures the names, with the reason if there is a summary."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        if match := NAME_FIRST.match(line):
            found[match[1]] = match[2]
        elif match := NAME_LAST.match(line):
            found[match[2]] = match[1]
    outcomes = list(found.values())
    failures = REASON.findall(text) or [name for name, outcome in found.items() if outcome in ("FAILED", "ERROR")]
    row = {"passed": outcomes.count("PASSED"), "failed": len(failures), "skipped": outcomes.count("SKIPPED")}
    return row | ({"failures": failures} if failures else {})
