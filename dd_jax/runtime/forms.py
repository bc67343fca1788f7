"""Which form of an operation a backend takes; all forms compute the same numbers, up to rounding.

The forms themselves are where the operation is. The choice is made when a program is lowered for a platform, not by the devices
of the process, so it holds for ahead-of-time compilation and export too. Reasons: docs/performance.md, "Forms by backend".
"""

import functools
import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import jax

from dd_jax.config import ConfigError

BACKENDS = ("cpu", "gpu", "tpu")

OPERATIONS: dict[str, dict[str, tuple[str, ...]]] = {
    "images": {"loop": ("cpu",), "batch": ("gpu", "tpu")},  # image_by_image, below; geometry/sampling.py
    "sampling": {"corners": ("cpu", "gpu"), "rows": ("tpu",)},  # geometry/sampling.py
    "z_buffer": {"min": ("cpu", "tpu"), "max": ("gpu",)},  # geometry/splat.py
    "bins": {"1": ("cpu", "tpu"), "8": ("gpu",), "16": (), "96": ()},  # per round: method/cost_volume.py, ds_depth.py
    "pooling": {"chunks": ("cpu", "tpu"), "whole": ("gpu",)},  # method/occlusion_filling.py
    "jitter": {"samples": ("cpu",), "batch": ("gpu", "tpu")},  # method/augment.py
    "kernel_gradient": {"products": ("cpu",), "transpose": ("gpu", "tpu")},  # networks/layers.py
    "strided_product": {"product": ("cpu", "tpu"), "convolution": ("gpu",)},  # networks/layers.py
    "upsampled_conv": {"folded": ("cpu", "gpu", "tpu"), "plain": ()},  # networks/layers.py
    "update": {"branch": ("cpu", "tpu"), "select": ("gpu",)},  # only if finite: method/optimizer.py
}
"""Forms of every operation, and the backends that take each; a form without a backend is there to be measured."""

VARIABLE = "DD_JAX_FORMS"
"""Environment variable with the arguments of :func:`use`, for a whole process: ``gpu``, ``z_buffer=max,bins=16``."""

_PLATFORMS = {"cuda": "gpu", "rocm": "gpu", "tpu": "tpu"}

T = TypeVar("T")

_taken = jax.make_user_context(default_value=())  # a part of jit's cache key: functions are traced again inside of `use`


def use(backend: str = "", **forms: str) -> AbstractContextManager:
    """A context in which operations take the form of ``backend``, wherever they run, and those in ``forms`` the given one.

    To compare forms, in tests and measurements: ``use("gpu")``, ``use(z_buffer="max")``, ``use("cpu", jitter="batch")``.

    Raises:
      ConfigError: no such backend, operation or form.
    """
    return _taken((*_taken.value, *_resolved(backend, forms).items()))


def choose(operation: str, forms: Mapping[str, Callable[..., T]], *arrays: Any) -> T:
    """``forms[name](*arrays)`` of the form that the backend takes, which compiles only this one; unknown backends take the CPU's.

    Args:
      arrays: or trees of them.

    Raises:
      ConfigError: :data:`VARIABLE` has no such backend, operation or form.
    """
    taken = _from_environment(os.environ.get(VARIABLE, "")) | dict(_taken.value)
    if operation in taken:
        return forms[taken[operation]](*arrays)
    default = _form_of(operation, "cpu")
    others = {platform: _form_of(operation, backend) for platform, backend in _PLATFORMS.items()}
    others = {platform: forms[form] for platform, form in others.items() if form != default}
    if not others:
        return forms[default](*arrays)
    return jax.lax.platform_dependent(*arrays, **others, default=forms[default])


def image_by_image(function: Callable[..., jax.Array], ndim: int, *arrays: jax.Array) -> jax.Array:
    """``function`` of the last ``ndim`` axes of the first array, for all axes before, which all arrays share.

    On a CPU in a loop, which stores what it computes. Without one, XLA merges the function with what its values are used for and
    computes each value again for every use: nine times where a window of 3x3 pixels is summed.
    """
    first = arrays[0].shape[: arrays[0].ndim - ndim]
    flat = [array.reshape(-1, *array.shape[len(first) :]) for array in arrays]

    def loop(*flat: jax.Array) -> jax.Array:
        return jax.lax.map(lambda one: function(*one), flat)

    result = choose("images", {"loop": loop, "batch": jax.vmap(function)}, *flat)
    return result.reshape(*first, *result.shape[1:])


def _form_of(operation: str, backend: str) -> str:
    return next(form for form, backends in OPERATIONS[operation].items() if backend in backends)


def _resolved(backend: str, forms: Mapping[str, str]) -> dict[str, str]:
    if backend not in ("", *BACKENDS):
        raise ConfigError(f"forms of backend {backend!r}: give one of {', '.join(BACKENDS)}")
    for operation, form in forms.items():
        if operation not in OPERATIONS:
            raise ConfigError(f"there are no forms of {operation!r}: give one of {', '.join(OPERATIONS)}")
        if form not in OPERATIONS[operation]:
            raise ConfigError(f"{operation} has no form {form!r}: give one of {', '.join(OPERATIONS[operation])}")
    return ({operation: _form_of(operation, backend) for operation in OPERATIONS} if backend else {}) | dict(forms)


@functools.cache
def _from_environment(value: str) -> dict[str, str]:
    words = [word.strip() for word in value.split(",") if word.strip()]
    try:
        backends = [word for word in words if "=" not in word]
        if len(backends) > 1:
            raise ConfigError("give one backend only")
        return _resolved("".join(backends), dict(word.split("=", 1) for word in words if "=" in word))
    except ConfigError as error:
        raise ConfigError(f"{VARIABLE}={value}: {error}") from None
