"""Pinhole camera: intrinsics, disparity to depth, back-projection and projection.

Intrinsics are upper triangular with a last row of (0, 0, 1), in pixels; pixel ``(u, v)`` is (column, row) with integers at
pixel centres, so the top-left pixel is (0, 0).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

MAX_COORDINATE = 1e6
"""Pixel coordinates are clamped to +- this: points near the camera plane stay finite and land outside every image."""


def scale_intrinsics(K: Float[Array, "... 3 3"], sx: float, sy: float) -> Float[Array, "... 3 3"]:
    """Intrinsics of a feature map ``sx``, ``sy`` times the image size.

    No half-pixel shift: the outputs of a padded stride-2 convolution are centred on input pixels 2i.
    """
    return K * jnp.array([[sx], [sy], [1.0]], K.dtype)


def invert_intrinsics(K: Float[Array, "... 3 3"]) -> Float[Array, "... 3 3"]:
    """Closed-form inverse of upper triangular intrinsics."""
    fx, skew, cx, fy, cy = K[..., 0, 0], K[..., 0, 1], K[..., 0, 2], K[..., 1, 1], K[..., 1, 2]
    zero, one = jnp.zeros_like(fx), jnp.ones_like(fx)
    rows = [1 / fx, -skew / (fx * fy), (skew * cy - cx * fy) / (fx * fy), zero, 1 / fy, -cy / fy, zero, zero, one]
    return jnp.stack(rows, axis=-1).reshape(K.shape)


def flip_intrinsics(K: Float[Array, "... 3 3"], width: int) -> Float[Array, "... 3 3"]:
    """Intrinsics of the horizontally mirrored image: ``cx`` becomes ``width - 1 - cx``, the skew changes its sign."""
    sign = jnp.array([[1.0, -1.0, -1.0], [1.0, 1.0, 1.0], [1.0, 1.0, 1.0]], K.dtype)
    shift = jnp.array([[0.0, 0.0, width - 1.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]], K.dtype)
    return K * sign + shift


def zoom_intrinsics(K: Float[Array, "3 3"], factor: Float[Array, "2"], offset: Float[Array, "2"]) -> Float[Array, "3 3"]:
    """Intrinsics of an image enlarged by ``factor`` (x, y) and cropped ``offset`` pixels from its left and upper edge."""
    shift = jnp.zeros_like(K).at[:2, 2].set(0.5 * factor - 0.5 - offset)
    return K * jnp.append(factor, 1.0)[:, None] + shift


def reduce_intrinsics(K: Float[Array, "... 3 3"], halvings: int) -> Float[Array, "... 3 3"]:
    """Intrinsics of an image at 1 / 2^halvings of its size, by means of blocks: pixel centres move to ``(c + .5) s - .5``."""
    scale = 0.5**halvings
    centre = jnp.array([[0.0, 0.0, 1.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]], K.dtype)
    return scale_intrinsics(K, scale, scale) + (0.5 * scale - 0.5) * centre


def disp_to_depth(disp: Float[Array, "..."], min_depth: float, max_depth: float) -> Float[Array, "..."]:
    """Depth in [min_depth, max_depth] of a sigmoid disparity in [0, 1] (Monodepth2, section 3)."""
    return 1.0 / (1.0 / max_depth + (1.0 / min_depth - 1.0 / max_depth) * disp)


def pixel_grid(height: int, width: int) -> tuple[Float[Array, "1 w"], Float[Array, "h 1"]]:
    """Columns ``u`` and rows ``v`` of every pixel, to be broadcast."""
    return jnp.arange(width, dtype=jnp.float32)[None, :], jnp.arange(height, dtype=jnp.float32)[:, None]


def backproject(depth: Float[Array, "*b h w"], K: Float[Array, "*b 3 3"]) -> Float[Array, "*b h w 3"]:
    """Points in the camera's frame, in the unit of ``depth``: ``depth * K^-1 (u, v, 1)``."""
    u, v = pixel_grid(*depth.shape[-2:])
    inverse = invert_intrinsics(K)[..., None, None]
    y = inverse[..., 1, 1, :, :] * v + inverse[..., 1, 2, :, :]
    x = inverse[..., 0, 0, :, :] * u + inverse[..., 0, 1, :, :] * v + inverse[..., 0, 2, :, :]
    return jnp.stack([depth * x, depth * y, depth], axis=-1)


def project(points: Float[Array, "*b h w 3"], K: Float[Array, "*b 3 3"], T: Float[Array, "*b 4 4"]) -> Float[Array, "*b h w 2"]:
    """Pixel coordinates of points after the rigid transform ``T``.

    Points behind the camera give mirrored coordinates. Only the result is clamped, to +- ``MAX_COORDINATE``.
    """
    x, y, z = (points[..., i] for i in range(3))
    pose = T[..., None, None]
    moved = [
        pose[..., i, 0, :, :] * x + pose[..., i, 1, :, :] * y + pose[..., i, 2, :, :] * z + pose[..., i, 3, :, :]
        for i in range(3)
    ]
    camera = K[..., None, None]
    a = camera[..., 0, 0, :, :] * moved[0] + camera[..., 0, 1, :, :] * moved[1] + camera[..., 0, 2, :, :] * moved[2]
    b = camera[..., 1, 1, :, :] * moved[1] + camera[..., 1, 2, :, :] * moved[2]
    return divide(a, b, moved[2])


def divide(a: Float[Array, "*s"], b: Float[Array, "*s"], c: Float[Array, "*s"]) -> Float[Array, "*s 2"]:
    """Perspective division ``(a, b) / (c + 1e-7)``, finite with finite gradients for every finite input."""
    c = c + 1e-7
    scale = 1.0 / jnp.where(jnp.abs(c) < 1e-12, 1e-12, c)
    return jax.lax.clamp(-MAX_COORDINATE, jnp.stack([a * scale, b * scale], axis=-1), MAX_COORDINATE)
