"""Scene primitives: flat patches and quadrics, each attached to the pose of one object.

World and object axes follow the camera: X right, Y down, Z forward; the ground is Y = 0 and points above it have
negative Y. Object 0 is the static world.
"""

import dataclasses
import math

import numpy as np
from jaxtyping import Float32, Int32

from dd_jax.data.synthetic import textures


@dataclasses.dataclass(frozen=True)
class Primitives:
    """Columns of equal length; ``n`` primitives of one family.

    Patches: ``axes`` rows 0 and 1 are half edges in metres (row 1 points down the texture), row 2 the unit outward normal.
    Quadrics: ``axes`` rows are the three half axes in metres; the tube of a cylinder runs along row 1.
    """

    center: Float32[np.ndarray, "n 3"]
    axes: Float32[np.ndarray, "n 3 3"]
    shape: Float32[np.ndarray, " n"]  # patch: relative shortening of the upper edge, 2 = disc; quadric: 1 ellipsoid, 0 tube
    uv: Float32[np.ndarray, "n 4"]  # texture coordinate = (uv[0] s + uv[1], uv[2] q + uv[3]), one texture = one unit
    tint: Float32[np.ndarray, "n 3"]
    material: Int32[np.ndarray, " n"]
    owner: Int32[np.ndarray, " n"]  # object whose pose it follows

    def __len__(self) -> int:
        return len(self.owner)


DISC = 2.0


class Builder:
    """Collects primitives in Python lists; ``finish`` makes the arrays."""

    def __init__(self, rng: np.random.Generator):
        self.rng = rng
        self.owner = 0
        self._patches: list[tuple] = []
        self._quadrics: list[tuple] = []

    def patch(self, center, half_s, half_q, outward, material, tint=(1, 1, 1), shape=0.0, fit=False):
        """A rectangle, trapezium or disc; ``fit`` stretches one texture over it, otherwise the texture keeps its metric size."""
        (a, b, c), (d, e, f) = half_s, half_q  # plain floats: thousands of calls per world
        nx, ny, nz = b * f - c * e, c * d - a * f, a * e - b * d
        sign = 1.0 if nx * outward[0] + ny * outward[1] + nz * outward[2] > 0 else -1.0
        length = sign * math.sqrt(nx * nx + ny * ny + nz * nz)
        s, q, normal = (a * sign, b * sign, c * sign), half_q, (nx / length, ny / length, nz / length)
        if fit:
            uv = (0.5, 0.5, 0.5, 0.5)
        else:
            size = textures.METRES[material]
            u, v = self.rng.random(2)
            uv = (math.hypot(a, b, c) / size, u, math.hypot(d, e, f) / size, v)
        self._patches.append((center, (s, q, normal), shape, uv, tint, material, self.owner))

    def wall(self, x0, z0, x1, z1, outward, height, material, tint, base=0.0):
        """An upright rectangle whose texture is aligned with its base line."""
        s = ((x1 - x0) / 2, 0, (z1 - z0) / 2)
        size = textures.METRES[material]
        self.patch(((x0 + x1) / 2, -base - height / 2, (z0 + z1) / 2), s, (0, height / 2, 0), outward, material, tint)
        center, axes, shape, uv, *rest = self._patches[-1]
        uv = (uv[0], round(uv[1] * 8) / 8, uv[2], 1.0 - height / 2 / size)
        self._patches[-1] = (center, axes, shape, uv, *rest)

    def box(self, center, half, materials, tint=(1, 1, 1), fit=False, top=True):
        """Axis-aligned box without a bottom; ``materials`` = (front +z, rear -z, sides, top)."""
        (x, y, z), (hx, hy, hz) = center, half
        front, rear, side, roof = materials
        self.patch((x, y, z + hz), (hx, 0, 0), (0, hy, 0), (0, 0, 1), front, tint, fit=fit)
        self.patch((x, y, z - hz), (hx, 0, 0), (0, hy, 0), (0, 0, -1), rear, tint, fit=fit)
        self.patch((x + hx, y, z), (0, 0, hz), (0, hy, 0), (1, 0, 0), side, tint, fit=fit)
        self.patch((x - hx, y, z), (0, 0, hz), (0, hy, 0), (-1, 0, 0), side, tint, fit=fit)
        if top:
            self.patch((x, y - hy, z), (hx, 0, 0), (0, 0, hz), (0, -1, 0), roof, tint, fit=fit)

    def ellipsoid(self, center, half, material, tint=(1, 1, 1)):
        self._quadric(center, ((half[0], 0, 0), (0, half[1], 0), (0, 0, half[2])), 1.0, material, tint)

    def tube(self, start, end, radius, material, tint=(1, 1, 1)):
        """Round bar from ``start`` to ``end``, open at both ends."""
        a, b, c = ((e - s) / 2 for s, e in zip(start, end, strict=True))
        across = (-b, a, 0.0) if abs(c) < 0.9 * math.hypot(a, b, c) else (0.0, c, -b)
        other = (across[1] * c - across[2] * b, across[2] * a - across[0] * c, across[0] * b - across[1] * a)
        axes = [tuple(radius / math.hypot(*v) * x for x in v) for v in (across, other)]
        centre = tuple((s + e) / 2 for s, e in zip(start, end, strict=True))
        self._quadric(centre, (axes[0], (a, b, c), axes[1]), 0.0, material, tint)

    def _quadric(self, center, axes, shape, material, tint):
        size = textures.METRES[material]
        lengths = math.hypot(*axes[0]), math.hypot(*axes[1])
        turns = max(1.0, round(2 * math.pi * lengths[0] / size))  # a whole number of textures around avoids a seam
        u, v = self.rng.random(2)
        self._quadrics.append((center, axes, shape, (turns, u, lengths[1] / size, v), tint, material, self.owner))

    def finish(self) -> tuple[Primitives, Primitives]:
        """Returns (patches, quadrics)."""
        return _columns(self._patches), _columns(self._quadrics)


def _columns(rows: list[tuple]) -> Primitives:
    if not rows:
        raise ValueError("a scene needs at least one patch and one quadric")
    center, axes, shape, uv, tint, material, owner = zip(*rows, strict=True)
    f32 = lambda x: np.asarray(x, np.float32)  # noqa: E731
    return Primitives(
        f32(center), f32(axes), f32(shape), f32(uv), f32(tint), np.asarray(material, np.int32), np.asarray(owner, np.int32)
    )
