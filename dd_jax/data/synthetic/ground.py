"""The road tile of one world: asphalt, lane markings, crossings, pavement, yards; repeats every block."""

import dataclasses
import functools

import cv2
import numpy as np
from jaxtyping import UInt8

from dd_jax.data.synthetic.drawings import noise

SIZE = 1024


@dataclasses.dataclass(frozen=True)
class Roads:
    """A grid of equal streets along x = i block and z = j block; right-hand traffic. Metres."""

    block: float
    half_road: float
    pavement: float
    lanes: tuple[float, ...]  # centres of the lanes of one direction, from the middle line outwards
    parking: float | None  # centre of the row of parked cars

    @property
    def building_line(self) -> float:
        return self.half_road + self.pavement


STREET = {"half_road": 5.5, "lanes": (1.75,), "parking": 4.55}
AVENUE = {"half_road": 9.2, "lanes": (1.75, 5.25), "parking": 8.2}


def draw(roads: Roads, rng: np.random.Generator) -> UInt8[np.ndarray, "1024 1024 4"]:
    """RGBA tile; columns are X, rows are Z, both from 0 to one block."""
    metres = (np.arange(SIZE) + 0.5) * roads.block / SIZE
    across = (metres + roads.block / 2) % roads.block - roads.block / 2  # signed distance from the road's middle
    x, z = across[None, :], across[:, None]
    dx, dz = np.abs(x), np.abs(z)
    r, edge = roads.half_road, roads.building_line
    on_x, on_z = dx < r, dz < r  # on the street along z, on the one along x
    road = on_x | on_z
    nearest = np.minimum(dx, dz)

    value = np.where(road, 0.36, 0.62).astype(np.float32)
    value[(nearest >= r) & (nearest < r + 0.25)] = 0.85  # kerb
    slabs = rng.normal(0, 0.07, (64, 64)).astype(np.float32)
    cell = (metres / roads.block * 64).astype(int)
    walk = ~road & (nearest < edge)
    value += np.where(walk, slabs[cell[:, None], cell[None, :]], 0)
    joint = (metres % (roads.block / 64)) < 0.13
    value[walk & (joint[None, :] | joint[:, None])] -= 0.17
    colour = np.repeat(value[..., None], 3, 2)
    colour[walk] *= rng.uniform(0.9, 1.08, 3)
    yard = ~road & (nearest >= edge)
    colour[yard] = value[yard, None] * (np.array([0.62, 0.85, 0.4]) if rng.random() < 0.6 else np.array([1.0, 0.92, 0.8]))

    _repairs(colour, road, roads.block, rng)
    fields = [_variant(field, rng) for field in _fields()]
    worn = 1.0 - 0.25 * (fields[2] > 0.7)
    for mask, tone in _markings(roads, x, z, on_x, on_z):
        colour[mask] = (np.asarray(tone) * worn[mask, None]).astype(np.float32)
        colour.transpose(1, 0, 2)[mask] = (np.asarray(tone) * worn[mask, None]).astype(np.float32)
    texture = 255 * (1 + 0.13 * fields[0] + 0.09 * fields[1])
    rgba = np.zeros((SIZE, SIZE, 4), np.uint8)
    rgba[..., :3] = np.minimum(colour * texture[..., None], 255)
    return rgba


@functools.lru_cache(maxsize=1)
def _fields() -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(20110928)
    return tuple(noise(rng, SIZE, beta) for beta in (1.1, 0.55, 0.7))


def _variant(field: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The same periodic noise, randomly shifted, mirrored and transposed."""
    field = np.roll(field, rng.integers(0, SIZE, 2), (0, 1))[:: rng.choice([-1, 1]), :: rng.choice([-1, 1])]
    return field.T if rng.random() < 0.5 else field


def _repairs(colour: np.ndarray, road: np.ndarray, block: float, rng: np.random.Generator) -> None:
    """Patches, cracks, stains and covers on the asphalt, which give the road texture."""
    scale = SIZE / block
    layer = np.ones((SIZE, SIZE), np.float32)
    where = np.argwhere(road)
    pick = lambda: tuple(int(v) for v in where[rng.integers(len(where))][::-1])  # noqa: E731
    for _ in range(60):
        x, y = pick()
        w, h = (int(v) for v in rng.uniform(0.8, 4.5, 2) * scale)
        cv2.rectangle(layer, (x, y), (x + w, y + h), float(rng.uniform(0.6, 1.35)), -1)
        cv2.rectangle(layer, (x, y), (x + w, y + h), 0.55, 1)
    for _ in range(90):
        x, y = pick()
        steps = np.array([x, y]) + np.cumsum(rng.normal(0, 0.7 * scale, (7, 2)), 0)
        cv2.polylines(layer, [steps.astype(np.int32)], False, float(rng.uniform(0.4, 0.7)), int(rng.integers(1, 4)))
    for _ in range(70):
        cv2.circle(layer, pick(), int(rng.uniform(0.15, 0.9) * scale), float(rng.uniform(0.55, 1.3)), -1)
    for _ in range(25):
        centre = pick()
        cv2.circle(layer, centre, int(0.4 * scale), 0.45, -1)
        cv2.circle(layer, centre, int(0.28 * scale), 0.9, 1)
    colour *= np.where(road, layer, 1)[..., None]


def _markings(roads: Roads, x: np.ndarray, z: np.ndarray, on_x: np.ndarray, on_z: np.ndarray):
    """Masks for the street along Z; the caller mirrors them for the one along X."""
    dx, dz, r = np.abs(x), np.abs(z), roads.half_road
    free = dz > r + 4.3  # away from the crossing
    white, yellow = (0.92, 0.92, 0.88), (0.88, 0.7, 0.2)
    dashed = (z % 6.0) < 3.0
    yield on_x & free & (dx < 0.09) & (dashed | (len(roads.lanes) > 1)), white if len(roads.lanes) == 1 else yellow
    for inner, outer in zip(roads.lanes, roads.lanes[1:], strict=False):
        yield on_x & free & (np.abs(dx - (inner + outer) / 2) < 0.09) & dashed, white
    if roads.parking is not None:
        bay = roads.parking - 1.0
        yield on_x & free & (np.abs(dx - bay) < 0.08), white
        yield on_x & free & (dx > bay) & ((z % 6.4) < 0.14), white
    yield on_x & (dz > r + 0.6) & (dz < r + 3.2) & ((x % 1.1) < 0.55), white  # zebra
    lane = np.where(z < 0, (x > 0) & (x < roads.lanes[-1] + 1.75), (x < 0) & (x > -roads.lanes[-1] - 1.75))
    yield on_x & lane & (dz > r + 3.7) & (dz < r + 4.2), white  # stop line
