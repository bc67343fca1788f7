"""Exact visibility of patches, quadrics and the ground on a grid of rays; numpy only.

A grid has one direction per (row, column), ``d = (p[col], q[row], s[col])`` in sensor axes (x right, y down, z forward): a
pinhole camera has ``p = (u - cx) / fx, q = (v - cy) / fy, s = 1``, so the ray parameter is the z-depth; a spinning scanner has
``p = sin(azimuth), q = tan(elevation), s = cos(azimuth)``, so it is the horizontal range. Any linear form of ``d`` is then a
column term plus a row term, and the inverse ray parameter of a plane is such a form: a primitive costs a few broadcast
operations on its bounding rectangle. Small rectangles are tested together in padded stacks.
"""

import dataclasses

import numpy as np
from jaxtyping import Float32, Float64, Int32

from dd_jax.data.synthetic.primitives import DISC, Primitives

NEAR = 0.15  # metres; nearer surfaces are not drawn
_LARGE = 6000  # rays; larger rectangles get their own pass
_CHUNK = 1 << 15  # rays of small rectangles processed together
GROUND, SKY = -1, -2
"""Values of ``Hits.primitive`` that are not indices."""


@dataclasses.dataclass(frozen=True)
class Grid:
    """Ray directions; ``p, s`` per column, ``q`` per row, ``p / s`` and ``q`` ascending."""

    p: Float64[np.ndarray, " w"]
    s: Float64[np.ndarray, " w"]
    q: Float64[np.ndarray, " h"]
    spherical: bool  # straight lines are curved on the grid

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.q), len(self.p)

    @property
    def single(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """``p, s, q`` in float32."""
        return self.p.astype(np.float32), self.s.astype(np.float32), self.q.astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Hits:
    """The nearest surface along every ray."""

    inverse: Float32[np.ndarray, "h w"]  # 1 / ray parameter, 0 for the sky
    primitive: Int32[np.ndarray, "h w"]  # index into patches, then quadrics; GROUND; SKY
    s: Float32[np.ndarray, "h w"]  # patch coordinates in [-1, 1]
    q: Float32[np.ndarray, "h w"]


def pinhole(K: np.ndarray, height: int, width: int) -> Grid:
    """Grid of a camera with pixel centres at integers."""
    p = (np.arange(width) - K[0, 2]) / K[0, 0]
    q = (np.arange(height) - K[1, 2]) / K[1, 1]
    return Grid(p, np.ones(width), q, False)


@dataclasses.dataclass(frozen=True)
class Placed:
    """Primitives in the axes of one sensor."""

    center: Float32[np.ndarray, "n 3"]
    axes: Float32[np.ndarray, "n 3 3"]


def place(primitives: Primitives, rotation: np.ndarray, translation: np.ndarray) -> Placed:
    """Transforms primitives by their owners' poses ``x -> rotation[owner] x + translation[owner]``."""
    turn = rotation[primitives.owner]
    center = np.einsum("nij,nj->ni", turn, primitives.center) + translation[primitives.owner]
    axes = np.einsum("nij,nkj->nki", turn, primitives.axes)
    return Placed(center.astype(np.float32), axes.astype(np.float32))


def cast(
    grid: Grid, patches: Primitives, placed: Placed, quadrics: Primitives, placed_quadrics: Placed, down: np.ndarray,
    height: float, far: float,
) -> Hits:  # fmt: skip
    """Nearest hits. ``down`` is the unit normal into the ground in sensor axes, ``height`` the sensor's height in metres."""
    h, w = grid.shape
    ground = (grid.p * down[0] + grid.s * down[2] + grid.q[:, None] * down[1]) / height
    inverse = np.where(ground > 1 / far, ground, 0).astype(np.float32)
    primitive = np.where(inverse > 0, np.int32(GROUND), np.int32(SKY))
    buffers = Hits(inverse, primitive, np.zeros((h, w), np.float32), np.zeros((h, w), np.float32))
    found: list[tuple] = []
    _cast_patches(grid, buffers, found, patches, placed)
    _cast_quadrics(grid, buffers, found, len(patches), quadrics, placed_quadrics)
    if found:
        pixel, near, index, s, q = (np.concatenate(column) for column in zip(*found, strict=True))
        flat = inverse.reshape(-1)
        np.maximum.at(flat, pixel, near)
        win = near == flat[pixel]
        for buffer, values in ((primitive, index), (buffers.s, s), (buffers.q, q)):
            buffer.reshape(-1)[pixel[win]] = values[win]
    return buffers


def _cast_patches(grid: Grid, out: Hits, found: list, patches: Primitives, placed: Placed) -> None:
    reach = np.einsum("nj,nj->n", placed.axes[:, 2], placed.center)
    facing = np.flatnonzero((reach < -1e-4) & (placed.center[:, 2] > -np.abs(placed.axes[:, :2, 2]).sum(1)))
    s, q = placed.axes[facing, 0], placed.axes[facing, 1]
    c = placed.center[facing]
    corners = np.stack([c - s - q, c - s + q, c + s - q, c + s + q], 1)
    keep, rects = _rectangles(grid, corners)
    facing, s, q, c = facing[keep], s[keep], q[keep], c[keep]
    normal = placed.axes[facing, 2] / reach[facing, None]
    s = s / np.einsum("nj,nj->n", s, s)[:, None]
    q = q / np.einsum("nj,nj->n", q, q)[:, None]
    forms = np.stack([normal, s, q], 1)  # (n, 3 forms, 3)
    offset = -np.stack([np.einsum("nj,nj->n", s, c), np.einsum("nj,nj->n", q, c)], 1)
    shape = patches.shape[facing]
    disc = shape == DISC
    taper = np.where(disc, 0, shape / 2).astype(np.float32)
    near_first = np.argsort(-np.abs(1 / np.linalg.norm(c, axis=1)), kind="stable")

    grid_p, grid_s, grid_q = grid.single

    def test(index, rows, cols, check):
        q, p, s = grid_q[rows], grid_p[cols], grid_s[cols]

        def form(k):  # (rows, 1, n) + (1, cols, n): long inner loops
            f = forms[index, k].T
            return (f[1] * q)[:, None] + (f[0] * p + f[2] * s)[None]

        near = form(0)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            t = 1 / near
            u, v = form(1), form(2)
            u *= t
            u += offset[index, 0]
            v *= t
            v += offset[index, 1]
            reach = np.abs(u)
            if taper[index].any():
                reach += taper[index] * (1 - v)
            hit = near > check
            hit &= np.maximum(reach, np.abs(v)) <= 1
            if disc[index].any():
                hit &= ~disc[index] | (u * u + v * v <= 1)
        return hit, near, u, v

    _sweep(grid, out, found, rects, near_first, facing.astype(np.int32), np.zeros(len(facing), int), test)


def _cast_quadrics(grid: Grid, out: Hits, found: list, first: int, quadrics: Primitives, placed: Placed) -> None:
    extent = np.abs(placed.axes[:, :, 2]).sum(1)
    ahead = np.flatnonzero(placed.center[:, 2] > -extent)
    c, axes = placed.center[ahead].astype(float), placed.axes[ahead].astype(float)
    signs = np.array([[i, j, k] for i in (-1, 1) for j in (-1, 1) for k in (-1, 1)], float)
    keep, rects = _rectangles(grid, c[:, None] + np.einsum("ki,nij->nkj", signs, axes))
    ahead, c, axes = ahead[keep], c[keep], axes[keep]
    local = axes / np.einsum("nij,nij->ni", axes, axes)[:, :, None]  # sensor axes -> unit ball or unit tube
    origin = -np.einsum("nij,nj->ni", local, c)
    # o x (M d) is linear in d too; through it the discriminant needs no difference of large numbers
    moment = np.cross(origin[:, None, :], local.transpose(0, 2, 1)).transpose(0, 2, 1)
    local, moment, origin = local.astype(np.float32), moment.astype(np.float32), origin.astype(np.float32)
    is_ball = quadrics.shape[ahead] > 0

    grid_p, grid_s, grid_q = grid.single

    def test(index, rows, cols, check):
        q, p, s = grid_q[rows], grid_p[cols], grid_s[cols]
        ball = bool(is_ball[index[0]])

        def form(m, i):
            f = m[index, i].T
            return (f[1] * q)[:, None] + (f[0] * p + f[2] * s)[None]

        o = origin[index].T
        d0, d1, d2 = (form(local, i) for i in range(3))
        a = d0 * d0 + d2 * d2
        b = o[0] * d0 + o[2] * d2
        root = form(moment, 1)
        root *= -root
        if ball:
            a += d1 * d1
            b += o[1] * d1
            root -= form(moment, 0) ** 2 + form(moment, 2) ** 2
        root += a
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            near = a / -(b + np.sqrt(root))
            v = d1 / near + o[1]
            u = d0 / near + o[0]
            hit = (near > check) & (np.abs(v) <= 1)  # False for the square root of a negative number
        return hit, near, u, v

    _sweep(grid, out, found, rects, np.arange(len(ahead)), (ahead + first).astype(np.int32), is_ball.astype(int), test)


def _sweep(
    grid: Grid, out: Hits, found: list, rects: np.ndarray, order: np.ndarray, names: np.ndarray, family: np.ndarray, test
) -> None:
    """Runs ``test`` on every rectangle: large ones nearest first straight into the buffers, small ones in stacks.

    ``test(index, rows (r, n), cols (c, n), check)`` returns (hit, inverse ray parameter, s, q), each (r, c, n), for n
    primitives of one ``family``; hits must exceed ``check``.
    """
    h, w = grid.shape
    top, bottom, left, right = rects.T
    large = (bottom - top) * (right - left) > _LARGE
    for i in order[large[order]]:
        rows, cols = slice(top[i], bottom[i]), slice(left[i], right[i])
        view = out.inverse[rows, cols]
        hit, near, u, v = (
            x[..., 0] for x in test(np.array([i]), np.arange(top[i], bottom[i])[:, None], np.arange(left[i], right[i])[:, None],
                                    view[..., None])
        )  # fmt: skip
        hit &= near < 1 / NEAR
        np.copyto(view, near, where=hit)
        np.copyto(out.primitive[rows, cols], np.int32(names[i]), where=hit)
        np.copyto(out.s[rows, cols], u, where=hit)
        np.copyto(out.q[rows, cols], v, where=hit)
    small = np.flatnonzero(~large)
    tall = np.minimum(_padded(bottom[small] - top[small]), h)
    wide = np.minimum(_padded(right[small] - left[small]), w)
    flat = out.inverse.reshape(-1)
    code = (family[small] * 8192 + tall) * 8192 + wide
    for group_code in np.unique(code):
        group = small[code == group_code]
        a, b = group_code // 8192 % 8192, group_code % 8192
        step = max(1, _CHUNK // (a * b))
        for start in range(0, len(group), step):
            index = group[start : start + step]
            rows = np.minimum(top[index], h - a) + np.arange(a, dtype=np.int32)[:, None]
            cols = np.minimum(left[index], w - b) + np.arange(b, dtype=np.int32)[:, None]
            hit, near, u, v = test(index, rows, cols, np.float32(0))
            pixel = (rows * np.int32(w))[:, None] + cols[None]
            where = np.flatnonzero(hit)
            pixel, values = pixel.reshape(-1)[where], near.reshape(-1)[where]
            seen = np.flatnonzero((values > flat[pixel]) & (values < 1 / NEAR))
            where = where[seen]
            name = names[index][where % len(index)]
            found.append((pixel[seen], values[seen], name, u.reshape(-1)[where], v.reshape(-1)[where]))


def _padded(n: np.ndarray) -> np.ndarray:
    """Next power of two, at least 8: few groups."""
    return 1 << np.maximum(np.ceil(np.log2(np.maximum(n, 1))), 3).astype(int)


def _rectangles(grid: Grid, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bounding rectangles (top, bottom, left, right; half open) of convex hulls (n, k, 3); also the indices not off the grid."""
    points = points.astype(float)
    z = points[:, :, 2]
    front = (z > NEAR).any(1)
    index = np.flatnonzero(front)
    crossing = index[(z[index] <= NEAR).any(1)]
    lows, highs = _bounds(grid, points, z > NEAR)
    if len(crossing):
        i, j = np.triu_indices(points.shape[1], 1)
        a, b = points[crossing][:, i], points[crossing][:, j]
        za, zb = a[:, :, 2], b[:, :, 2]
        cut = (za > NEAR) != (zb > NEAR)
        share = np.where(cut, (NEAR - za) / np.where(cut, zb - za, 1), 0)
        on_plane = a + share[:, :, None] * (b - a)
        on_plane[:, :, 2] = NEAR
        both = np.concatenate([points[crossing], on_plane], 1)
        lows[crossing], highs[crossing] = _bounds(grid, both, np.concatenate([z[crossing] > NEAR, cut], 1))
    slope = grid.p / grid.s
    left, right = np.searchsorted(slope, lows[:, 0]) - 1, np.searchsorted(slope, highs[:, 0], "right") + 1
    top, bottom = np.searchsorted(grid.q, lows[:, 1]) - 1, np.searchsorted(grid.q, highs[:, 1], "right") + 1
    h, w = grid.shape
    rects = np.stack([top.clip(0, h), bottom.clip(0, h), left.clip(0, w), right.clip(0, w)], 1).astype(np.int32)
    keep = np.flatnonzero(front & (left + 1 < w) & (right > 1) & (top + 1 < h) & (bottom > 1))
    return keep, rects[keep]


def _bounds(grid: Grid, points: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    x, y, z = points[..., 0], points[..., 1], np.where(valid, points[..., 2], 1.0)
    low = lambda a: np.where(valid, a, np.inf).min(1)  # noqa: E731
    high = lambda a: np.where(valid, a, -np.inf).max(1)  # noqa: E731
    slope = x / z
    if grid.spherical:
        # a straight edge is curved between its corners, but stays within the bounds of the hull's nearest and farthest range
        middle = np.stack([x, points[..., 2]], -1).mean(1)
        spread = np.hypot(x - middle[:, None, 0], points[..., 2] - middle[:, None, 1]).max(1)
        distance = np.hypot(middle[:, 0], middle[:, 1])
        nearest, farthest = np.maximum(distance - spread, NEAR), distance + spread
        lo, hi = low(y), high(y)
        rows = np.where(lo < 0, lo / nearest, lo / farthest), np.where(hi > 0, hi / nearest, hi / farthest)
    else:
        rows = low(y / z), high(y / z)
    return np.stack([low(slope), rows[0]], 1), np.stack([high(slope), rows[1]], 1)
