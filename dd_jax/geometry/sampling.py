"""Bilinear sampling at pixel coordinates, equal to ``torch.nn.functional.grid_sample(align_corners=True)``."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32

from dd_jax.runtime import forms


@jax.custom_vjp
def sample_border(image: Float[Array, "b h w c"], coords: Float[Array, "*s b p q 2"]) -> Float[Array, "*s b p q c"]:
    """Image values at ``coords`` (u, v); coordinates outside are clamped to the border and have no gradient.

    Leading axes ``s`` of ``coords`` sample the same images again. Non-finite coordinates give non-finite values.
    """
    return _scale_by_scale(_sample, image, coords)


def _sample(image: jax.Array, coords: jax.Array) -> jax.Array:
    corner, fx, fy = corners(image.shape, coords)
    return interpolate(image, corner, corner_weights(fx, fy))


def _scale_by_scale(function: Callable[..., jax.Array], image: jax.Array, *arrays: jax.Array) -> jax.Array:
    """``function(image, *arrays)``, on a CPU in a loop over the first axis ``s`` of ``arrays``; see ``forms.image_by_image``."""
    if arrays[0].ndim == 4:
        return function(image, *arrays)

    def loop(image: jax.Array, *arrays: jax.Array) -> jax.Array:
        return jax.lax.map(lambda one: function(image, *one), arrays)

    return forms.choose("images", {"loop": loop, "batch": function}, image, *arrays)


def sample_zeros(image: Float[Array, "b h w c"], coords: Float[Array, "*s b p q 2"]) -> Float[Array, "*s b p q c"]:
    """Image values at ``coords`` (u, v); neighbours outside the image count as 0."""
    return sample_border(pad_zeros(image), coords + 1.0)


def pad_zeros(image: Float[Array, "b h w c"]) -> Float[Array, "b h+2 w+2 c"]:
    """Pads one pixel of zeros: border sampling at ``coords + 1`` then equals zero padding at ``coords``."""
    return jnp.pad(image, ((0, 0), (1, 1), (1, 1), (0, 0)))


def corners(
    shape: tuple[Any, ...], coords: Float[Array, "*s b p q 2"]
) -> tuple[Int32[Array, "*s b p q"], Float[Array, "*s b p q"], Float[Array, "*s b p q"]]:
    """Cells that coordinates fall into, for images of ``shape`` (b, h, w, c); b may be symbolic.

    Returns:
      index into an image's flattened pixels of a cell's upper left corner, such that all four are inside, and the fractions
      (x, y) of the way across the cell.
    """
    _, height, width, _ = shape
    x0, fx = _cell(coords[..., 0], width)
    y0, fy = _cell(coords[..., 1], height)
    return y0 * width + x0, fx, fy


def corner_weights(fx: Float[Array, "*s"], fy: Float[Array, "*s"]) -> list[Float[Array, "*s"]]:
    """Bilinear weights of a cell's corners, row and column: 00, 01, 10, 11."""
    return [(1 - fy) * (1 - fx), (1 - fy) * fx, fy * (1 - fx), fy * fx]


def interpolate(
    image: Float[Array, "b h w c"], corner: Int32[Array, "*s b p q"], weights: list[Float[Array, "*s b p q"]]
) -> Float[Array, "*s b p q c"]:
    """Weighted sum of the four corners of the cells at ``corner``, as :func:`corners` finds them."""

    def weighted(values: list[jax.Array], *weights: jax.Array) -> jax.Array:
        return sum(weight[..., None] * value for weight, value in zip(weights, values, strict=True))

    return _with_corners(weighted, image, corner, *weights)


def _steps(shape: tuple[Any, ...]) -> tuple[int, int, int, int]:
    """Offsets from a cell's upper left corner to its four corners, in flattened pixels."""
    right, below = min(shape[2] - 1, 1), min(shape[1] - 1, 1) * shape[2]
    return 0, right, below, below + right


def _with_corners(use: Callable[..., jax.Array], image: jax.Array, corner: jax.Array, *others: jax.Array) -> jax.Array:
    """``use([v00, v01, v10, v11], *others)``: an elementwise function of the values at each cell's corners, (*s, b, p, q, c)."""
    by_form = {"corners": functools.partial(_one_by_one, use), "rows": functools.partial(_rows_of_cells, use)}
    return forms.choose("sampling", by_form, image, corner, *others)


def _one_by_one(use: Callable[..., jax.Array], image: jax.Array, corner: jax.Array, *others: jax.Array) -> jax.Array:
    # One gather per image of the batch, not one over all images: it stays on its device when the batch is split.
    pixels, axis = _flat(image), corner.ndim - 3
    pick = jax.vmap(lambda values, index: values.at[index].get(mode="promise_in_bounds"), in_axes=(0, axis), out_axes=axis)
    return use([pick(pixels, corner + step) for step in _steps(image.shape)], *others)


