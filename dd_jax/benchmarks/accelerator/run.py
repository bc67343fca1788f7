"""Runs the measurements one after another, each in its own process, and keeps the JSON file and the table up to date.

This process never uses the device, which many backends lend to one process at a time. A measurement that fails, crashes or takes
too long does not stop the others.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from dd_jax.benchmarks.accelerator import report
from dd_jax.benchmarks.accelerator.plan import Measurement, seconds_for_first
from dd_jax.benchmarks.accelerator.task import NO_TIME, Row, Task
from dd_jax.config import Config, ConfigError
from dd_jax.config.rules import validate
from dd_jax.runtime import files
from dd_jax.runtime.command_line import with_field

ROOT = Path(__file__).parents[3]

INTERRUPTED = "interrupted"


class Interrupted(BaseException):
    """SIGTERM."""


def run(
    config: Config, measurements: Sequence[Measurement], minutes: float, out: Path, command: str, **sizes: Any
) -> dict[str, Any]:
    """Measures for so many minutes at most; returns what is in the file ``out``.

    ``out`` has all results so far at any time, the same name with ``.md`` the table, with ``.log`` what the processes print.

    Args:
      command: for the heading of the table.
      sizes: fields of :class:`task.Task` that make the measurements smaller.

    Raises:
      ConfigError: an invalid config, or ``out`` exists.
    """
    validate(config, 1)
    if out.suffix != ".json" or out.exists():
        raise ConfigError(f"--out={out} {'exists' if out.exists() else 'must end with .json'}: choose another file")
    end = time.monotonic() + 60 * minutes
    found = {
        "command": command,
        "config": f"{config.name}, {config.data.height}x{config.data.width}",
        "commit": commit(),
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "minutes": minutes,
        "measurements": {measurement.name: {"state": "waiting", "rows": []} for measurement in measurements},
    }

    def save() -> None:
        files.replace(out, json.dumps(found, indent=2) + "\n")
        files.replace(out.with_suffix(".md"), report.markdown(found))

    save()
    with tempfile.TemporaryDirectory() as folder, out.with_suffix(".log").open("w") as log, sigterm_raises():
        try:
            for place, measurement in enumerate(measurements):
                result = found["measurements"][measurement.name]
                started = time.monotonic()
                seconds = seconds_for_first(end - started, [later.minutes for later in measurements[place:]])
                if seconds is None:
                    result["state"] = NO_TIME
                else:
                    own = with_field(config, "model.precision", measurement.precision or config.model.precision)
                    task = Task(own, Path(folder), platform(found), started + seconds, **sizes)
                    result["state"] = "running"

                    def record(row: Row, name: str = measurement.name, rows: list[Row] = result["rows"]) -> None:
                        rows.append(row)
                        save()
                        say(minutes, end, f"{name}: {row['what']}: {report.text_of(row)}")

                    result["state"] = measured(measurement, task, record, log)
                result["seconds"] = time.monotonic() - started
                save()
                say(minutes, end, f"{measurement.name}: {result['state']}")
        except (Interrupted, KeyboardInterrupt):
            unfinished = {"running": INTERRUPTED, "waiting": f"not run: {INTERRUPTED}"}
            for result in found["measurements"].values():
                result["state"] = unfinished.get(result["state"], result["state"])
            save()
    return found


def measured(measurement: Measurement, task: Task, record: Callable[[Row], None], log: TextIO) -> str:
    """Runs the process of a measurement, killed at the task's deadline; calls ``record`` with every row, returns the state."""
    function = f"{measurement.function.__module__}:{measurement.function.__qualname__}"
    log.write(f"\n=== {measurement.name}\n")
    log.flush()
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    kept = {"JAX_COMPILATION_CACHE_DIR": str(task.folder / "compiled")}  # measurements that follow use the same programs
    process = subprocess.Popen(
        [sys.executable, "-m", "dd_jax.benchmarks.accelerator.child", function],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True,
        env=os.environ | kept | {"PYTHONPATH": path} | measurement.environment,
    )  # fmt: skip
    timer = threading.Timer(max(task.left(), 0), kill, [process])
    timer.start()
    try:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(task.to_json())
            process.stdin.close()
        for line in process.stdout:
            if not line.endswith("\n"):  # killed while writing
                break
            message = json.loads(line)
            if "state" in message:
                return message["state"]
            record(message["row"])
        code = process.wait()
    finally:
        timer.cancel()
        kill(process)
        process.wait()
        process.stdout.close()
    if task.left() <= 0:
        return "stopped: its time was over"
    how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
    return f"failed: the process ended {how}, see the .log file"


def kill(process: subprocess.Popen) -> None:
    """Ends a process and those that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


@contextlib.contextmanager
def sigterm_raises() -> Iterator[None]:
    """SIGTERM raises :class:`Interrupted`, once."""

    def stop(*_: Any) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise Interrupted

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def platform(found: dict[str, Any]) -> str:
    """JAX's name of the devices, from the rows of the first measurement; "" if it is not known."""
    rows = found["measurements"].get("device", {"rows": []})["rows"]
    return next((row["platform"] for row in rows if "platform" in row), "")


def say(minutes: float, end: float, text: str) -> None:
    """One line of progress, with the time since the start."""
    spent = 60 * minutes - (end - time.monotonic())
    print(f"[{int(spent) // 60:2d}:{int(spent) % 60:02d}] {text}", flush=True)


def commit() -> str:
    """The commit of this clone, "unknown" outside of one."""
    try:
        done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    except OSError:
        return "unknown"
    return done.stdout.strip() or "unknown"
