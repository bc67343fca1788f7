"""Failed reads and writes of Orbax and TensorStore as one exception, without what their tasks and threads report beside it."""

import contextlib
import errno
import functools
import gc
import logging
import os
import re
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from dd_jax.checkpoints.checksums import Damage


@contextlib.contextmanager
def any_error_is_damage(what: str) -> Iterator[None]:
    """Orbax and TensorStore raise anything for damaged files, and log their content; lack of memory is none of it."""
    ignore_reports()
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


@contextlib.contextmanager
def system_error_is_os_error(folder: Path) -> Iterator[None]:
    """Orbax and TensorStore raise anything for files that cannot be written; a system error behind it is raised as such.

    So is any error if ``folder``, in which they write, is gone: then Orbax may not have met a system error.
    """
    try:
        yield
    except Exception as error:
        number = _system_error(error)
        if number is None and not folder.is_dir():
            number = errno.ENOTDIR if folder.exists() else errno.ENOENT
        if number is None:
            raise
        _discard(error)
        raise OSError(number, os.strerror(number)) from error


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An exception and its causes, each once: an error that is raised again for a second file may be among its own causes."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _system_error(error: BaseException) -> int | None:
    """Number of the system error in the chain of causes of an exception."""
    for cause in _chain(error):
        found = re.search(r"os_error_code='(\d+)'", str(cause))  # TensorStore's
        if found or getattr(cause, "errno", None):
            return int(found[1]) if found else cause.errno
    return None


@functools.cache
def ignore_reports() -> None:
    """Leaves out what threads report of errors that they also raise, and of reads and writes that end after a failed one.

    TensorStore reports the latter to an event loop that is closed by then.
    """
    hook = sys.unraisablehook

    def other(report: Any) -> None:
        if str(report.exc_value) != "Event loop is closed":
            hook(report)

    sys.unraisablehook = other
    logging.getLogger("absl").addFilter(lambda record: record.levelno < logging.ERROR or "/orbax/" not in record.pathname)
    logging.getLogger("asyncio").addFilter(lambda record: "exception was never retrieved" not in record.getMessage())


def _discard(error: BaseException) -> None:
    """Collects the other tasks that failed in Orbax, each of which would otherwise report that later."""
    for cause in _chain(error):
        traceback.clear_frames(cause.__traceback__)
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    try:
        gc.collect()
    finally:
        sys.unraisablehook = hook
