"""Runs of scripts/train.py that are disturbed, what they say and what they leave."""

import contextlib
import dataclasses
import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import light_run
import numpy as np
import tiny

from configs import monodepth2
from dd_jax.checkpoints import run_folder
from dd_jax.config import Config, protocols, to_dict
from dd_jax.method.train_step import create_state
from dd_jax.report import read_history

ROOT = Path(__file__).parents[1]

STEPS = 6
"""Of a run: saved every two, validated after four and at the end."""

WHOLE, LIGHT, FORKED = "scripts/train.py", "tests/light_run.py", "forked"
"""The script; the same with a few arrays in place of the networks; the latter in processes that start with all modules loaded."""

PATIENCE = 240
"""Seconds after which a process counts as hanging; a whole run takes 15 on an idle core."""


def config(drives: Path, **sections: dict) -> Config:
    """The smallest system, Monodepth2 with narrow networks."""
    result = monodepth2.get_config("demo")
    result.data.root = str(drives)
    result.data.height, result.data.width, result.data.batch_size = tiny.HEIGHT, tiny.WIDTH, 2
    result.model.width = 8
    result.optim.steps = STEPS
    result.train.log_every, result.train.checkpoint_every, result.train.eval_every, result.train.eval_frames = 1, 2, 4, 2
    result.eval = protocols.protocol("synthetic")
    for section, fields in sections.items():
        for name, value in fields.items():
            assert hasattr(getattr(result, section), name)
            setattr(getattr(result, section), name, value)
    return result


@dataclasses.dataclass
class Ended:
    """A process that ended: exit status, and all that it wrote."""

    code: int
    text: str

    def succeeded(self) -> "Ended":
        """Itself, which must have ended without an error."""
        assert self.code == 0 and "Traceback" not in self.text, self.text
        return self

    def refused(self, pattern: str) -> "Ended":
        """Itself, which must have ended with an error of one sentence that matches."""
        errors = [line for line in self.text.splitlines() if line.startswith("error: ")]
        assert self.code != 0 and "Traceback" not in self.text, self.text
        assert len(errors) == 1 and self.text.splitlines()[-1] == errors[0], self.text
        assert re.search(pattern, errors[0]), errors[0]
        return self


class Forked:
    """A run started by ``light_run.serve``, with the methods of ``subprocess.Popen`` that are needed."""

    def __init__(self, server: subprocess.Popen, arguments: list[str], log: Path):
        self._server, self._code = server, None
        print(json.dumps([arguments, str(log)]), file=server.stdin, flush=True)
        self.pid = int(server.stdout.readline())

    def wait(self, timeout: float) -> int:
        """Its exit status."""
        if self._code is None:
            if not select.select([self._server.stdout], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("forked", timeout)
            self._code = int(self._server.stdout.readline())
        return self._code

    def poll(self) -> int | None:
        """Its exit status if it has ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.wait(0)

    def send_signal(self, number: int) -> None:
        """Unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Ends it."""
        self.send_signal(signal.SIGKILL)


class Run:
    """A process that runs in a workdir, and its log."""

    def __init__(self, process: subprocess.Popen | Forked, log: Path):
        self.process, self.log = process, log

    @property
    def text(self) -> str:
        """What it wrote until now."""
        return self.log.read_text(errors="replace")

    def until(self, pattern: str) -> "Run":
        """Waits until it has written this, or ended."""
        deadline = time.monotonic() + PATIENCE
        while not re.search(pattern, self.text) and self.process.poll() is None:
            assert time.monotonic() < deadline, self.text
            time.sleep(0.02)
        return self

    def ended(self, patience: float = PATIENCE) -> Ended:
        """Its end, which must come within ``patience`` seconds."""
        try:
            code = self.process.wait(patience)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)
            raise AssertionError(f"hangs after\n{self.text}") from None
        return Ended(code, self.text)

    def disturbed(self, number: int, after: float) -> Ended:
        """Its end, caused by the signal ``number`` after so many seconds unless it ends before."""
        try:
            self.process.wait(after)
        except subprocess.TimeoutExpired:
            self.process.send_signal(number)
        return self.ended()


class Runs:
    """Starts runs that share drives and compiled programs."""

    def __init__(self, folder: Path, drives: Path):
        self.folder, self.drives = folder, drives
        flags = os.environ["XLA_FLAGS"].replace("device_count=8", "device_count=1")
        self.environment = os.environ | {
            "XLA_FLAGS": flags,
            "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "GLIBC_TUNABLES": "glibc.malloc.hugetlb=0",  # given, so that no script starts again: forked runs cannot
            "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}",
        }
        self._count, self._server = 0, None

    def start(self, workdir: Path, *arguments: str, script: str = LIGHT, **sections: dict) -> Run:
        """A run with a changed :func:`config`; its log lies outside of the workdir."""
        self._count += 1
        values, file = self.folder / f"{self._count}.json", self.folder / f"{self._count}.py"
        values.write_text(json.dumps(to_dict(config(self.drives, **sections))))
        file.write_text(
            "import json\nfrom dd_jax import config\n\n"
            f"def get_config(_=None):\n    return config.from_dict(json.load(open({str(values)!r})))\n"
        )
        arguments = [f"--config={file}", f"--workdir={workdir}", *arguments]
        log = self.folder / f"{self._count}.log"
        log.touch()
        if script == FORKED:
            if self._server is None:
                self._server = self._popen([LIGHT, "serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            return Run(Forked(self._server, arguments, log), log)
        with log.open("w") as output:
            return Run(self._popen([script, *arguments], stdout=output, stderr=subprocess.STDOUT), log)

    def _popen(self, command: list[str], **streams: Any) -> subprocess.Popen:
        return subprocess.Popen([sys.executable, *command], env=self.environment, cwd=ROOT, **streams)

    def close(self) -> None:
        """Ends the server of forked runs."""
        if self._server is not None:
            self._server.communicate()


@dataclasses.dataclass
class Result:
    """All that a run computed."""

    step: int
    state: Any  # parameters, batch statistics, optimiser state
    data: Any  # position in the data
    score: float | None
    records: list[dict[str, Any]]


def result(workdir: Path, script: str = LIGHT) -> Result:
    """Reads the newest checkpoint and the records, of which speeds are left out; each step must have one."""
    restored = run_folder.restore(workdir, create_state(config(workdir)) if script == WHOLE else light_run.create_state())
    state = jax.tree.map(np.asarray, restored.state)
    return Result(restored.step, state, restored.data, restored.score, records(workdir))


def records(workdir: Path) -> list[dict[str, Any]]:
    """The records of a run without speeds; every line must be whole and no step may have two of a kind."""
    rows = read_history(workdir)
    assert len(rows) == len((workdir / "metrics.jsonl").read_text().splitlines())
    keys = [(row["kind"], row["step"]) for row in rows]
    assert len(set(keys)) == len(keys)
    return [{name: value for name, value in row.items() if name not in ("images_per_second", "host_share")} for row in rows]


def assert_bit_equal(found: Result, expected: Result) -> None:
    """Both have the same bits, and the same records of every step once."""
    assert jax.tree.structure(found.state) == jax.tree.structure(expected.state)
    for one, other in zip(jax.tree.leaves(found.state), jax.tree.leaves(expected.state), strict=True):
        assert one.dtype == other.dtype and one.tobytes() == other.tobytes()
    for name in ("step", "data", "score", "records"):
        assert getattr(found, name) == getattr(expected, name), name
