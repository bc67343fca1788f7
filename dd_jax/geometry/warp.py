"""Reprojection: coordinates of each target pixel, at a given depth, in another camera."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dd_jax.geometry.camera import MAX_COORDINATE, divide, invert_intrinsics, pixel_grid


def reproject(
    depth: Float[Array, "*s b h w"],
    K: Float[Array, "b 3 3"],
    T_source_from_target: Float[Array, "*f b 4 4"],
    offset: Float[Array, "*f b h w 3"] | None = None,
) -> Float[Array, "..."]:
    """Source coordinates of every target pixel: ``project(backproject(depth, K), K, T)`` for every depth and every source.

    Both views share the intrinsics ``K``. The ray of a pixel is transformed once per source and shared by all depths:
    ``q ~ depth * (K R K^-1) (u, v, 1) + K t``.

    Args:
      offset: added to the points before the rigid transform, in the unit of depth; None for a rigid scene.

    Returns:
      coordinates ``(*s, *f, b, h, w, 2)`` in pixels, clamped to +- ``camera.MAX_COORDINATE``.
    """
    scales, frames, image = depth.shape[:-3], T_source_from_target.shape[:-3], depth.shape[-3:]
    homography, shift = plane_motion(K, T_source_from_target.reshape(-1, *T_source_from_target.shape[-3:]))
    if offset is None:
        coords = _project_rays(depth.reshape(-1, *image), homography, shift)
    else:
        coords = _project_moved(depth.reshape(-1, *image), homography, shift, K, offset.reshape(-1, *image, 3))
    return coords.reshape(*scales, *frames, *image, 2)


def plane_motion(
    K: Float[Array, "b 3 3"], T_source_from_target: Float[Array, "*f b 4 4"]
) -> tuple[Float[Array, "*f b 3 3"], Float[Array, "*f b 3"]]:
    """``K R K^-1`` and ``K t``, exact for ``R = I``.

    Elementwise float32 arithmetic, because matrix units may round too coarsely for pixels. ``I`` is subtracted from the rotation
    before the product with ``K``, which keeps the digits of small rotations.
    """
    difference = T_source_from_target[..., :3, :] - jnp.eye(3, 4)
    motion = jnp.sum(K[..., :, :, None] * difference[..., None, :, :], axis=-2)  # K [R - I | t]
    rotation, shift = motion[..., :3], motion[..., 3]
    return jnp.eye(3) + jnp.sum(rotation[..., :, :, None] * invert_intrinsics(K)[..., None, :, :], axis=-2), shift


def pixel_rays(homography: Float[Array, "*b 3 3"], height: int, width: int, upscale: int = 1) -> list[Float[Array, "*b hu wu"]]:
    """The three components of ``homography (u, v, 1)`` at every pixel, or at ``upscale`` points per pixel in each direction."""
    u, v = (x / upscale for x in pixel_grid(height * upscale, width * upscale))
    rows = homography[..., None, None]
    return [rows[..., i, 0, :, :] * u + rows[..., i, 1, :, :] * v + rows[..., i, 2, :, :] for i in range(3)]


def _project_moved(depth, homography, shift, K, offset):
    rays = pixel_rays(homography, *depth.shape[-2:])
    KR = jnp.sum(homography[..., :, :, None] * K[:, None, :, :], axis=-2)[..., None, None]  # (f, b, 3, 3, 1, 1)
    moved = [sum(KR[..., i, j, :, :] * offset[..., j] for j in range(3)) + shift[..., i, None, None] for i in range(3)]
    return divide(*(depth[:, None] * ray + add for ray, add in zip(rays, moved, strict=True)))


@jax.custom_vjp
def _project_rays(
    depth: Float[Array, "s b h w"], homography: Float[Array, "f b 3 3"], shift: Float[Array, "f b 3"]
) -> Float[Array, "s f b h w 2"]:
    rays = pixel_rays(homography, *depth.shape[-2:])
    return divide(*(depth[:, None] * rays[i] + shift[..., i, None, None] for i in range(3)))


def _project_rays_forward(depth, homography, shift):
    coords = _project_rays(depth, homography, shift)
    return coords, (coords, depth, homography, shift)


def _project_rays_backward(residuals, gradient):
    # Written out because reductions over a short axis (frames), which autodiff makes of every broadcast, run 10 to 20 times
    # slower on a CPU than the same sum of slices, and over the rows than over the columns of an image.
    coords, depth, homography, shift = residuals
    u, v = pixel_grid(*depth.shape[-2:])
    rays = pixel_rays(homography, *depth.shape[-2:])
    scale = 1.0 / (depth[:, None] * rays[2] + shift[..., 2, None, None] + 1e-7)
    gradient = jnp.where(jnp.abs(coords) < MAX_COORDINATE, gradient, 0.0)
    x, y = gradient[..., 0], gradient[..., 1]
    parts = [x * scale, y * scale, -(x * coords[..., 0] + y * coords[..., 1]) * scale]
    parts = [jnp.where(jnp.isfinite(scale), part, 0.0) for part in parts]

    per_frame = sum(part * ray for part, ray in zip(parts, rays, strict=True))
    to_depth = sum(per_frame[:, i] for i in range(per_frame.shape[1]))
    to_homography, to_shift = [], []
    for part in parts:
        weighted = part * depth[:, None]
        columns = jnp.sum(weighted, axis=(0, 3))
        by_row = jnp.sum(jnp.sum(weighted * v, axis=(0, 3)), axis=-1)
        to_homography.append(jnp.stack([jnp.sum(columns * u[0], axis=-1), by_row, jnp.sum(columns, axis=-1)], axis=-1))
        to_shift.append(jnp.sum(jnp.sum(part, axis=(0, 3)), axis=-1))
    return to_depth, jnp.stack(to_homography, axis=-2), jnp.stack(to_shift, axis=-1)


_project_rays.defvjp(_project_rays_forward, _project_rays_backward)
