"""Failed reads of Orbax and TensorStore as one exception, without what their tasks and threads report later."""

import contextlib
import functools
import gc
import logging
import sys
import traceback
from collections.abc import Iterator
from typing import Any

import jax

from dd_jax.checkpoints.checksums import Damage


@contextlib.contextmanager
def any_error_is_damage(what: str) -> Iterator[None]:
    """Orbax and TensorStore raise anything for damaged files, and log their content; lack of memory is none of it."""
    _ignore_late_reads()
    loggers = {logger: logger.level for logger in map(logging.getLogger, ("absl", "asyncio"))}
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    except (MemoryError, jax.errors.JaxRuntimeError):
        raise
    except Exception as error:
        _discard(error)
        raise Damage(what) from error
    finally:
        for logger, level in loggers.items():
            logger.setLevel(level)


@functools.cache
def _ignore_late_reads() -> None:
    """TensorStore's threads report reads that end after a failed one to an event loop that is closed by then."""
    hook = sys.unraisablehook

    def other(report: Any) -> None:
        if str(report.exc_value) != "Event loop is closed":
            hook(report)

    sys.unraisablehook = other


def _discard(error: BaseException | None) -> None:
    """Collects the other tasks that failed in Orbax, each of which would otherwise report that later."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    try:
        gc.collect()
    finally:
        sys.unraisablehook = hook
