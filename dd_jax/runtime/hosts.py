"""One run by several processes, on one or more machines: connecting, sharing values, stopping together.

Every process runs the same program. Only the first (:func:`primary`) prints and writes files. With a single process, nothing
here has an effect.
"""

import contextlib
import math
import os
import pickle
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from dd_jax.config import ConfigError

T = TypeVar("T")


def connect(coordinator: str = "", processes: int = 0, process: int = -1, automatic: bool = False) -> None:
    """Connects the processes of a run; must be called before any other use of JAX.

    Args:
      coordinator: ``HOST:PORT`` of the first process, the same for all; "" = a single process.
      processes: number of processes.
      process: index of this process, from 0.
      automatic: take all of these from SLURM, Open MPI, Kubernetes or the metadata of a TPU.

    Raises:
      ConfigError: inconsistent flags, no such environment, or no connection.
    """
    given = coordinator != "", processes != 0, process != -1
    if not automatic and not any(given):
        return
    if automatic and any(given):
        raise ConfigError("--distributed detects the processes: leave out --coordinator, --processes and --process")
    if not automatic:
        if not all(given):
            raise ConfigError("--coordinator=HOST:PORT, --processes=N and --process=I belong together: give all three or none")
        if not coordinator.rpartition(":")[0] or not coordinator.rpartition(":")[2].isdecimal():
            raise ConfigError(f"--coordinator={coordinator} must be the HOST:PORT of the first process")
        if not 0 <= process < processes:
            raise ConfigError(f"--process={process} must be between 0 and {processes - 1}, since --processes={processes}")
    try:
        if automatic:
            jax.distributed.initialize()
        else:  # with flags, a process gets all devices of its machine, also under SLURM
            jax.distributed.initialize(coordinator, processes, process, cluster_detection_method="deactivate")
    except ValueError as error:
        raise ConfigError(
            "--distributed found no SLURM, Open MPI, Kubernetes or TPU metadata: "
            "give --coordinator=HOST:PORT, --processes=N and --process=I"
        ) from error
    except RuntimeError as error:
        raise ConfigError(f"the processes could not connect: {str(error).splitlines()[0]}") from error


def primary() -> bool:
    """Whether this is the first process, which writes logs and reports."""
    return jax.process_index() == 0


def share(items: Sequence[T]) -> Sequence[T]:
    """The contiguous part of a sequence for this process; the parts of all processes in order give the whole."""
    count, process = jax.process_count(), jax.process_index()
    return items[len(items) * process // count : len(items) * (process + 1) // count]


def gather(value: T) -> list[T]:
    """The values of all processes, in their order; any picklable object. All processes must call it."""
    if jax.process_count() == 1:
        return [value]
    own = np.frombuffer(pickle.dumps(value), np.uint8)
    sizes = multihost_utils.process_allgather(np.array(len(own)))
    rows = multihost_utils.process_allgather(np.pad(own, (0, int(sizes.max()) - len(own))))
    return [pickle.loads(row[:size].tobytes()) for row, size in zip(rows, sizes)]


def require_same(what: str, value: Any) -> None:
    """Checks that a value is the same in all processes. All processes must call it.

    Raises:
      ConfigError: it differs; raised in all processes.
    """
    if any(other != value for other in gather(value)):
        raise ConfigError(f"the processes of this run differ in {what}: use the same for all")


@contextlib.contextmanager
def exit_without_barrier() -> Iterator[None]:
    """Exits at once if this process fails as one of several: a normal exit would wait for the others, and they for it."""
    try:
        yield
    except BaseException as error:
        success = isinstance(error, SystemExit) and not error.code
        if success or not jax.distributed.is_initialized() or jax.process_count() == 1:
            raise
        if isinstance(error, SystemExit):
            print(error.code, file=sys.stderr)
        elif isinstance(error, jax.errors.JaxRuntimeError):
            reason = str(error).splitlines()[0]
            print(f"error: another process ended or failed: start all processes again to resume ({reason})", file=sys.stderr)
        else:
            traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)


class StopSignal:
    """Records SIGTERM and Ctrl-C, so that the loop can save before it ends; a second Ctrl-C ends at once.

    ``deadline``, a time of ``time.monotonic``, has the same effect as a signal.

    With several processes, a signal to any of them stops all at the same step: JAX's preemption service receives SIGTERM and
    agrees on a step that no process has reached. No process waits for it.
    """

    def __init__(self, deadline: float = math.inf):
        self._requested, self._several, self._deadline = False, jax.process_count() > 1, deadline

    def requested(self) -> bool:
        """Whether this process was asked to stop."""
        if not self._requested and time.monotonic() >= self._deadline:
            self._request(signal.SIGTERM, None)
        return self._requested

    def reached(self, step: int) -> bool:
        """Whether to stop after this step, the same in all processes; must be called once per step."""
        requested = self.requested()
        return multihost_utils.reached_preemption_sync_point(step) if self._several else requested

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
