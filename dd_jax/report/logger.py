"""The log of a run: progress bar or lines, ``metrics.jsonl`` and, if tensorboardX is installed, TensorBoard files."""

import contextlib
import io
import json
import math
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from jaxtyping import UInt8
from numpy import ndarray
from tqdm import tqdm

from dd_jax.config import ConfigError
from dd_jax.report.board import Board
from dd_jax.runtime.files import parse_json

SPEEDS = ("images_per_second", "host_share")

LINE = "step {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"
"""tqdm's format of a line in a log file: elapsed and remaining time, metrics."""

NOT_FINITE = ("nan", "inf", "-inf")

HISTORY = "metrics.jsonl"


class Logger:
    """Logs the progress of a run. Use as a context manager.

    Args:
      workdir: gets ``metrics.jsonl`` and the TensorBoard files.
      total_steps: of the whole run, for the remaining time.
      start_step: the step a resumed run continues from; records of later steps are removed, since these steps are repeated.
        0 starts a new log.
      batch_size: images per step, for images / s.
      stream: for the progress, default stderr; a terminal gets a progress bar, a file a line per :meth:`log`.

    Raises:
      ConfigError: a file cannot be written; also raised by :meth:`log` and :meth:`log_validation`.
    """

    def __init__(
        self, workdir: str | Path, total_steps: int, start_step: int = 0, batch_size: int = 1, stream: io.TextIOBase | None = None
    ):
        self._workdir = Path(workdir)
        path = self._workdir / HISTORY
        with self._writing():
            self._workdir.mkdir(parents=True, exist_ok=True)
            truncate_history(path, start_step)
            self._history = path.open("a")
            self._board = _open_board(self._workdir / "tensorboard", start_step)
        self._batch_size = batch_size
        self._stream = sys.stderr if stream is None else stream
        self._last: tuple[int, float, float] | None = None  # step, time and CPU time of the last call of log
        self._live = self._stream.isatty()
        self._bar = tqdm(
            total=total_steps,
            initial=start_step,
            unit="step",
            file=self._stream if self._live else io.StringIO(),  # the bar of a log file is printed by log
            dynamic_ncols=self._live,
            bar_format=None if self._live else LINE,
        )
        self._bar._time = time.monotonic  # tqdm's default is the time of day, which may jump
        self._bar.start_t = self._bar.last_print_t = time.monotonic()

    def __enter__(self) -> "Logger":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def log(self, step: int, metrics: Mapping[str, int | float]) -> None:
        """One record of training metrics, averaged over the steps since the last one.

        The speed is measured between two calls, without :meth:`paused` times; the first call has none. ``host_share`` is the
        share of that time in which this thread used the CPU, and so may have kept the devices waiting.
        """
        now, busy = time.monotonic(), time.thread_time()
        speed = {}
        if self._last is not None and step > self._last[0] and now > self._last[1]:
            seconds = now - self._last[1]
            rate = (step - self._last[0]) / seconds * self._batch_size
            speed = dict(zip(SPEEDS, (rate, (busy - self._last[2]) / seconds), strict=True))
        self._last = (step, now, busy)
        record = dict(metrics) | speed
        self._write("train", step, record)
        self._bar.set_postfix_str(postfix(record), refresh=False)
        self._bar.update(step - self._bar.n)
        if not self._live:
            self.message(str(self._bar))

    def log_validation(
        self,
        step: int,
        metrics: Mapping[str, Mapping[str, Mapping[str, Any]]],
        panels: Mapping[str, UInt8[ndarray, "_ _ 3"]] = MappingProxyType({}),
    ) -> None:
        """Scores on the validation split, and images by name, as ``evaluate`` returns them."""
        flat = {
            f"{predictor}/{region}/{name}": value
            for predictor, regions in metrics.items()
            for region, values in regions.items()
            for name, value in values.items()
            if value is not None
        }
        self._write("val", step, flat)
        if self._board is not None:
            with self._writing():
                for name, image in panels.items():
                    self._board.image(f"val/{name}", image, step)
        scores = [f"{who} abs_rel {flat[f'{who}/all/abs_rel']:.4f}" for who in metrics if f"{who}/all/abs_rel" in flat]
        self.message(f"step {step}: validation {', '.join(scores) or 'without ground truth'}")

    def alarm(self, step: int, event: Mapping[str, Any]) -> None:
        """An alarm that begins or ends with the window up to ``step``, see ``diagnosis.alarms``."""
        self._append({"step": step, "kind": "alarm"} | dict(event))
        self.message(f"ALARM since step {event['since']}: {event['text']}" if event["state"] == "raised" else event["text"])

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Context of work that counts neither for speeds nor for the remaining time: compilation and validation."""
        now, busy = time.monotonic(), time.thread_time()
        yield
        pause = time.monotonic() - now
        self._bar.start_t += pause
        self._bar.last_print_t += pause
        if self._last is not None:
            step, last, last_busy = self._last
            self._last = step, last + pause, last_busy + time.thread_time() - busy

    def message(self, text: str) -> None:
        """A line of text, above the progress bar."""
        tqdm.write(text, file=self._stream)
        self._stream.flush()

    def close(self) -> None:
        """Ends the progress bar and closes the files."""
        self._bar.close()
        for file in (self._history, self._board):
            if file is not None:
                with contextlib.suppress(OSError):  # of writing: raised before, when the record was written
                    file.close()

    def _write(self, kind: str, step: int, record: Mapping[str, int | float]) -> None:
        finite = {key: value if math.isfinite(value) else str(value) for key, value in record.items()}  # JSON has no NaN
        self._append({"step": step, "kind": kind} | finite)
        if self._board is not None:
            with self._writing():
                self._board.scalars({f"{kind}/{key}": value for key, value in record.items()}, step)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ConfigError(
                f"the log in {self._workdir} cannot be written ({error.strerror or error}): make room there, then the same "
                "command continues from the newest checkpoint"
            ) from error

    def _append(self, record: Mapping[str, Any]) -> None:
        with self._writing():
            self._history.write(json.dumps(record) + "\n")
            self._history.flush()


class NoLogger(Logger):
    """The logger of every process but the first: does nothing."""

    def __init__(self):
        pass

    def log(self, *_: object) -> None:
        """Nothing."""

    def log_validation(self, *_: object) -> None:
        """Nothing."""

    def alarm(self, *_: object) -> None:
        """Nothing."""

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Nothing."""
        yield

    def message(self, text: str) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


