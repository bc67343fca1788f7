"""Bilinear sampling at pixel coordinates, equal to ``torch.nn.functional.grid_sample(align_corners=True)``."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int32


@jax.custom_vjp
def sample_border(image: Float[Array, "b h w c"], coords: Float[Array, "*s b p q 2"]) -> Float[Array, "*s b p q c"]:
    """Image values at ``coords`` (u, v); coordinates outside are moved to the border, where their gradient is 0.

    Leading axes ``s`` of ``coords`` sample the same images again. Non-finite coordinates give non-finite values.
    """
    indices, fx, fy = corners(image.shape, coords)
    return interpolate(image, indices, corner_weights(fx, fy))


def sample_zeros(image: Float[Array, "b h w c"], coords: Float[Array, "*s b p q 2"]) -> Float[Array, "*s b p q c"]:
    """Image values at ``coords`` (u, v); neighbours outside the image count as 0."""
    return sample_border(pad_zeros(image), coords + 1.0)


def pad_zeros(image: Float[Array, "b h w c"]) -> Float[Array, "b h+2 w+2 c"]:
    """A border of one zero: sampled at ``coords + 1`` with border handling, neighbours outside the image count as 0."""
    return jnp.pad(image, ((0, 0), (1, 1), (1, 1), (0, 0)))


def corners(
    shape: tuple[Any, ...], coords: Float[Array, "*s b p q 2"]
) -> tuple[list[Int32[Array, "*s b p q"]], Float[Array, "*s b p q"], Float[Array, "*s b p q"]]:
    """Cells that coordinates fall into, for images of ``shape`` (b, h, w, c), of which b may be unknown yet.

    Returns:
      indices into an image's flattened pixels of a cell's four corners (row, column: 00, 01, 10, 11), always inside, and the
      fractions (x, y) of the way across the cell.
    """
    _, height, width, _ = shape
    x0, fx = _cell(coords[..., 0], width)
    y0, fy = _cell(coords[..., 1], height)
    corner = y0 * width + x0
    right, below = min(width - 1, 1), min(height - 1, 1) * width
    return [corner + step for step in (0, right, below, below + right)], fx, fy


def corner_weights(fx: Float[Array, "*s"], fy: Float[Array, "*s"]) -> list[Float[Array, "*s"]]:
    """Bilinear weights of the corners 00, 01, 10, 11."""
    return [(1 - fy) * (1 - fx), (1 - fy) * fx, fy * (1 - fx), fy * fx]


def interpolate(
    image: Float[Array, "b h w c"], indices: list[Int32[Array, "*s b p q"]], weights: list[Float[Array, "*s b p q"]]
) -> Float[Array, "*s b p q c"]:
    """Weighted sum of each image's flattened pixels at ``indices``, which must be inside."""
    return sum(weight[..., None] * value for weight, value in zip(weights, _values(image, indices), strict=True))


def _values(image, indices):
    # One gather per image of the batch (not one from all images in a row): it stays on its device when the batch is split.
    pixels, axis = jnp.reshape(image, (image.shape[0], -1, image.shape[-1])), indices[0].ndim - 3
    pick = jax.vmap(lambda values, index: values.at[index].get(mode="promise_in_bounds"), in_axes=(0, axis), out_axes=axis)
    return [pick(pixels, index) for index in indices]


def _cell(x, size):
    x = jnp.clip(x, 0, size - 1)
    x0 = jnp.clip(jnp.floor(x).astype(jnp.int32), 0, max(size - 2, 0))  # the integer clip keeps NaN inside the image
    return x0, x - x0


def _sample_forward(image, coords):
    return sample_border(image, coords), (image, coords)


def _sample_backward(residuals, gradient):
    # The corners are gathered again: cheaper than keeping them. The sum over channels is written out because a reduction
    # over a short minor axis is ten times slower on a CPU. Where nobody uses the first gradient, jit drops its scatter.
    image, coords = residuals
    indices, fx, fy = corners(image.shape, coords)
    to_image, axis = jnp.zeros((image.shape[0], image.shape[1] * image.shape[2], image.shape[3]), gradient.dtype), coords.ndim - 4
    add = jax.vmap(lambda total, index, part: total.at[index].add(part, mode="promise_in_bounds"), in_axes=(0, axis, axis))
    for index, weight in zip(indices, corner_weights(fx, fy), strict=True):
        to_image = add(to_image, index, gradient * weight[..., None])

    v00, v01, v10, v11 = _values(image, indices)
    fx, fy = fx[..., None], fy[..., None]
    along_x = gradient * ((1 - fy) * (v01 - v00) + fy * (v11 - v10))
    along_y = gradient * ((1 - fx) * (v10 - v00) + fx * (v11 - v01))
    sums = [sum(along[..., c] for c in range(image.shape[-1])) for along in (along_x, along_y)]
    limits = jnp.array([image.shape[2] - 1, image.shape[1] - 1], coords.dtype)
    to_coords = jnp.where((coords > 0) & (coords < limits), jnp.stack(sums, axis=-1), 0.0)
    return to_image.reshape(image.shape), to_coords


sample_border.defvjp(_sample_forward, _sample_backward)
