"""Surface normals of a depth map."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dd_jax.geometry.camera import backproject


def depth_to_normals(depth: Float[Array, "*b h w"], K: Float[Array, "*b 3 3"]) -> Float[Array, "*b h w 3"]:
    """Unit normals in the camera's frame, pointing away from the camera: a wall seen head-on has (0, 0, 1).

    Cross product of the Sobel derivatives of the back-projected points along columns and rows, borders repeated. A factor
    on the depth cancels out. Where the surface degenerates to a line the normal, and its gradient, are 0.
    """
    points = backproject(depth, K)
    points = jnp.pad(points, [(0, 0)] * (points.ndim - 3) + [(1, 1), (1, 1), (0, 0)], mode="edge")
    smooth = points[..., :-2, :, :] + 2 * points[..., 1:-1, :, :] + points[..., 2:, :, :]
    along_u = (smooth[..., 2:, :] - smooth[..., :-2, :]) * 0.125
    smooth = points[..., :-2, :] + 2 * points[..., 1:-1, :] + points[..., 2:, :]
    along_v = (smooth[..., 2:, :, :] - smooth[..., :-2, :, :]) * 0.125
    normal = jnp.cross(along_u, along_v)
    squared = jnp.sum(normal * normal, axis=-1, keepdims=True)
    line = squared < 1e-24
    return jnp.where(line, 0.0, normal * jax.lax.rsqrt(jnp.where(line, 1.0, squared)))
