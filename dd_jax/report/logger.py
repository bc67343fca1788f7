"""The log of a run: a progress line, ``metrics.jsonl`` and, where tensorboardX is installed, TensorBoard files."""

import io
import json
import math
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from jaxtyping import UInt8
from numpy import ndarray

QUIET_SECONDS = 10.0
"""Where the output is no terminal, a progress line at most this often."""

HISTORY = "metrics.jsonl"


class Logger:
    """Tells where a run is. Use as a context manager.

    Args:
      workdir: gets ``metrics.jsonl`` and the TensorBoard files.
      total_steps: of the whole run, for the remaining time.
      start_step: the step a resumed run continues from; what the log says about later steps is removed, since those steps
        are about to be made again. 0 starts a new log.
      batch_size: images per step, for images / s.
      stream: where the progress line goes; a terminal gets one line that is overwritten.
    """

    def __init__(
        self, workdir: str | Path, total_steps: int, start_step: int = 0, batch_size: int = 1, stream: io.TextIOBase | None = None
    ):
        self._workdir = Path(workdir)
        self._workdir.mkdir(parents=True, exist_ok=True)
        self._history_path = self._workdir / HISTORY
        truncate_history(self._history_path, start_step)
        self._history = self._history_path.open("a")
        self._board = _open_board(self._workdir, start_step)
        self._total_steps, self._batch_size = total_steps, batch_size
        self._stream = sys.stderr if stream is None else stream
        self._live = self._stream.isatty()
        self._open_line = False  # the terminal's cursor stands at the end of a progress line
        self._last: tuple[int, float, float] | None = None  # step, time and time computed at the last call: speeds begin there
        self._printed = -math.inf

    def __enter__(self) -> "Logger":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def log(self, step: int, metrics: Mapping[str, int | float]) -> None:
        """One line of training metrics: averages since the last line, plain numbers.

        The speed is that between two calls, so the first has none: it holds the compilation. Beside it stands the share of
        that time in which this thread computed, and so might have kept the devices waiting: ``host_share``.
        """
        now, busy = time.monotonic(), time.thread_time()
        rate, speed = None, {}
        if self._last is not None and step > self._last[0] and now > self._last[1]:
            seconds = now - self._last[1]
            rate = (step - self._last[0]) / seconds
            speed = {"images_per_second": rate * self._batch_size, "host_share": (busy - self._last[2]) / seconds}
        self._last = (step, now, busy)
        record = dict(metrics) | speed
        self._write("train", step, record)
        if self._live or step >= self._total_steps or now - self._printed >= QUIET_SECONDS:
            self._printed = now
            self._say(progress_line(step, self._total_steps, record, rate, self._width()))

    def log_validation(
        self,
        step: int,
        metrics: Mapping[str, Mapping[str, Mapping[str, Any]]],
        panels: Mapping[str, UInt8[ndarray, "_ _ 3"]] = MappingProxyType({}),
    ) -> None:
        """Scores on the validation split, and pictures by name, as ``evaluate`` returns them."""
        flat = {
            f"{predictor}/{region}/{name}": value
            for predictor, regions in metrics.items()
            for region, values in regions.items()
            for name, value in values.items()
            if value is not None
        }
        self._write("val", step, flat)
        if self._board is not None:
            for name, picture in panels.items():
                self._board.add_image(f"val/{name}", picture, step, dataformats="HWC")
        scores = [f"{who} abs_rel {flat[f'{who}/all/abs_rel']:.4f}" for who in metrics if f"{who}/all/abs_rel" in flat]
        self.message(f"step {step}: validation {', '.join(scores) or 'without ground truth'}")
        self._last = (step, time.monotonic(), time.thread_time())  # validation does not count as training time

    def message(self, text: str) -> None:
        """A line of its own, which stays."""
        self._stream.write(("\r\x1b[K" if self._open_line else "") + text + "\n")
        self._stream.flush()
        self._open_line = False

    def close(self) -> None:
        """Ends the progress line and closes the files."""
        if self._open_line:
            self._stream.write("\n")
            self._open_line = False
        self._history.close()
        if self._board is not None:
            self._board.close()

    def _write(self, kind: str, step: int, record: Mapping[str, int | float]) -> None:
        finite = {key: value if math.isfinite(value) else str(value) for key, value in record.items()}  # JSON has no NaN
        self._history.write(json.dumps({"step": step, "kind": kind} | finite) + "\n")
        self._history.flush()
        if self._board is not None:
            for key, value in record.items():
                self._board.add_scalar(f"{kind}/{key}", value, step)

    def _say(self, line: str) -> None:
        self._stream.write(f"\r\x1b[K{line}" if self._live else line + "\n")
        self._stream.flush()
        self._open_line = self._live

    def _width(self) -> int:
        return shutil.get_terminal_size().columns - 1 if self._live else 10_000


class NoLogger(Logger):
    """The log of a process that is not the first: nothing."""

    def __init__(self):
        pass

    def log(self, *_: object) -> None:
        """Nothing."""

    def log_validation(self, *_: object) -> None:
        """Nothing."""

    def message(self, text: str) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing is open."""


def progress_line(step: int, total: int, metrics: Mapping[str, int | float], rate: float | None, width: int) -> str:
    """``step 120/1000  total 0.1234  ...  34.5 images/s  12 min left``, no longer than ``width``."""
    speed = metrics.get("images_per_second")
    tail = "" if speed is None or rate is None else f"  {speed:.1f} images/s  {duration((total - step) / rate)} left"
    line = f"step {step}/{total}"
    for name, value in sorted(metrics.items(), key=lambda item: item[0] != "total"):
        term = f"  {name} {value:.4g}"
        if name not in ("images_per_second", "host_share") and "/" not in name and len(line) + len(term) + len(tail) <= width:
            line += term
    return (line + tail)[:width]


def duration(seconds: int | float) -> str:
    """A time span for people, two units at most."""
    minutes, hours, days = round(seconds / 60), int(seconds // 3600), int(seconds // 86400)
    if seconds < 90:
        return f"{round(seconds)} s"
    if minutes < 90:
        return f"{minutes} min"
    return f"{hours} h {minutes % 60:02d} min" if hours < 48 else f"{days} d {hours % 24} h"


def read_history(workdir: str | Path) -> list[dict[str, Any]]:
    """All lines of a run's ``metrics.jsonl``; empty where there is none. A last line cut off by a kill is left out."""
    path = Path(workdir) / HISTORY
    records = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return records


def truncate_history(path: Path, step: int) -> None:
    """Removes what was logged after ``step`` (everything for 0) by a rename, so that no kill can lose the rest."""
    records = [record for record in read_history(path.parent) if step > 0 and record["step"] <= step]
    rewritten = path.with_suffix(".tmp")
    rewritten.write_text("".join(json.dumps(record) + "\n" for record in records))
    rewritten.replace(path)


def _open_board(workdir: Path, start_step: int) -> Any:
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(workdir / "tensorboard"), purge_step=start_step + 1 if start_step else None)
