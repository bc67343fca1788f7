"""One run by several processes, on one machine or many: how they find each other, what they share, how they stop together.

Every process runs the same program. The first one (:func:`primary`) speaks and writes for all. With a single process
nothing here does anything.
"""

import contextlib
import os
import pickle
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from dd_jax.config import ConfigError

T = TypeVar("T")


def connect(coordinator: str = "", processes: int = 0, process: int = -1, automatic: bool = False) -> None:
    """Joins the other processes of the run; to be called before anything of JAX is used.

    Args:
      coordinator: ``HOST:PORT`` where the first process listens, the same for all; "" = nobody to join.
      processes: how many there are.
      process: which of them this is, from 0.
      automatic: SLURM, Open MPI, Kubernetes or the metadata of a TPU say all that instead.

    Raises:
      ConfigError: flags that do not fit together, no such environment, or nobody who answers.
    """
    given = coordinator != "", processes != 0, process != -1
    if not automatic and not any(given):
        return
    if automatic and any(given):
        raise ConfigError("--distributed finds the processes by itself: leave out --coordinator, --processes and --process")
    if not automatic:
        if not all(given):
            raise ConfigError("--coordinator=HOST:PORT, --processes=N and --process=I belong together: give all three, or none")
        if not coordinator.rpartition(":")[0] or not coordinator.rpartition(":")[2].isdecimal():
            raise ConfigError(f"--coordinator={coordinator} must be HOST:PORT, where the first process can be reached")
        if not 0 <= process < processes:
            raise ConfigError(f"--process={process} must lie between 0 and {processes - 1}, one below --processes={processes}")
    try:
        if automatic:
            jax.distributed.initialize()
        else:  # told by flags, a process has all devices of its machine even where SLURM would give it one
            jax.distributed.initialize(coordinator, processes, process, cluster_detection_method="deactivate")
    except ValueError as error:
        raise ConfigError(
            "--distributed finds neither SLURM, Open MPI, Kubernetes nor a TPU's metadata here: "
            "give --coordinator=HOST:PORT, --processes=N and --process=I"
        ) from error
    except RuntimeError as error:
        raise ConfigError(f"the processes did not find each other: {str(error).splitlines()[0]}") from error


def primary() -> bool:
    """Whether this process is the one that writes logs and reports."""
    return jax.process_index() == 0


def share(items: Sequence[T]) -> Sequence[T]:
    """This process's part of a sequence; the parts are contiguous and, in the order of the processes, the whole."""
    count, process = jax.process_count(), jax.process_index()
    return items[len(items) * process // count : len(items) * (process + 1) // count]


def gather(value: T) -> list[T]:
    """The values of all processes, in their order, for all of them; anything that can be pickled. All must call it."""
    if jax.process_count() == 1:
        return [value]
    own = np.frombuffer(pickle.dumps(value), np.uint8)
    sizes = multihost_utils.process_allgather(np.array(len(own)))
    rows = multihost_utils.process_allgather(np.pad(own, (0, int(sizes.max()) - len(own))))
    return [pickle.loads(row[:size].tobytes()) for row, size in zip(rows, sizes)]


def require_same(what: str, value: Any) -> None:
    """Checks that a value is the same in all processes. All must call it.

    Raises:
      ConfigError: it is not, in all of them.
    """
    if any(other != value for other in gather(value)):
        raise ConfigError(f"the processes of this run differ in {what}: give all of them the same")


@contextlib.contextmanager
def exit_without_barrier() -> Iterator[None]:
    """Ends this process at once where it fails as one of several: the usual end waits for the others, and they for it."""
    try:
        yield
    except BaseException as error:
        wanted = isinstance(error, SystemExit) and not error.code
        if wanted or not jax.distributed.is_initialized() or jax.process_count() == 1:
            raise
        if isinstance(error, SystemExit):
            print(error.code, file=sys.stderr)
        elif isinstance(error, jax.errors.JaxRuntimeError):
            reason = str(error).splitlines()[0]
            print(f"error: another process ended, or failed as this one: start all again to go on ({reason})", file=sys.stderr)
        else:
            traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)


class StopSignal:
    """Remembers SIGTERM and Ctrl-C, so that the loop can save before it ends; a second Ctrl-C ends at once.

    With several processes one signal to any of them stops all at the same step: JAX's own service hears SIGTERM, tells the
    others and names a step that none has reached. No process waits for it.
    """

    def __init__(self):
        self._requested, self._several = False, jax.process_count() > 1

    def reached(self, step: int) -> bool:
        """Whether to stop after this step; to be asked once in every step, the answer is that of all processes."""
        return multihost_utils.reached_preemption_sync_point(step) if self._several else self._requested

    def __enter__(self) -> "StopSignal":
        numbers = (signal.SIGINT,) if self._several else (signal.SIGTERM, signal.SIGINT)
        self._previous = {number: signal.signal(number, self._request) for number in numbers}
        return self

    def _request(self, number: int, frame: Any) -> None:
        if self._requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._requested = True
        if self._several:
            os.kill(os.getpid(), signal.SIGTERM)

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
