"""Means over all samples of all devices, used for every average in the project.

The mean over devices of masked means per device weights pixels wrongly if masks differ between devices, so numerator and
denominator are summed over the devices first. ``axis`` is the name of the mapped device axis, or None if the arrays are global
(one device).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def psum(x: jax.Array, axis: str | None) -> jax.Array:
    """Sum over the devices of ``axis``."""
    return x if axis is None else jax.lax.psum(x, axis)


def mean(x: Float[Array, "..."], axis: str | None, dims: tuple[int, ...] | None = None, keepdims: bool = False) -> jax.Array:
    """Mean over ``dims`` (default: all) and over all devices; every device has the same number of elements."""
    local = jnp.mean(x, axis=dims, keepdims=keepdims)
    return local if axis is None else jax.lax.pmean(local, axis)


def masked_mean(
    x: Float[Array, "..."], mask: Float[Array, "..."], axis: str | None, dims: tuple[int, ...] | None = None, eps: float = 1e-7
) -> jax.Array:
    """``sum(mask * x) / (sum(mask) + eps)`` over ``dims`` (default: all) and over all devices; 0 for an empty mask."""
    total = psum(jnp.sum(mask * x, axis=dims), axis)
    return total / (psum(jnp.sum(mask, axis=dims), axis) + eps)


def maximum(x: Float[Array, "..."], axis: str | None) -> Float[Array, ""]:
    """Largest element on any device; not differentiable, ``x`` needs stop_gradient."""
    largest = jnp.max(x)
    return largest if axis is None else jax.lax.pmax(largest, axis)
