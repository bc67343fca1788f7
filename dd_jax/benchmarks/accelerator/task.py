"""What a measurement gets and yields."""

import dataclasses
import itertools
import json
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from dd_jax.config import Config, from_dict, to_dict

Row = dict[str, Any]
"""``what`` was measured, its figures (the end of a name is the unit: ``report.figure``), or a ``note`` why there are none."""

NO_TIME = "not run: no time"


@dataclasses.dataclass(frozen=True)
class Task:
    """Input of a measurement.

    Attributes:
      folder: for files; all measurements of a run share it.
      platform: of the devices, as JAX calls it ("cpu", "gpu", "tpu"); "" for the first measurement, which finds out.
      deadline: the process is killed at this ``time.monotonic()``, which all processes of a machine share.
      batch_sizes: to measure, ascending; empty: from one sample per microbatch on, doubled until memory ends.
      test_folders: below ``tests/``.
    """

    config: Config
    folder: Path
    platform: str
    deadline: float
    batch_sizes: tuple[int, ...] = ()
    test_folders: tuple[tuple[str, ...], ...] = (("geometry", "losses", "networks"), ("method",))

    def left(self) -> float:
        """Seconds until the deadline."""
        return self.deadline - time.monotonic()

    def sizes(self) -> Iterable[int]:
        """Batch sizes to measure."""
        return self.batch_sizes or (self.config.train.microbatches * 2**power for power in itertools.count())

    def to_json(self) -> str:
        """Inverse of :meth:`from_json`."""
        return json.dumps(vars(self) | {"config": to_dict(self.config), "folder": str(self.folder)})

    @classmethod
    def from_json(cls, text: str) -> "Task":
        """The task that another process wrote."""
        values = json.loads(text)
        values["test_folders"] = tuple(tuple(folders) for folders in values["test_folders"])
        values["batch_sizes"] = tuple(values["batch_sizes"])
        return cls(**values | {"config": from_dict(values["config"]), "folder": Path(values["folder"])})


def attempts(task: Task, trials: Iterable[tuple[str, Callable[[], Row]]], until_failure: bool = False) -> Iterator[Row]:
    """A row for each trial (what, function): its figures, or a note that it failed, or that there is no time for it.

    There is none if less is left than the longest trial took so far, and half of it more with ``until_failure``.

    Args:
      until_failure: the trials grow, so none can succeed after the first that does not.
    """
    longest = 0.0
    for what, measure in trials:
        if task.left() < longest * (1.5 if until_failure else 1.0):
            row = {"note": NO_TIME}
        else:
            start = time.monotonic()
            try:
                row = measure()
            except Exception as error:
                row = {"note": "out of memory" if out_of_memory(error) else f"failed: {sentence(error)}"}
            longest = max(longest, time.monotonic() - start)
        yield {"what": what} | row
        if until_failure and "note" in row:
            return


def out_of_memory(error: Exception) -> bool:
    """Whether the compiler or the device says so."""
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)


def sentence(error: Exception) -> str:
    """The first line of an error's message, after the name of its class unless it is one of this project."""
    message = (str(error).splitlines() or [""])[0][:300]
    return message if type(error).__module__.startswith("dd_jax") else f"{type(error).__name__}: {message}"
