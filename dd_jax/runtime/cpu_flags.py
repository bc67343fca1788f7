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


HUGE_PAGES = "glibc.malloc.hugetlb=1"


def restart_with_huge_pages() -> None:
    """Starts the command of this process again with large blocks of memory in huge pages, where Linux gives them when asked.

    XLA allocates the buffers of every step anew, and to get their pages takes 5 to 10 % of a step of 128x416 on a CPU. glibc
    reads this setting only when a process starts. For the first line of a script's main part: the process keeps its environment
    and arguments, nothing else.
    """
    given = os.environ.get("GLIBC_TUNABLES", "")
    offered = THP.exists() and "[madvise]" in THP.read_text()
    if offered and platform.libc_ver()[0] == "glibc" and "glibc.malloc.hugetlb" not in given:
        os.environ["GLIBC_TUNABLES"] = ":".join(filter(None, [given, HUGE_PAGES]))
        os.execv(sys.executable, sys.orig_argv)