LANES = 128
"""Lanes of a TPU's vector registers."""


def _rows_of_cells(use: Callable[..., jax.Array], image: jax.Array, corner: jax.Array, *others: jax.Array) -> jax.Array:
    # One gather per cell, from rows that hold its four corners. For each index a TPU reads 8 x 128 numbers if the gathered rows
    # are 128 long, and 8 x 128 for *every* number of a row if they are shorter. Such rows take memory, so images are processed
    # one after another.
    steps, channels, axis = _steps(image.shape), image.shape[-1], corner.ndim - 3

    def one(arrays: tuple[jax.Array, ...]) -> jax.Array:
        pixels, corner, *others = arrays
        rows = jnp.concatenate([jnp.roll(pixels, -step, axis=0) for step in steps], axis=-1)
        rows = jnp.pad(rows, ((0, 0), (0, -rows.shape[1] % LANES)))
        found = rows.at[corner].get(mode="promise_in_bounds")
        return use([found[..., i * channels : (i + 1) * channels] for i in range(len(steps))], *others)

    first = (jnp.moveaxis(x, axis, 0) for x in (corner, *others))
    return jnp.moveaxis(jax.lax.map(one, (_flat(image), *first)), 0, axis)


def _flat(image: jax.Array) -> jax.Array:
    return jnp.reshape(image, (image.shape[0], -1, image.shape[-1]))


def _cell(x, size):
    x = jnp.clip(x, 0, size - 1)
    x0 = jnp.clip(jnp.floor(x).astype(jnp.int32), 0, max(size - 2, 0))  # the integer clip keeps NaN inside the image
    return x0, x - x0


def _sample_forward(image, coords):
    return sample_border(image, coords), (image, coords)


def _sample_backward(residuals, gradient):
    # Gathering the corners again is cheaper than keeping them. If the gradient of the image is not used, jit drops its scatter.
    image, coords = residuals
    corner, fx, fy = corners(image.shape, coords)
    to_image, axis = jnp.zeros((image.shape[0], image.shape[1] * image.shape[2], image.shape[3]), gradient.dtype), coords.ndim - 4
    add = jax.vmap(lambda total, index, part: total.at[index].add(part, mode="promise_in_bounds"), in_axes=(0, axis, axis))
    for step, weight in zip(_steps(image.shape), corner_weights(fx, fy), strict=True):
        to_image = add(to_image, corner + step, gradient * weight[..., None])

    return to_image.reshape(image.shape), _scale_by_scale(_gradient_of_coords, image, coords, gradient)


def _gradient_of_coords(image, coords, gradient):
    slopes = _with_corners(_slopes, image, *corners(image.shape, coords), gradient)
    limits = jnp.array([image.shape[2] - 1, image.shape[1] - 1], coords.dtype)
    return jnp.where((coords > 0) & (coords < limits), slopes, 0.0)


def _slopes(values, fx, fy, gradient):
    # The sum over channels is written out because a reduction over a short minor axis is ten times slower on a CPU.
    v00, v01, v10, v11 = values
    fx, fy = fx[..., None], fy[..., None]
    along_x = gradient * ((1 - fy) * (v01 - v00) + fy * (v11 - v10))
    along_y = gradient * ((1 - fx) * (v10 - v00) + fx * (v11 - v01))
    return jnp.stack([sum(along[..., c] for c in range(along.shape[-1])) for along in (along_x, along_y)], axis=-1)


sample_border.defvjp(_sample_forward, _sample_backward)


def reduce_image(image: Float[Array, "*n h w c"], halvings: int) -> Float[Array, "*n _ _ c"]:
    """The image at 1 / 2^halvings of its size: means of square blocks."""
    for _ in range(halvings):
        rows = image[..., 0::2, :, :] + image[..., 1::2, :, :]
        image = (rows[..., 0::2, :] + rows[..., 1::2, :]) * 0.25
    return image


def reduce_image_with_holes(
    image: Float[Array, "*n h w c"], holes: Bool[Array, "*n h w"], halvings: int
) -> tuple[Float[Array, "*n _ _ c"], Bool[Array, "*n _ _"]]:
    """:func:`reduce_image` over the pixels outside of holes, which are black; a hole where most of a block is one."""
    share = reduce_image(holes[..., None].astype(image.dtype), halvings)
    reduced = reduce_image(image, halvings) / jnp.where(share > 0.5, 1.0, 1 - share)
    return jnp.where(share > 0.5, 0.0, reduced), share[..., 0] > 0.5
