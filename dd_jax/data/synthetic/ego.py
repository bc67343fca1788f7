"""Routes along the streets and ego-motion of the recording car."""

import dataclasses

import numpy as np
from jaxtyping import Float64

from dd_jax.data.synthetic.ground import Roads

MANEUVERS = ("straight", "stop", "right", "wave", "left")
CAMERA_HEIGHT = 1.65  # metres
_STEP = 0.05
_REACH = 260.0  # metres of route on either side of the junction


@dataclasses.dataclass(frozen=True)
class Route:
    """A lane centre by arc length (0 at the junction); heading 0 is +Z, positive to the right."""

    s: Float64[np.ndarray, " n"]
    x: Float64[np.ndarray, " n"]
    z: Float64[np.ndarray, " n"]
    heading: Float64[np.ndarray, " n"]

    def at(self, s: np.ndarray, offset: np.ndarray | float = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(x, z, heading) at arc length ``s``, ``offset`` metres to the right."""
        x, z, heading = (np.interp(s, self.s, column) for column in (self.x, self.z, self.heading))
        return x + offset * np.cos(heading), z - offset * np.sin(heading), heading

    def rotated(self, quarter_turns: int, node: tuple[float, float]) -> "Route":
        """The same route seen from another arm of the junction at ``node``."""
        angle = quarter_turns * np.pi / 2
        c, s = np.cos(angle), np.sin(angle)
        return Route(self.s, c * self.x + s * self.z + node[0], -s * self.x + c * self.z + node[1], self.heading + angle)


def _smooth(x: np.ndarray) -> np.ndarray:
    x = np.clip(x, 0, 1)
    return x * x * (3 - 2 * x)


def route(lane: float, turn: int, radius: float) -> Route:
    """Along the street x = 0 in +Z; at z = 0 straight on (``turn`` 0), right (1) or left (-1).

    A turn is as long as a quarter circle of ``radius``. Its curvature rises from zero to 1.5 / ``radius`` and falls again.
    """
    s = np.arange(-_REACH, _REACH + _STEP / 2, _STEP)
    arc = radius * np.pi / 2
    heading = turn * _smooth((s + arc / 2) / arc) * np.pi / 2
    middle = (heading[1:] + heading[:-1]) / 2
    x = lane + np.concatenate([[0], np.cumsum(np.sin(middle))]) * _STEP
    z = np.concatenate([[0], np.cumsum(np.cos(middle))]) * _STEP
    return Route(s, x, z - (z[-1] + turn * lane) if turn else z + s[0], heading)  # a turn ends on the lane of the other street


@dataclasses.dataclass(frozen=True)
class Ego:
    """Motion of the recording car at frames -1 .. n (one more at both ends)."""

    route: Route
    lane: int
    s: Float64[np.ndarray, " n2"]
    offset: Float64[np.ndarray, " n2"]
    T_world_cam: Float64[np.ndarray, "n2 4 4"]

    @property
    def xz(self) -> Float64[np.ndarray, "n2 2"]:
        return self.T_world_cam[:, [0, 2], 3]


def drive(maneuver: str, frames: int, roads: Roads, rng: np.random.Generator) -> Ego:
    """Plans one drive; ``maneuver`` is one of ``MANEUVERS``."""
    t = np.arange(-1, frames + 1, dtype=float)
    phase = t / max(frames - 1, 1)
    lane = int(rng.integers(len(roads.lanes)))
    offset = np.zeros_like(t)
    turn = {"right": 1, "left": -1}.get(maneuver, 0)
    path = route(roads.lanes[lane], turn, rng.uniform(6.5, 8.0) + (2 + roads.lanes[lane] if turn < 0 else 0))
    if maneuver == "stop":
        speed = rng.uniform(0.7, 1.5) * np.maximum(_smooth((0.42 - phase) / 0.36), _smooth((phase - 0.72) / 0.3))
    elif turn:
        slow, cruise = rng.uniform(0.25, 0.5), rng.uniform(0.7, 1.3)
        speed = slow + (cruise - slow) * _smooth(np.abs(phase - 0.5) * 2.2 - 0.3)
    else:
        speed = _changing_speed(t, rng)
    s = np.concatenate([[0], np.cumsum((speed[1:] + speed[:-1]) / 2)])
    if maneuver == "stop":
        s += -(roads.half_road + 6.5) - np.interp(0.55, phase, s)
    elif turn:
        s -= np.interp(0.5, phase, s)
    else:
        s += rng.uniform(-roads.block, 0.3 * roads.block)
    if maneuver == "wave":
        offset = rng.uniform(0.4, 0.8) * np.sin(2 * np.pi * (s / rng.uniform(22, 45) + rng.random()))
    x, z, heading = path.at(s, offset)
    drift = np.gradient(offset) / np.maximum(speed, 0.1)
    return Ego(path, lane, s, offset, _camera(t, x, z, heading + np.arctan(drift), speed / 0.6, rng))


def _changing_speed(t: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Slow and fast stretches of one to two seconds in turn, in metres per frame: every speed occurs, none is the rule."""
    times = t[0] - rng.uniform(0, 15) + np.concatenate([[0], np.cumsum(rng.uniform(10, 20, len(t) // 10 + 3))])
    fast = np.arange(len(times)) % 2 == rng.integers(2)
    speeds = np.where(fast, rng.uniform(0.8, 1.5, len(times)), rng.uniform(0.1, 0.6, len(times)))
    i = np.searchsorted(times, t, side="right") - 1
    return speeds[i] + (speeds[i + 1] - speeds[i]) * _smooth((t - times[i]) / (times[i + 1] - times[i]))


def _camera(t, x, z, heading, liveliness, rng) -> np.ndarray:
    """The body pitches and rolls slightly while driving."""

    def sway(amplitude, period):
        return amplitude * np.sin(2 * np.pi * (t / (period * rng.uniform(0.8, 1.25)) + rng.random())) * np.minimum(liveliness, 1)

    yaw = heading + sway(np.radians(0.12), 13)
    pitch = sway(np.radians(0.22), 9) + sway(np.radians(0.1), 5)
    roll = sway(np.radians(0.25), 11)
    poses = np.tile(np.eye(4), (len(t), 1, 1))
    for pose, a, b, c in zip(poses, yaw, pitch, roll, strict=True):
        pose[:3, :3] = turn_y(a) @ _turn_x(b) @ _turn_z(c)
    poses[:, 0, 3], poses[:, 2, 3] = x, z
    poses[:, 1, 3] = -CAMERA_HEIGHT + sway(0.012, 8)
    return poses


def turn_y(a: float) -> np.ndarray:
    """Rotation that maps +Z to heading ``a``."""
    c, s = np.cos(a), np.sin(a)
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])


def _turn_x(a: float) -> np.ndarray:
    c, s = np.cos(a), np.sin(a)
    return np.array([[1, 0, 0], [0, c, -s], [0, s, c]])


def _turn_z(a: float) -> np.ndarray:
    c, s = np.cos(a), np.sin(a)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
