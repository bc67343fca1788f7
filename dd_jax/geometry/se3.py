"""Rigid motions as 4x4 matrices; ``T_b_from_a`` maps points of frame a to frame b."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_SMALL_ANGLE_SQUARED = 1e-2
"""Below this, three Taylor terms are exact to float32 and their gradients have no 0/0."""


def rotation_from_axis_angle(v: Float[Array, "*b 3"]) -> Float[Array, "*b 3 3"]:
    """Rotation by ``|v|`` radians about ``v`` (Rodrigues); value and gradient are exact at every ``v``, including zero."""
    squared = jnp.sum(v * v, axis=-1)[..., None, None]
    small = squared < _SMALL_ANGLE_SQUARED
    angle = jnp.sqrt(jnp.where(small, 1.0, squared))
    sine = jnp.where(small, 1.0 + squared * (-1 / 6 + squared * (1 / 120 - squared / 5040)), jnp.sin(angle) / angle)
    half = jnp.sin(0.5 * angle) / angle
    versine = jnp.where(small, 0.5 + squared * (-1 / 24 + squared * (1 / 720 - squared / 40320)), 2.0 * half * half)

    x, y, z = v[..., 0], v[..., 1], v[..., 2]
    zero = jnp.zeros_like(x)
    cross = jnp.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=-1).reshape(*v.shape[:-1], 3, 3)
    eye = jnp.eye(3, dtype=v.dtype)
    outer = v[..., :, None] * v[..., None, :]
    return eye + sine * cross + versine * (outer - squared * eye)


def rotation_from_euler(angles: Float[Array, "*b 3"]) -> Float[Array, "*b 3 3"]:
    """``Rx(a) Ry(b) Rz(c)``, in radians: about the z axis first."""
    (cx, cy, cz), (sx, sy, sz) = (jnp.moveaxis(f(angles), -1, 0) for f in (jnp.cos, jnp.sin))
    rows = [
        (cy * cz, -cy * sz, sy),
        (cx * sz + sx * sy * cz, cx * cz - sx * sy * sz, -sx * cy),
        (sx * sz - cx * sy * cz, sx * cz + cx * sy * sz, cx * cy),
    ]
    return jnp.stack([jnp.stack(row, axis=-1) for row in rows], axis=-2)


def pose_from_euler(angles: Float[Array, "*b 3"], translation: Float[Array, "*b 3"]) -> Float[Array, "*b 4 4"]:
    """The motion ``x -> R x + t`` of :func:`rotation_from_euler`."""
    return _assemble(rotation_from_euler(angles), translation)


def pose_from_parameters(axis_angle: Float[Array, "*b 3"], translation: Float[Array, "*b 3"]) -> Float[Array, "*b 4 4"]:
    """The motion ``x -> R x + t``; radians and the unit of depth."""
    return _assemble(rotation_from_axis_angle(axis_angle), translation)


def invert_pose(T: Float[Array, "*b 4 4"]) -> Float[Array, "*b 4 4"]:
    """Inverse of a rigid motion: ``x -> R^T (x - t)``."""
    rotation, translation = T[..., :3, :3], T[..., :3, 3]
    return _assemble(jnp.swapaxes(rotation, -1, -2), -jnp.sum(rotation * translation[..., :, None], axis=-2))


def compose(T_c_from_b: Float[Array, "*b 4 4"], T_b_from_a: Float[Array, "*b 4 4"]) -> Float[Array, "*b 4 4"]:
    """``T_c_from_a``: the right motion first, then the left one."""
    return jnp.matmul(T_c_from_b, T_b_from_a, precision=jax.lax.Precision.HIGHEST)


def _assemble(rotation: Float[Array, "*b 3 3"], translation: Float[Array, "*b 3"]) -> Float[Array, "*b 4 4"]:
    top = jnp.concatenate([rotation, translation[..., None]], axis=-1)
    bottom = jnp.broadcast_to(jnp.array([0.0, 0.0, 0.0, 1.0], top.dtype), (*top.shape[:-2], 1, 4))
    return jnp.concatenate([top, bottom], axis=-2)
