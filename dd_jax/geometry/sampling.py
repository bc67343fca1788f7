"""Bilinear sampling at pixel coordinates, equal to ``torch.nn.functional.grid_sample(align_corners=True)``."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def sample_border(image: Float[Array, "b h w c"], coords: Float[Array, "*s b p q 2"]) -> Float[Array, "*s b p q c"]:
    """Image values at ``coords`` (u, v); coordinates outside are moved to the border, where their gradient is 0."""
    batch, height, width, channels = image.shape
    x, x0, fx = _cell(coords[..., 0], width)
    y, y0, fy = _cell(coords[..., 1], height)
    # One gather per point: the 2x2 neighbourhood of each pixel lies in one contiguous row.
    below = jnp.concatenate([image[:, 1:], image[:, -1:]], axis=1)
    rows = jnp.concatenate([image, below], axis=-1)
    taps = jnp.concatenate([rows, jnp.concatenate([rows[:, :, 1:], rows[:, :, -1:]], axis=2)], axis=-1)
    sample = jnp.arange(batch, dtype=jnp.int32)[:, None, None] * (height * width)
    index = sample + y0 * width + x0
    taps = taps.reshape(batch * height * width, 4 * channels).at[index].get(mode="promise_in_bounds")
    v00, v10, v01, v11 = jnp.split(taps, 4, axis=-1)  # v<column><row>... (row, column) offsets: 00, 10, 01, 11
    fx, fy = fx[..., None], fy[..., None]
    return (1 - fy) * ((1 - fx) * v00 + fx * v01) + fy * ((1 - fx) * v10 + fx * v11)


def sample_zeros(image: Float[Array, "b h w c"], coords: Float[Array, "*s b p q 2"]) -> Float[Array, "*s b p q c"]:
    """Image values at ``coords`` (u, v); neighbours outside the image count as 0."""
    return sample_border(jnp.pad(image, ((0, 0), (1, 1), (1, 1), (0, 0))), coords + 1.0)


def _cell(x, size):
    inside = (x > 0) & (x < size - 1)
    x = jnp.where(inside, x, jnp.clip(jnp.where(inside, 0.0, x), 0, size - 1))
    x0 = jnp.clip(jnp.floor(x).astype(jnp.int32), 0, max(size - 2, 0))
    return x, x0, x - x0
