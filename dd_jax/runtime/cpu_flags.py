"""Flags for XLA's CPU backend, set by the job scripts; importing the library changes no environment variable."""

import importlib.metadata
import os

CPU_FLAGS = {
    "--xla_cpu_experimental_ynn_fusion_type": "-individual_convolution",  # convolutions by YNN make a step 20 % slower
    "--xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED",  # same speed, a third less memory for intermediates
}


def set_defaults() -> None:
    """Adds :data:`CPU_FLAGS` to ``XLA_FLAGS``, except flags that are already there.

    Must be called before JAX initialises its backend. Only for JAX versions known to have these flags: XLA aborts on unknown
    ones.
    """
    if importlib.metadata.version("jax").startswith(("0.10.", "0.12.")):
        given = os.environ.get("XLA_FLAGS", "")
        missing = [f"{flag}={value}" for flag, value in CPU_FLAGS.items() if flag not in given]
        os.environ["XLA_FLAGS"] = " ".join([given, *missing]).strip()
