"""Structural similarity of arrays with any number of channels and any window.

The losses' own, for three channels and a 3x3 window, is in ``losses/photometric.py``: it is three times faster and its gradient
is written out.
"""

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float

_C1, _C2 = 0.01**2, 0.03**2


@struct.dataclass
class Moments:
    """One side of the comparison, computed once."""

    values: Float[Array, "b h w c"]
    mean: Float[Array, "b h w c"]
    square: Float[Array, "b h w c"]


def moments(values: Float[Array, "b h w c"], reach: int) -> Moments:
    """Local means of an array and of its square; windows reach so many pixels to every side."""
    mean, square = box_mean(jnp.stack([values, values * values]), reach)
    return Moments(values, mean, square)


def distance(x: Float[Array, "b h w c"], y: Moments, reach: int) -> Float[Array, "b h w c"]:
    """(1 - SSIM) / 2 in [0, 1] per channel; the border is reflected (Wang et al. 2004, with a box for a window)."""
    mean, square, product = box_mean(jnp.stack([x, x * x, x * y.values]), reach)
    near = (2 * mean * y.mean + _C1) * (2 * (product - mean * y.mean) + _C2)
    far = (mean**2 + y.mean**2 + _C1) * (square - mean**2 + y.square - y.mean**2 + _C2)
    return jax.lax.clamp(0.0, (1 - near / far) / 2, 1.0)


def box_mean(x: Float[Array, "n b h w c"], reach: int) -> Float[Array, "n b h w c"]:
    """Mean over a square window of ``2 reach + 1`` pixels."""
    size = 2 * reach + 1
    for axis in (2, 3):
        padding = [(0, 0)] * 5
        padding[axis] = (reach, reach)
        window = tuple(size if a == axis else 1 for a in range(5))
        x = jax.lax.reduce_window(jnp.pad(x, padding, mode="reflect"), 0.0, jax.lax.add, window, (1,) * 5, "VALID")
    return x / size**2
