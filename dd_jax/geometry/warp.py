"""Reprojection: where each target pixel, at a given depth, is seen in another camera."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from dd_jax.geometry.camera import divide, invert_intrinsics, pixel_grid


def reproject(
    depth: Float[Array, "*s b h w"], K: Float[Array, "b 3 3"], T_source_from_target: Float[Array, "*f b 4 4"]
) -> Float[Array, "..."]:
    """Source coordinates of every target pixel: ``project(backproject(depth, K), K, T)`` for every depth and every source.

    Both views share the intrinsics ``K``. The ray of a pixel is transformed once per source and shared by all depths:
    ``q ~ depth * (K R K^-1) (u, v, 1) + K t``.

    Returns:
      coordinates ``(*s, *f, b, h, w, 2)`` in pixels, clamped to +- ``camera.MAX_COORDINATE``.
    """
    u, v = pixel_grid(*depth.shape[-2:])
    warp, shift = warp_matrices(K, T_source_from_target)
    ray = [warp[..., i, 0, None, None] * u + warp[..., i, 1, None, None] * v + warp[..., i, 2, None, None] for i in range(3)]
    frames = T_source_from_target.ndim - 3
    depth = depth.reshape(*depth.shape[:-3], *(1,) * frames, *depth.shape[-3:])
    return divide(*(depth * ray[i] + shift[..., i, None, None] for i in range(3)))


def warp_matrices(
    K: Float[Array, "b 3 3"], T_source_from_target: Float[Array, "*f b 4 4"]
) -> tuple[Float[Array, "*f b 3 3"], Float[Array, "*f b 3"]]:
    """``K R K^-1`` and ``K t``, in elementwise float32 arithmetic (matrix units round too coarsely for pixels)."""
    motion = jnp.sum(K[..., :, :, None] * T_source_from_target[..., None, :3, :], axis=-2)  # K [R | t]
    rotation, shift = motion[..., :3], motion[..., 3]
    return jnp.sum(rotation[..., :, :, None] * invert_intrinsics(K)[..., None, :, :], axis=-2), shift
