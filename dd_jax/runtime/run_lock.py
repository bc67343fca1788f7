"""One run per folder: a lock that the kernel releases when the process ends, in whatever way."""

import contextlib
import fcntl
import logging
import os
import platform
from collections.abc import Iterator
from pathlib import Path

from dd_jax.config import ConfigError
from dd_jax.runtime import hosts

log = logging.getLogger(__name__)

LOCK = "run.lock"
"""File in the folder of a run; says who holds the lock, or held it last."""


@contextlib.contextmanager
def only_run(workdir: Path) -> Iterator[None]:
    """Context in which this is the only run in ``workdir``, which is created; all processes of the run must enter it.

    A file system without locks is no error, only warned of.

    Raises:
      ConfigError: another run is in it, or nothing can be written there; raised in all processes.
    """
    with contextlib.ExitStack() as held:
        refusal = hosts.gather(_take(workdir, held) if hosts.primary() else "")[0]
        if refusal:
            raise ConfigError(refusal)
        yield


def _take(workdir: Path, held: contextlib.ExitStack) -> str:
    """Locks the folder until ``held`` is closed; returns why that is impossible, "" if it is not."""
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        file = held.enter_context((workdir / LOCK).open("ab+", buffering=0))
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().decode(errors="replace")
            return f"another run trains in --workdir={workdir} ({holder}): wait for it, stop it, or name another --workdir"
        except OSError as error:
            log.warning("%s cannot be locked (%s): make sure that no second run starts in it", workdir, error.strerror)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}".encode())
    except OSError as error:
        return f"--workdir={workdir} cannot be written ({error.strerror}): make room, or name another folder"
    return ""
