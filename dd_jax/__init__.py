"""Self-supervised monocular depth from driving video with moving objects.

To use a trained model from Python, see :class:`dd_jax.Model`:

    model = dd_jax.load("runs/kitti")
    depth = model.predict(frame, previous=previous, K=K)
    for depth in model.stream(frames, K=K):
        ...
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dd_jax.config import ConfigError
    from dd_jax.inference.api import Model, Stream, camera_from_fov, load
    from dd_jax.inference.metric_scale import CameraHeight, Median, Speed

__all__ = ["CameraHeight", "ConfigError", "Median", "Model", "Speed", "Stream", "camera_from_fov", "load"]

_MODULES = {"ConfigError": "config"} | dict.fromkeys(("CameraHeight", "Median", "Speed"), "inference.metric_scale")
"""Modules of the public names; the others are in ``inference.api``."""

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """Imports the public names on first use, so that ``import dd_jax`` stays fast."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = getattr(importlib.import_module(f"{__name__}.{_MODULES.get(name, 'inference.api')}"), name)
    return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