def postfix(metrics: Mapping[str, int | float]) -> str:
    """``total 0.1234, skipped 0, 34.5 images/s``: the metrics without a group, the total loss first."""
    shown = sorted((name for name in metrics if "/" not in name and name not in SPEEDS), key=lambda name: name != "total")
    terms = [f"{name} {metrics[name]:.4g}" for name in shown]
    return ", ".join(terms + [f"{metrics[name]:.1f} images/s" for name in SPEEDS[:1] if name in metrics])


def read_history(workdir: str | Path) -> list[dict[str, Any]]:
    """All records of a run's ``metrics.jsonl``; empty if there is none. Incomplete and damaged lines are ignored."""
    path = Path(workdir) / HISTORY
    records = []
    for line in path.read_bytes().splitlines() if path.exists() else []:
        with contextlib.suppress(ValueError):
            record = parse_json(line)
            if _is_record(record):
                records.append(record)
    return records


def _is_record(record: Any) -> bool:
    """Whether this is what a logger writes: numbers, and those that JSON does not have as text; of alarms, text and a step."""
    if not isinstance(record, dict) or type(record.get("step")) is not int or record.get("kind") not in ("train", "val", "alarm"):
        return False
    if record["kind"] == "alarm":
        texts = (record.get(name) for name in ("alarm", "state", "text"))
        return type(record.get("since")) is int and all(isinstance(text, str) for text in texts)
    return all(type(value) in (int, float) or value in NOT_FINITE for name, value in record.items() if name != "kind")


def truncate_history(path: Path, step: int) -> None:
    """Removes the records after ``step`` (all for 0); by a rename, so that an interruption loses nothing."""
    records = [record for record in read_history(path.parent) if step > 0 and record["step"] <= step]
    rewritten = path.with_suffix(".tmp")
    rewritten.write_text("".join(json.dumps(record) + "\n" for record in records))
    rewritten.replace(path)


def _open_board(folder: Path, start_step: int) -> Board | None:
    try:
        return Board(folder, start_step)
    except ImportError:
        return None
