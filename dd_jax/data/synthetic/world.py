"""A synthetic world: streets, buildings and street furniture, traffic, and lighting."""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float32, Float64, UInt8

from dd_jax.data.synthetic import ground, shapes, traffic
from dd_jax.data.synthetic.ego import Ego, drive
from dd_jax.data.synthetic.primitives import Builder, Primitives

SIGHT = 130.0  # metres around the route with buildings and objects
_MOVING = 0.02  # metres per frame


@dataclasses.dataclass(frozen=True)
class Light:
    """Sun and sky of one drive; colours are factors per RGB channel."""

    to_sun: Float32[np.ndarray, "3"]
    sun: Float32[np.ndarray, "3"]
    ambient: Float32[np.ndarray, "3"]
    zenith: Float32[np.ndarray, "3"]
    horizon: Float32[np.ndarray, "3"]
    clouds: float
    haze: float  # metres until 63 % of the contrast is lost
    noise: float  # standard deviation of the sensor noise, of 255


@dataclasses.dataclass(frozen=True)
class World:
    """Input of the renderer; frame ``t`` of the drive is index ``t + 1`` of the time axes."""

    maneuver: str
    roads: ground.Roads
    ground: UInt8[np.ndarray, "1024 1024 4"]
    patches: Primitives
    quadrics: Primitives
    light: Light
    ego: Ego
    kinds: tuple[str, ...]  # class of object 1, 2, ...
    place: Float64[np.ndarray, "objects n2 3"]  # x, z, heading of objects 1, 2, ...
    moving: Bool[np.ndarray, "objects n2"]

    def object_poses(self, frame: int) -> tuple[np.ndarray, np.ndarray]:
        """Rotations (objects + 1, 3, 3) and translations of world-from-object; object 0 is the world."""
        x, z, heading = self.place[:, frame + 1].T
        rotation = np.zeros((len(x) + 1, 3, 3))
        rotation[0] = np.eye(3)
        c, s = np.cos(heading), np.sin(heading)
        rotation[1:, 0, 0], rotation[1:, 0, 2], rotation[1:, 2, 0], rotation[1:, 2, 2] = c, s, -s, c
        rotation[1:, 1, 1] = 1
        translation = np.zeros((len(x) + 1, 3))
        translation[1:, 0], translation[1:, 2] = x, z
        return rotation, translation


def build(maneuver: str, frames: int, rng: np.random.Generator) -> World:
    """A world for one drive of ``frames`` frames."""
    style = ground.AVENUE if rng.random() < 0.35 else ground.STREET
    roads = ground.Roads(block=float(rng.uniform(52, 76)), pavement=float(rng.uniform(2.7, 4.5)), **style)
    ego = drive(maneuver, frames, roads, rng)
    builder = Builder(rng)
    edges = _edges(roads, ego)
    space = traffic.Space(ego)
    movers = traffic.movers(roads, ego, maneuver, space, rng)
    tracks = movers + traffic.parked(roads, edges, space, rng)
    tracks = tracks[:255]  # instance ids are 8 bit
    _furnish(builder, roads, edges, rng)
    for owner, track in enumerate(tracks, 1):
        builder.owner = owner
        shapes.add(builder, track.kind)
    n2 = frames + 2
    place = np.stack([np.stack([np.broadcast_to(a, (n2,)) for a in (k.x, k.z, k.heading)], -1) for k in tracks])
    step = np.hypot(np.diff(place[:, :, 0], axis=1), np.diff(place[:, :, 1], axis=1)) > _MOVING
    moving = np.pad(step, ((0, 0), (1, 0)), mode="edge") | np.pad(step, ((0, 0), (0, 1)), mode="edge")
    patches, quadrics = builder.finish()
    kinds = tuple(track.kind for track in tracks)
    return World(maneuver, roads, ground.draw(roads, rng), patches, quadrics, _light(rng), ego, kinds, place, moving)


def _light(rng: np.random.Generator) -> Light:
    azimuth, elevation, overcast = rng.uniform(0, 2 * np.pi), np.radians(rng.uniform(18, 65)), rng.random() ** 1.5
    warm = np.array([1.0, 0.93, 0.82]) if elevation < np.radians(32) else np.array([1.0, 0.98, 0.95])
    cool = np.array([0.86, 0.94, 1.08])
    brightness = rng.uniform(0.85, 1.25)
    horizon = np.array([0.9, 0.93, 0.97]) * rng.uniform(0.72, 0.98)
    to_sun = np.array([np.cos(elevation) * np.sin(azimuth), -np.sin(elevation), np.cos(elevation) * np.cos(azimuth)])
    sun = warm * brightness * (0.9 - 0.65 * overcast)
    ambient = (cool * (1 - overcast) + overcast) * brightness * (0.56 + 0.34 * overcast)
    zenith = horizon * (np.array([0.45, 0.65, 0.95]) * (1 - overcast) + 0.85 * overcast)
    return Light(
        *(colour.astype(np.float32) for colour in (to_sun, sun, ambient, zenith, horizon)),
        clouds=float(rng.uniform(0.25, 0.9)),
        haze=float(rng.uniform(220, 600)),
        noise=float(rng.uniform(0.5, 1.2)),
    )


