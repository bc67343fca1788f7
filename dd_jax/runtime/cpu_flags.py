"""Settings and threads of XLA's CPU backend. Job scripts make the settings; importing the library changes nothing."""

import importlib.metadata
import os
import platform
import sys
from pathlib import Path

THP = Path("/sys/kernel/mm/transparent_hugepage/enabled")
"""Where Linux says whether processes get huge pages: always, for memory that asks for them (madvise) or never."""

CPU_FLAGS = {
    "--xla_cpu_experimental_ynn_fusion_type": "-individual_convolution",  # convolutions by YNN make a step 20 % slower
    "--xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED",  # same speed, a third less memory for intermediates
}


def threads() -> int:
    """Threads of XLA's CPU backend: ``NPROC``, or the number of cores that this process may use.

    Sums are divided among them, so that the last bits depend on their number (docs/reliability.md).
    """
    given = os.environ.get("NPROC", "")
    if given.isdecimal() and int(given) > 0:
        return int(given)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def set_defaults() -> None:
    """Adds :data:`CPU_FLAGS` to ``XLA_FLAGS``, except flags that are already there.

    Must be called before JAX initialises its backend. Only for JAX versions known to have these flags: XLA aborts on unknown
    ones.
    """
    if importlib.metadata.version("jax").startswith(("0.10.", "0.12.")):
        given = os.environ.get("XLA_FLAGS", "")
        missing = [f"{flag}={value}" for flag, value in CPU_FLAGS.items() if flag not in given]
        os.environ["XLA_FLAGS"] = " ".join([given, *missing]).strip()


KEEP_MEMORY = {
    "glibc.malloc.mmap_max": "0",  # large blocks come from the heap too
    "glibc.malloc.trim_threshold": str(1 << 40),  # which does not give its end back
    "glibc.malloc.arena_max": "1",  # and which all threads share
}
HUGE_PAGES = {"glibc.malloc.hugetlb": "1"}


def restart_with_kept_memory() -> None:
    """Starts the command of this process again so that it keeps the memory of a step for the next, in huge pages where offered.

    XLA allocates the buffers of every step anew. To get their pages from Linux takes 10 % of a step on a CPU or more
    (docs/performance.md). glibc reads its settings only when a process starts. Nothing happens where one of them is already in
    ``GLIBC_TUNABLES``. For the first line of a script's main part: the process keeps its environment and arguments, nothing else.
    """
    given = os.environ.get("GLIBC_TUNABLES", "")
    settings = KEEP_MEMORY | (HUGE_PAGES if THP.exists() and "[madvise]" in THP.read_text() else {})
    if platform.libc_ver()[0] == "glibc" and not any(name in given for name in KEEP_MEMORY | HUGE_PAGES):
        os.environ["GLIBC_TUNABLES"] = ":".join(filter(None, [given, *(f"{name}={value}" for name, value in settings.items())]))
        os.execv(sys.executable, sys.orig_argv)
