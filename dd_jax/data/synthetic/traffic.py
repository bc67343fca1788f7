"""Traffic: parked cars, and moving objects that do not collide with each other or with the recording car."""

import dataclasses

import numpy as np
from jaxtyping import Float64

from dd_jax.data.synthetic.ego import Ego, Route, route
from dd_jax.data.synthetic.ground import Roads
from dd_jax.data.synthetic.shapes import FOOTPRINT


@dataclasses.dataclass(frozen=True)
class Track:
    """One object's position at frames -1 .. n; parked objects have one position."""

    kind: str
    x: Float64[np.ndarray, " t"]
    z: Float64[np.ndarray, " t"]
    heading: Float64[np.ndarray, " t"]


class Space:
    """Occupied ground over time, as discs."""

    def __init__(self, ego: Ego):
        self.frames = len(ego.s)
        self._discs: list[np.ndarray] = []  # (frames, k, 3): x, z, radius
        x, z, heading = ego.xz[:, 0], ego.xz[:, 1], np.arctan2(ego.T_world_cam[:, 0, 2], ego.T_world_cam[:, 2, 2])
        self._discs.append(self._cover(5.0, 1.9, x, z, heading))

    def _cover(self, length, width, x, z, heading) -> np.ndarray:
        count = max(1, round(length / width))
        along = (np.arange(count) - (count - 1) / 2) * (length / count)
        discs = np.stack(np.broadcast_arrays(
            x[:, None] + np.sin(heading)[:, None] * along, z[:, None] + np.cos(heading)[:, None] * along, width * 0.58,
        ), -1)  # fmt: skip
        return np.broadcast_to(discs, (self.frames, count, 3))

    def claim(self, track: Track, margin: float = 0.25) -> bool:
        """Reserves the track's ground if it is free at all times."""
        mine = self._cover(*FOOTPRINT[track.kind], track.x, track.z, track.heading)
        others = np.concatenate(self._discs, 1)
        gap = mine[:, :, None, :2] - others[:, None, :, :2]
        if (np.hypot(gap[..., 0], gap[..., 1]) < mine[:, :, None, 2] + others[:, None, :, 2] + margin).any():
            return False
        self._discs.append(mine)
        return True


def parked(roads: Roads, edges: list, space: Space, rng: np.random.Generator) -> list[Track]:
    """Rows of parked cars and vans along the given street segments ``(x0, z0, x1, z1)``."""
    tracks = []
    fill = rng.uniform(0.35, 0.8)
    for x0, z0, x1, z1 in edges:
        length = np.hypot(x1 - x0, z1 - z0)
        dx, dz = (x1 - x0) / length, (z1 - z0) / length
        for side in (1, -1):
            for s in np.arange(roads.half_road + 8, length - roads.half_road - 8, 6.4):
                if rng.random() > fill:
                    continue
                kind = "van" if rng.random() < 0.15 else "car"
                s_here, off = s + rng.uniform(-0.3, 0.3), side * (roads.parking + rng.uniform(-0.1, 0.1))
                heading = np.arctan2(dx, dz) + (np.pi if side < 0 else 0) + rng.normal(0, 0.02)
                place = (np.array([x0 + dx * s_here + dz * off]), np.array([z0 + dz * s_here - dx * off]), np.array([heading]))
                track = Track(kind, *place)
                if space.claim(track, 0.1):
                    tracks.append(track)
    return tracks