def _edges(roads: ground.Roads, ego: Ego) -> list[tuple[float, float, float, float]]:
    """Street segments between junctions within sight of the route, as (x0, z0, x1, z1)."""
    xz = ego.xz[:: max(1, len(ego.xz) // 12)]
    cells = np.round(xz / roads.block)
    reach = int(np.ceil(SIGHT / roads.block)) + 1
    (x_low, z_low), (x_high, z_high) = cells.min(0).astype(int) - reach, cells.max(0).astype(int) + reach
    edges = []
    for i in range(x_low, x_high + 1):
        for j in range(z_low, z_high + 1):
            for di, dj in ((1, 0), (0, 1)):
                a, b = np.array([i, j]) * roads.block, np.array([i + di, j + dj]) * roads.block
                middle = (a + b) / 2
                distance = np.hypot(*(xz - middle).T).min()
                on_route = np.abs(xz - middle)[:, 0 if dj else 1].min() < roads.block / 4  # along a street of the route
                if distance < (SIGHT if on_route else 0.95 * roads.block):
                    edges.append((*a.tolist(), *b.tolist()))
    return edges


def _furnish(build: Builder, roads: ground.Roads, edges: list, rng: np.random.Generator) -> None:
    """Buildings, trees and street furniture on both sides of every segment."""
    line, town = roads.building_line, rng.random()  # 0 suburb .. 1 town
    trees = rng.uniform(0.15, 0.85)
    for x0, z0, x1, z1 in edges:
        length = np.hypot(x1 - x0, z1 - z0)
        along_z = x0 == x1
        for side in (-1, 1):
            at = _beside(x0, z0, along_z, side)
            _row_of_houses(build, at, line, length, town, rng)
            curb = roads.half_road + 0.55
            for s in np.arange(roads.half_road + 5, length - roads.half_road - 5, 4.2):
                x, z = at(s + rng.uniform(-0.8, 0.8), curb)
                pick = rng.random()
                if pick < 0.45 * trees:
                    shapes.tree(build, x, z)
                elif pick < 0.45 * trees + 0.13:
                    shapes.lamp(build, x, z, float(-side) if along_z else 0.0)
                elif pick < 0.45 * trees + 0.23:
                    shapes.sign(build, x, z)
                elif pick < 0.45 * trees + 0.33:
                    shapes.bin_(build, x, z)
                elif pick < 0.45 * trees + 0.38:
                    shapes.billboard(build, x, z)
            x, z = at(roads.half_road + 1.0, curb)
            shapes.traffic_light(build, x, z)


def _beside(x0: float, z0: float, along_z: bool, side: int):
    """Maps (metres along a segment that runs in +x or +z, metres away from its middle line) to (x, z)."""
    if along_z:
        return lambda s, d: (x0 + side * d, z0 + s)
    return lambda s, d: (x0 + s, z0 + side * d)


def _row_of_houses(build: Builder, at, line: float, length: float, town: float, rng: np.random.Generator) -> None:
    s, end = line + rng.uniform(0, 1.5), length - line
    while s < end - 6:
        width = min(rng.uniform(8, 19), end - s)
        if rng.random() < 0.2 + 0.75 * town:
            setback, depth = rng.uniform(0, 0.6) if town > 0.5 else rng.uniform(0.5, 5), rng.uniform(7, 10)
            (xa, za), (xb, zb) = at(s, line + setback), at(s + width - 0.05, line + setback + depth)
            storeys = int(rng.integers(2, 5) if town > 0.5 else rng.integers(1, 4))
            shapes.building(build, min(xa, xb), min(za, zb), max(xa, xb), max(za, zb), storeys, rng.random() < 1 - 0.6 * town)
            if setback > 1.5:
                shapes.hedge(build, *at(s + 0.3, line + 0.2), *at(s + width * 0.75, line + 0.6))
        else:
            shapes.hedge(build, *at(s, line + 0.2), *at(s + width, line + 0.7))
            for _ in range(rng.integers(2, 5)):
                shapes.tree(build, *at(s + rng.uniform(1.5, width - 1.5), line + rng.uniform(2, 9)))
        s += width + (rng.uniform(0, 1.0) if town > 0.5 else rng.uniform(0.5, 4))
