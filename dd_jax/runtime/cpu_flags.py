"""Flags and threads of XLA's CPU backend; job scripts set the flags, importing the library changes no environment variable."""

import importlib.metadata
import os

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