def movers(roads: Roads, ego: Ego, maneuver: str, space: Space, rng: np.random.Generator) -> list[Track]:
    """Moving objects near the recording car: ahead, oncoming, beside, crossing, turning, on foot."""
    frames = len(ego.s)
    t = np.arange(frames, dtype=float)
    lane = roads.lanes[ego.lane]
    tracks: list[Track] = []

    def keep(kind: str, path: Route, s: np.ndarray, offset: float = 0.0, against: bool = False) -> bool:
        x, z, heading = path.at(s, offset)
        track = Track(kind, x, z, heading + (np.pi if against else 0))
        if space.claim(track):
            tracks.append(track)
            return True
        return False

    def vehicle() -> str:
        return str(rng.choice(["car", "van", "truck", "bus"], p=[0.8, 0.1, 0.07, 0.03]))

    if maneuver == "stop":  # the car ahead drives on
        keep(vehicle(), ego.route, ego.s[0] + 10 + np.diff(ego.s).max() * t)
    elif rng.random() < 0.7:
        for _ in range(6):
            kind = str(rng.choice(["car", "van", "truck", "cyclist"], p=[0.6, 0.12, 0.16, 0.12]))
            gap = rng.uniform(8, 18) + FOOTPRINT[kind][0] / 2 + rng.uniform(-7, 14) * t / frames
            if keep(kind, ego.route, ego.s + gap + 0.6 * np.sin(t / rng.uniform(6, 12)), rng.normal(0, 0.1)):
                break

    for j, other in enumerate(roads.lanes):
        speed, place = rng.uniform(0.55, 1.1), ego.s[0] + rng.uniform(4, 16)
        while place < ego.s[-1] + speed * frames + 60:  # oncoming stream
            kind = vehicle() if rng.random() < 0.85 else "cyclist"
            own = rng.uniform(0.3, 0.5) if kind == "cyclist" and j == len(roads.lanes) - 1 else speed
            keep(kind, ego.route, place - own * t, -(lane + other) + rng.normal(0, 0.12), against=True)
            place += FOOTPRINT[kind][0] + rng.uniform(10, 34) * len(roads.lanes)
        if j != ego.lane:  # neighbours in the same direction: overtaken or overtaking
            place, ratio = rng.uniform(-14, 4), rng.uniform(0.72, 1.25)
            while place < 55:
                kind = vehicle()
                gap = place + (ratio - 1) * (ego.s - ego.s[0])
                keep(kind, ego.route, ego.s + gap, other - lane + rng.normal(0, 0.1))
                place += FOOTPRINT[kind][0] + rng.uniform(16, 60)

    edge = roads.lanes[-1] + 1.35 - lane
    for _ in range(int(rng.integers(1, 4))):  # cyclists at the edge of the lane
        start = ego.s[0] + rng.uniform(6, 45)
        keep("cyclist", ego.route, start + rng.uniform(0.3, 0.5) * t, edge + rng.normal(0, 0.08))

    _cross_traffic(roads, ego, maneuver, keep, rng, t)
    _on_foot(roads, ego, maneuver, keep, rng, t)
    return tracks


def _cross_traffic(roads: Roads, ego: Ego, maneuver: str, keep, rng, t: np.ndarray) -> None:
    frames = len(t)
    first = np.floor(ego.xz[:, 1].min() / roads.block)
    nodes = [0.0] if maneuver in ("stop", "right", "left") else [(first + k) * roads.block for k in range(1, 3)]
    for node in nodes:
        lane = roads.lanes[int(rng.integers(len(roads.lanes)))]
        straight = route(lane, 0, 1.0)
        for quarter in (1, 3):
            speed, when = rng.uniform(0.5, 0.85), rng.uniform(-6, 0.2 * frames)
            while when < frames + 10:
                kind = str(rng.choice(["car", "van", "truck", "cyclist"], p=[0.55, 0.12, 0.18, 0.15]))
                keep(kind, straight.rotated(quarter, (0.0, node)), (t - when) * speed)
                when += (FOOTPRINT[kind][0] + rng.uniform(10, 30)) / speed
        for _ in range(4):  # turning into or out of our street
            turn, quarter = int(rng.choice([-1, 1])), int(rng.integers(0, 4))
            bend = route(roads.lanes[0], turn, 6.5 if turn > 0 else 9.0).rotated(quarter, (0.0, node))
            keep(str(rng.choice(["car", "car", "van"])), bend, (t - rng.uniform(0, frames)) * rng.uniform(0.35, 0.55))


def _on_foot(roads: Roads, ego: Ego, maneuver: str, keep, rng, t: np.ndarray) -> None:
    frames, lane = len(t), roads.lanes[ego.lane]
    for _ in range(26):
        side = rng.choice([-1, 1])
        walk = roads.half_road + rng.uniform(1.1, roads.pavement - 0.5)
        start, pace = ego.s[0] + rng.uniform(4, 38) + rng.uniform(0, 1) * (ego.s[-1] - ego.s[0]), rng.uniform(0.09, 0.17)
        forth = rng.random() < 0.5
        keep("pedestrian", ego.route, start + (pace if forth else -pace) * t, side * walk - lane, against=not forth)
    crossings = 8
    for k in range(crossings):
        when = (k + rng.random()) / crossings * frames
        ego_s = np.interp(when, t, ego.s)
        place = -(roads.half_road + rng.uniform(1.0, 2.8)) if maneuver == "stop" else ego_s + rng.uniform(9, 28)
        x, z, heading = ego.route.at(np.array([place]), -lane)
        pace, quarter = rng.uniform(0.11, 0.18), rng.choice([-1, 1])
        across = Route(
            np.array([-30.0, 30.0]),
            x + np.array([-30.0, 30.0]) * np.cos(heading) * quarter,
            z - np.array([-30.0, 30.0]) * np.sin(heading) * quarter,
            np.repeat(heading + quarter * np.pi / 2, 2),
        )
        limit = roads.half_road + 1.0
        keep("pedestrian", across, np.clip((t - when) * pace, -limit, limit))
