"""Structural similarity (Wang et al. 2004) with a box window and reflected borders.

There is one formula (:func:`factors`) and two layouts. :func:`reference` and :func:`moments` take RGB images as rows of ``w * 3``
numbers and a 3x3 window: a shift by one pixel is a shift by three contiguous numbers, which vectorises. :func:`windowed` and
:func:`distance` take any number of channels and any window.
"""

import functools

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float

_C1, _C2 = 0.01**2, 0.03**2
_GREY = 0.5  # moments are taken of differences from mid-grey: those of values near 1 would lose ten times more digits

Moments = Float[Array, "3 ..."]
"""Local means of the values, their squares and their products with the reference's, all less mid-grey."""


@struct.dataclass
class Reference:
    """One side of the comparison, computed once and used for every prediction."""

    values: Float[Array, "..."]
    mean: Float[Array, "..."]  # less mid-grey
    variance: Float[Array, "..."]


def factors(moments: Moments, reference: Reference) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Luminance and structure numerators, then their denominators: SSIM is n1 * n2 / (d1 * d2)."""
    mean, square, product = moments[0], moments[1], moments[2]
    light, reference_light = mean + _GREY, reference.mean + _GREY
    return (
        2 * light * reference_light + _C1,
        2 * (product - mean * reference.mean) + _C2,
        light * light + reference_light * reference_light + _C1,
        square - mean * mean + reference.variance + _C2,
    )


def distance_of(moments: Moments, reference: Reference) -> Float[Array, "..."]:
    """(1 - SSIM) / 2, clipped to [0, 1]."""
    n1, n2, d1, d2 = factors(moments, reference)
    return jax.lax.clamp(0.0, (1 - n1 * n2 / (d1 * d2)) * 0.5, 1.0)


# Any window and number of channels.


def windowed(values: Float[Array, "b h w c"], radius: int) -> Reference:
    """Reference side with a square window of ``2 * radius + 1`` pixels."""
    centred = values - _GREY
    mean, square = _window_mean(jnp.stack([centred, centred * centred]), radius)
    return Reference(values, mean, square - mean * mean)


def distance(x: Float[Array, "b h w c"], reference: Reference, radius: int) -> Float[Array, "b h w c"]:
    """(1 - SSIM) / 2 per channel, against :func:`windowed` with the same radius."""
    x = x - _GREY
    return distance_of(_window_mean(jnp.stack([x, x * x, x * (reference.values - _GREY)]), radius), reference)


def _window_mean(x: Float[Array, "n b h w c"], radius: int) -> Float[Array, "n b h w c"]:
    size = 2 * radius + 1
    for axis in (2, 3):
        padding = [(0, 0)] * 5
        padding[axis] = (radius, radius)
        window = tuple(size if a == axis else 1 for a in range(5))
        x = jax.lax.reduce_window(jnp.pad(x, padding, mode="reflect"), 0.0, jax.lax.add, window, (1,) * 5, "VALID")
    return x / size**2


# RGB images as rows, 3x3 window.


def as_rows(image: Float[Array, "*n h w 3"]) -> Float[Array, "*n h w3"]:
    """Pixels of a row side by side, channels interleaved."""
    return image.reshape(*image.shape[:-2], -1)


def reference(image: Float[Array, "b h w 3"]) -> Reference:
    """Reference side of an RGB image, as rows (b, h, w * 3).

    Raises:
      ValueError: an image with a side below 4 pixels.
    """
    if min(image.shape[1:3]) < 4:
        raise ValueError(f"SSIM needs images of at least 4x4 pixels, not {image.shape[1]}x{image.shape[2]}")
    rows = as_rows(image)
    mean, square = _box(jnp.stack([rows - _GREY, (rows - _GREY) ** 2]))
    return Reference(rows, mean, square - mean * mean)


def moments(rows: Float[Array, "*n b h w3"], reference: Reference) -> Moments:
    """Moments of predicted rows, for :func:`factors`."""
    rows = rows - _GREY
    return _box(jnp.stack([rows, rows * rows, rows * (reference.values - _GREY)]))


def distance_gradient(
    rows: Float[Array, "*n b h w3"], moments: Moments, reference: Reference, gradient: Float[Array, "*n b h w3"]
) -> Float[Array, "*n b h w3"]:
    """Gradient of :func:`distance_of` with respect to the predicted ``rows``, for an incoming ``gradient``.

    Written out because automatic differentiation turns each of the many slices into a padded copy of the whole array: three
    times the compile time, 1.5 times the run time and twice the memory.
    """
    mean = moments[0]
    n1, n2, d1, d2 = factors(moments, reference)
    scale = 1 / (d1 * d2)
    value = n1 * n2 * scale
    outer = jnp.where(jnp.abs(value) < 1, -0.5 * gradient, 0) * scale  # clipped elsewhere
    by_light, by_shift = (reference.mean + _GREY) * n2 - (mean + _GREY) * value * d2, mean * value * d1 - reference.mean * n1
    by_mean = 2 * outer * (by_light + by_shift)
    by_square, by_product = -outer * value * d1, 2 * outer * n1
    through = _box_transposed(jnp.stack([by_mean, by_square, by_product]))
    return through[0] + 2 * (rows - _GREY) * through[1] + (reference.values - _GREY) * through[2]


def _box(rows: jax.Array) -> jax.Array:
    """3x3 mean of each channel of rows (..., h, w * 3)."""
    return _sum3(_sum3(rows, rows.ndim - 1, 3), rows.ndim - 2, 1) * (1 / 9)


def _box_transposed(g: jax.Array) -> jax.Array:
    return _sum3_transposed(_sum3_transposed(g, g.ndim - 1, 3), g.ndim - 2, 1) * (1 / 9)


def _sum3(x: jax.Array, axis: int, step: int) -> jax.Array:
    """Sum over a pixel and its two neighbours, the border reflected."""
    n, part = x.shape[axis] // step, functools.partial(_part, x, axis=axis, step=step)
    first = part(0, 1) + 2 * part(1, 2)
    inner = part(0, n - 2) + part(1, n - 1) + part(2, n)
    last = part(n - 1, n) + 2 * part(n - 2, n - 1)
    return jnp.concatenate([first, inner, last], axis)


def _sum3_transposed(g: jax.Array, axis: int, step: int) -> jax.Array:
    n, part = g.shape[axis] // step, functools.partial(_part, g, axis=axis, step=step)
    first = part(0, 1) + part(1, 2)
    second = 2 * part(0, 1) + part(1, 2) + part(2, 3)
    inner = part(1, n - 3) + part(2, n - 2) + part(3, n - 1)
    before_last = part(n - 3, n - 2) + part(n - 2, n - 1) + 2 * part(n - 1, n)
    last = part(n - 2, n - 1) + part(n - 1, n)
    return jnp.concatenate([first, second, inner, before_last, last], axis)


def _part(x: jax.Array, start: int, stop: int, axis: int, step: int) -> jax.Array:
    return jax.lax.slice_in_dim(x, start * step, stop * step, axis=axis)
