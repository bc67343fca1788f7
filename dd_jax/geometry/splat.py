"""Forward warp: renders an image into another camera through its depth, with a z-buffer."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32

from dd_jax.geometry.sampling import sample_zeros
from dd_jax.geometry.se3 import invert_pose
from dd_jax.geometry.warp import pixel_rays, plane_motion
from dd_jax.runtime import forms

_NEAREST = 1e-3
"""Smallest depth in the source camera; points behind the camera are clamped to it."""


def forward_warp(
    image: Float[Array, "b h w c"],
    depth: Float[Array, "b h w"],
    T_source_from_target: Float[Array, "b 4 4"],
    K: Float[Array, "b 3 3"],
    upscale: int = 3,
) -> tuple[Float[Array, "b h w c"], Float[Array, "b h w"], Bool[Array, "b h w"]]:
    """The target ``image`` as seen from the source camera (Insta-DM; DynamicDepth section 3.2).

    Each source pixel takes the depth of the nearest point that falls into it, from a cloud of ``upscale`` points per pixel
    and direction, and samples the image where that point came from: no blending, deterministic. ``depth`` should cover the
    whole scene even if only objects are rendered, because nearer points occlude farther ones.

    Returns:
      image and depth in the source camera, 0 where no point fell, and the mask of pixels that are rendered.
    """
    coords, nearest, valid = splat_coords(depth, T_source_from_target, K, upscale)
    return jnp.where(valid[..., None], sample_zeros(image, coords), 0.0), nearest, valid


def splat_coords(
    depth: Float[Array, "b h w"], T_source_from_target: Float[Array, "b 4 4"], K: Float[Array, "b 3 3"], upscale: int
) -> tuple[Float[Array, "b h w 2"], Float[Array, "b h w"], Bool[Array, "b h w"]]:
    """The geometry of :func:`forward_warp`: target coordinates of each source pixel's nearest point, its depth in the source
    camera (0 if there is none), and the mask of source pixels with a point from inside the image."""
    height, width = depth.shape[1:]
    nearest, hit = splat_depth(depth, T_source_from_target, K, upscale)
    homography, shift = plane_motion(K, invert_pose(T_source_from_target))
    u, v, _ = _move(jnp.where(hit, nearest, 1.0), pixel_rays(homography, height, width), shift)
    valid = hit & (u >= 0) & (u <= width - 1) & (v >= 0) & (v <= height - 1)
    return jnp.stack([u, v], axis=-1), jnp.where(valid, nearest, 0.0), valid


def splat_depth(
    depth: Float[Array, "b h w"], T_source_from_target: Float[Array, "b 4 4"], K: Float[Array, "b 3 3"], upscale: int
) -> tuple[Float[Array, "b h w"], Bool[Array, "b h w"]]:
    """Nearest depth in each source pixel (0 if no point falls into it), and whether any point does."""
    batch, height, width = depth.shape
    u, v, z = splat_points(depth, T_source_from_target, K, upscale)
    inside = (u >= 0) & (u < width) & (v >= 0) & (v < height)  # also False for NaN
    row, column = (jnp.where(inside, x, 0.0).astype(jnp.int32) for x in (v, u))
    cell = jnp.where(inside, row * width + column, height * width).reshape(batch, -1)
    by_form = {"min": functools.partial(_minima, height * width), "max": functools.partial(_negated_maxima, height * width)}
    nearest = forms.choose("z_buffer", by_form, cell, z.reshape(batch, -1)).reshape(depth.shape)
    hit = jnp.isfinite(nearest)
    return jnp.where(hit, nearest, 0.0), hit


def _minima(cells: int, cell: Int32[Array, "b p"], z: Float[Array, "b p"]) -> Float[Array, "b _"]:
    """Smallest ``z`` of each cell, infinite where there is none; points outside have the cell number ``cells``."""
    empty = jnp.full((len(cell), cells + 1), jnp.inf)
    return jax.vmap(lambda nearest, cell, z: nearest.at[cell].min(z, mode="promise_in_bounds"))(empty, cell, z)[:, :-1]


def _negated_maxima(cells: int, cell: Int32[Array, "b p"], z: Float[Array, "b p"]) -> Float[Array, "b _"]:
    # A GPU has atomic maxima of floats, not minima; and points outside do not meet in one cell, for which they would wait.
    empty = jnp.full((len(cell), cells), -jnp.inf)
    return -jax.vmap(lambda nearest, cell, z: nearest.at[cell].max(-z, mode="drop"))(empty, cell, z)


def splat_points(
    depth: Float[Array, "b h w"], T_source_from_target: Float[Array, "b 4 4"], K: Float[Array, "b 3 3"], upscale: int
) -> tuple[Float[Array, "b hu wu"], ...]:
    """Source coordinates (u, v) and depth of the point cloud: point (i, j) lies at pixel (i, j) / ``upscale`` and has that
    pixel's depth (nearest, rounded down)."""
    homography, shift = plane_motion(K, T_source_from_target)
    fine = jnp.repeat(jnp.repeat(depth, upscale, axis=1), upscale, axis=2)
    return _move(fine, pixel_rays(homography, *depth.shape[1:], upscale), shift)


def _move(depth, rays, shift):
    """Coordinates (u, v) and depth (at least ``_NEAREST``) of points on transformed rays; exact for the identity."""
    inverse = 1.0 / depth
    x, y, z = (rays[i] + shift[:, i, None, None] * inverse for i in range(3))
    scale = 1.0 / jnp.maximum(z, _NEAREST * inverse)
    return x * scale, y * scale, jnp.maximum(depth * z, _NEAREST)
