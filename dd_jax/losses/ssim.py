"""Structural similarity (Wang et al. 2004) with a box window and reflected borders.

There is one formula (:func:`factors`) and two layouts. :func:`reference` and :func:`moments` take the padded :func:`planes` of
RGB images and a 3x3 window: nine shifted slices of one array, which vectorise. :func:`windowed` and :func:`distance` take any
number of channels and any window.
"""

import functools

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float

from dd_jax.runtime import forms

_C1, _C2 = 0.01**2, 0.03**2
GREY = 0.5  # moments are taken of differences from mid-grey: those of values near 1 would lose ten times more digits

Moments = Float[Array, "3 ..."] | tuple[jax.Array, jax.Array, jax.Array]
"""Local means of the values, their squares and their products with the reference's, all less mid-grey."""


@struct.dataclass
class Reference:
    """One side of the comparison, computed once and used for every prediction."""

    values: Float[Array, "..."]  # as the predictions are given
    mean: Float[Array, "..."]  # less mid-grey
    variance: Float[Array, "..."]


def factors(moments: Moments, reference: Reference) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Luminance and structure numerators, then their denominators: SSIM is n1 * n2 / (d1 * d2)."""
    mean, square, product = moments[0], moments[1], moments[2]
    light, reference_light = mean + GREY, reference.mean + GREY
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
    centred = values - GREY
    mean, square = _window_mean(jnp.stack([centred, centred * centred]), radius)
    return Reference(values, mean, square - mean * mean)


def distance(x: Float[Array, "b h w c"], reference: Reference, radius: int) -> Float[Array, "b h w c"]:
    """(1 - SSIM) / 2 per channel, against :func:`windowed` with the same radius."""
    x = x - GREY
    return distance_of(_window_mean(jnp.stack([x, x * x, x * (reference.values - GREY)]), radius), reference)


def _window_mean(x: Float[Array, "n b h w c"], radius: int) -> Float[Array, "n b h w c"]:
    size = 2 * radius + 1
    for axis in (2, 3):
        padding = [(0, 0)] * 5
        padding[axis] = (radius, radius)
        window = tuple(size if a == axis else 1 for a in range(5))
        x = jax.lax.reduce_window(jnp.pad(x, padding, mode="reflect"), 0.0, jax.lax.add, window, (1,) * 5, "VALID")
    return x / size**2


# RGB images as planes, 3x3 window.


def planes(image: Float[Array, "*n h w 3"]) -> Float[Array, "*n 3 h+2 w+2"]:
    """One plane per channel, less mid-grey, with one pixel of reflection on each side.

    Raises:
      ValueError: an image with a side below 4 pixels.
    """
    if min(image.shape[-3:-1]) < 4:
        raise ValueError(f"SSIM needs images of at least 4x4 pixels, not {image.shape[-3]}x{image.shape[-2]}")
    return forms.image_by_image(lambda one: _reflect(jnp.moveaxis(one, -1, 0) - GREY), 3, image)


def inside(planes: Float[Array, "*n 3 h w"]) -> Float[Array, "*n 3 h-2 w-2"]:
    """The planes without their border."""
    return planes[..., 1:-1, 1:-1]


def reference(image: Float[Array, "b h w 3"]) -> Reference:
    """Reference side of an RGB image, as :func:`planes`; mean and variance have no border."""
    values = planes(image)
    mean, square = _box(values), _box(values * values)
    return Reference(values, mean, square - mean * mean)


def moments(planes: Float[Array, "*n b 3 _ _"], reference: Reference) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Moments of predicted :func:`planes`, (*n, b, 3, h, w) each, for :func:`factors`."""
    return _box(planes), _box(planes * planes), _box(planes * reference.values)


def distance_gradient(
    planes: Float[Array, "*n b 3 _ _"], reference: Reference, gradient: Float[Array, "*n b #3 h w"]
) -> Float[Array, "*n b 3 h w"]:
    """Gradient of :func:`distance_of` with respect to the predicted planes, for an incoming ``gradient``.

    Written out because automatic differentiation turns each of the many slices into a padded copy of the whole array: three
    times the compile time, 1.5 times the run time and twice the memory.
    """

    def outer(planes: jax.Array, gradient: jax.Array) -> tuple[jax.Array, ...]:
        found = moments(planes, reference)
        n1, n2, d1, d2 = factors(found, reference)
        scale = 1 / (d1 * d2)
        value = n1 * n2 * scale
        return found[0], n1, n2, d1, d2, value, jnp.where(jnp.abs(value) < 1, -0.5 * gradient, 0) * scale  # clipped elsewhere

    def by_mean(*arrays: jax.Array) -> jax.Array:
        mean, n1, n2, d1, d2, value, outwards = outer(*arrays)
        by_light, by_shift = (reference.mean + GREY) * n2 - (mean + GREY) * value * d2, mean * value * d1 - reference.mean * n1
        return _surround(2 * outwards * (by_light + by_shift))

    def by_square(*arrays: jax.Array) -> jax.Array:
        _, _, _, d1, _, value, outwards = outer(*arrays)
        return _surround(-outwards * value * d1)

    def by_product(*arrays: jax.Array) -> jax.Array:
        _, n1, *_, outwards = outer(*arrays)
        return _surround(2 * outwards * n1)

    through = [_box_transposed(forms.image_by_image(part, 4, planes, gradient)) for part in (by_mean, by_square, by_product)]
    return through[0] + 2 * inside(planes) * through[1] + inside(reference.values) * through[2]


def interleaved(planes: Float[Array, "*n 3 h w"]) -> Float[Array, "*n h w 3"]:
    """The channels of a pixel side by side."""
    return forms.image_by_image(lambda one: jnp.moveaxis(one, 0, -1), 3, planes)


def _reflect(x: jax.Array) -> jax.Array:
    x = jnp.concatenate([x[..., 1:2], x, x[..., -2:-1]], axis=-1)
    return jnp.concatenate([x[..., 1:2, :], x, x[..., -2:-1, :]], axis=-2)


def _surround(x: jax.Array) -> jax.Array:
    """One pixel of zeros on each side."""
    return jnp.pad(x, [(0, 0)] * (x.ndim - 2) + [(1, 1), (1, 1)])


def _box(padded: jax.Array) -> jax.Array:
    """3x3 mean over the two last axes, without their border."""
    return _sum3(_sum3(padded, padded.ndim - 2), padded.ndim - 1) * (1 / 9)


def _box_transposed(padded: jax.Array) -> jax.Array:
    """The transpose of :func:`_reflect` and :func:`_box`, of an array surrounded by zeros."""
    for axis in (padded.ndim - 2, padded.ndim - 1):
        n, part = padded.shape[axis] - 2, functools.partial(jax.lax.slice_in_dim, padded, axis=axis)
        total = _sum3(padded, axis)
        position = jax.lax.broadcasted_iota(jnp.int32, total.shape, axis)
        padded = total + jnp.where(position == 1, part(1, 2), 0) + jnp.where(position == n - 2, part(n, n + 1), 0)
    return padded * (1 / 9)


def _sum3(x: jax.Array, axis: int) -> jax.Array:
    """Sum over three neighbours, those of the border left out."""
    n, part = x.shape[axis], functools.partial(jax.lax.slice_in_dim, x, axis=axis)
    return part(0, n - 2) + part(1, n - 1) + part(2, n)
