"""Self-supervised depth from driving video in which things move.

To use a trained system from Python, see :class:`dd_jax.Model`:

    model = dd_jax.load("runs/kitti")
    depth = model.predict(frame, previous=previous, K=K)
    for depth in model.stream(frames, K=K):
        ...
"""

import importlib
import importlib.metadata
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dd_jax.config import ConfigError
    from dd_jax.inference.api import Model, Stream, camera_from_fov, load
    from dd_jax.inference.metric_scale import CameraHeight, Median, Speed

__all__ = ["CameraHeight", "ConfigError", "Median", "Model", "Speed", "Stream", "camera_from_fov", "load"]

_MODULES = {"ConfigError": "config"} | dict.fromkeys(("CameraHeight", "Median", "Speed"), "inference.metric_scale")
"""Modules of the public names; the others are in ``inference.api``."""

__version__ = "0.1.0"


CPU_FLAGS = {
    "--xla_cpu_experimental_ynn_fusion_type": "-individual_convolution",  # with that library a step is a fifth slower
    "--xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED",  # as fast, and its intermediates take a third less
}


def _set_cpu_flags() -> None:
    """Flags for XLA's CPU backend, unless they are set.

    Must happen before JAX looks at them; only for versions known to have these, since others would refuse to start.
    """
    if importlib.metadata.version("jax").startswith(("0.10.", "0.12.")):
        there = os.environ.get("XLA_FLAGS", "")
        new = [f"{flag}={value}" for flag, value in CPU_FLAGS.items() if flag not in there]
        os.environ["XLA_FLAGS"] = " ".join([there, *new]).strip()


_set_cpu_flags()


def __getattr__(name: str) -> object:
    """The public names, imported when they are first asked for: ``import dd_jax`` alone stays cheap."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = getattr(importlib.import_module(f"{__name__}.{_MODULES.get(name, 'inference.api')}"), name)
    return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
