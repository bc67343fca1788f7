"""Metric scale: from the networks' own unit to metres. A single camera does not observe it, so it needs another source."""

import dataclasses
import itertools
import math
from collections import deque
from collections.abc import Iterable, Iterator
from typing import TypeVar

import numpy as np
from jaxtyping import Float32

from dd_jax.config import ConfigError, EvalConfig
from dd_jax.evaluation import ground_plane, metrics

STANDING = 0.5
"""Speed in m/s below which the camera moves too little between two frames to determine the scale."""

LARGEST = 1e30
"""Largest scale, and inverse of the smallest one: float32 depth ends at 1e38."""

MOST_WAITING = 100
"""Frames that wait for the first frame with a known scale."""

TRUTHS = "Median takes a depth map in metres, 0 = unknown, or one per frame"
SPEEDS = "Speed takes a number of metres per second, or one per frame"

TIMES = "Speed takes the time of each frame in seconds"

Item = TypeVar("Item")


@dataclasses.dataclass(frozen=True)
class Median:
    """Median scaling: the ratio of the medians of ground truth and prediction, per frame, as in published results.

    ``truth`` is a depth map in metres of any size, 0 = unknown; for a stream, one per frame (None: no ground truth).
    Frames without ground truth use the median of the ratios so far.
    """

    truth: np.ndarray | Iterable[np.ndarray | None]


@dataclasses.dataclass(frozen=True)
class CameraHeight:
    """The ratio of the camera's true height above the road to that in the predicted depth (``ground_plane``).

    A stream uses the median of the ratios so far, since a network's unit does not change between frames.
    """

    metres: float = 1.65  # KITTI's
    pitch: float = 0.0  # downward pitch of the mounted camera in degrees; Cityscapes: 2.2


@dataclasses.dataclass(frozen=True)
class Speed:
    """The ratio of the true distance between two frames to that of the pose network.

    ``metres_per_second`` is one number, or one per frame. A stream uses the median of the ratios so far, without frames in
    which the car hardly moves. For frames farther apart (``data.frame_step``), the mean speed since the previous one counts.
    ``seconds``, the time of each frame, replaces ``rate`` where frames do not come at regular intervals.
    """

    metres_per_second: float | Iterable[float | None]  # None: not known
    rate: float  # frames per second
    seconds: Iterable[float] | None = None


Scale = float | int | Median | CameraHeight | Speed


@dataclasses.dataclass(frozen=True)
class Prediction:
    """Network outputs for one frame, on the host, in the networks' unit and at their size."""

    inverse_depth: Float32[np.ndarray, "h w"]
    T_previous_from_target: Float32[np.ndarray, "4 4"] | None  # to the frame ``data.frame_step`` before; None if there is none
    network: str  # "student" | "teacher"


class Scaler:
    """Scale factors of consecutive frames.

    Args:
      scale: see the classes above; a number is the factor itself.
      config: range and crop of the ground truth.
      frame_step: distance in frames to the previous frame of a prediction.

    Raises:
      ConfigError: another type, or a value that is not positive and finite.
    """

    def __init__(self, scale: Scale, config: EvalConfig, frame_step: int = 1):
        self.scale, self._config, self._frame_step = scale, config, frame_step
        self._speeds: deque[float | None] = deque(maxlen=frame_step)  # of the frames since the previous one
        self._seconds: deque[float] = deque(maxlen=frame_step + 1)  # of these and the previous one
        self._found: list[float] = []
        self._known: Iterator = itertools.repeat(None)
        self._times: Iterator[float] | None = None
        match scale:
            case bool():
                raise ConfigError(f"scale={scale} is not a number, Median, CameraHeight or Speed")
            case int() | float() | np.floating() | np.integer():
                _require_positive("scale", float(scale))
            case Median(truth):
                self._known = _one_per_frame([truth] if isinstance(truth, np.ndarray) and truth.ndim == 2 else truth, TRUTHS)
            case CameraHeight(metres, pitch):
                _require_positive("the camera height", metres)
                if not (isinstance(pitch, int | float | np.number) and abs(pitch) < 90):
                    raise ConfigError(f"the camera pitch is {pitch!r}: give degrees downwards, between -90 and 90")
            case Speed(speed, rate, seconds):
                _require_positive("the frame rate", rate)
                self._times = None if seconds is None else _one_per_frame(seconds, TIMES)
                one = isinstance(speed, int | float | np.number)
                if one and abs(speed) > LARGEST:
                    raise ConfigError(f"the speed is {speed:g} metres per second: give a possible one")
                self._known = itertools.repeat(speed) if one else _one_per_frame(speed, SPEEDS)
            case _:
                raise ConfigError(f"scale={scale!r} is not a number, Median, CameraHeight or Speed")

    def factor(self, prediction: Prediction, K: Float32[np.ndarray, "3 3"]) -> float | None:
        """Metres per unit of this frame's depth; None while unknown. ``K`` is at the network size."""
        known = next(self._known, None)
        match self.scale:
            case Median():
                ratio = self._median_ratio(prediction, known)
            case CameraHeight(metres, pitch):
                ratio = metres / ground_plane.camera_height(prediction.inverse_depth, K, pitch)
            case Speed(rate=rate):
                ratio = self._speed_ratio(prediction, known, rate)
            case _:
                return float(self.scale)
        if ratio is not None:
            self._found.append(ratio)
        if isinstance(self.scale, Median) and ratio is not None:
            return ratio
        return float(np.median(self._found)) if self._found else None

    def _median_ratio(self, prediction: Prediction, truth: np.ndarray | None) -> float | None:
        if truth is None:
            return None
        if not isinstance(truth, np.ndarray) or truth.ndim != 2 or truth.dtype.kind not in "fiu" or not truth.size:
            raise ConfigError(f"{TRUTHS}: each must be a two-dimensional array")
        valid = metrics.valid_pixels(truth, self._config)
        depth = metrics.depth_at(prediction.inverse_depth, truth.shape, self._config)
        return metrics.median_ratio(depth, truth, valid, self._config) if valid.any() else None

    def _speed_ratio(self, prediction: Prediction, speed: float | None, rate: float) -> float | None:
        T = prediction.T_previous_from_target
        if not (speed is None or isinstance(speed, int | float | np.number)):
            raise ConfigError(f"{SPEEDS}: {speed!r} is not a number")
        self._speeds.append(speed)
        elapsed = self._frame_step / rate if self._times is None else self._elapsed(next(self._times, math.nan))
        if T is None or None in self._speeds:
            return None
        mean = abs(sum(self._speeds) / len(self._speeds))
        distance = float(np.linalg.norm(T[:3, 3]))
        if not STANDING <= mean <= LARGEST or distance == 0 or not 0 < elapsed < math.inf:
            return None
        if self._times is None:
            return mean * self._frame_step / rate / distance
        return mean * elapsed / distance

    def _elapsed(self, seconds: float) -> float:
        """Time since the previous frame."""
        if not isinstance(seconds, int | float | np.number):
            raise ConfigError(f"{TIMES}: {seconds!r} is not a number")
        self._seconds.append(seconds)
        return self._seconds[-1] - self._seconds[0]


def scaled(
    items: Iterable[tuple[Item, Prediction]], scaler: Scaler, K: Float32[np.ndarray, "3 3"]
) -> Iterator[tuple[Item, Prediction, float]]:
    """The items with their factors, in order; the first ones wait until a factor is known.

    Raises:
      ConfigError: no factor is known at the end, or after :data:`MOST_WAITING` frames.
    """
    waiting: list[tuple[Item, Prediction]] = []
    for item, prediction in items:
        waiting.append((item, prediction))
        factor = scaler.factor(prediction, K)
        if factor is not None:
            yield from ((*one, factor) for one in waiting)
            waiting.clear()
        elif len(waiting) >= MOST_WAITING:
            break
    if waiting:
        raise ConfigError(f"the first {len(waiting)} frames do not determine the scale: {missing(scaler.scale)}")


def missing(scale: Scale) -> str:
    """What a frame without a factor lacks, as the second half of a sentence."""
    if isinstance(scale, Speed):
        return f"Speed needs two frames between which the camera moves, at {STANDING:g} m/s or more"
    return "Median needs ground truth with pixels in the range and crop of the evaluation (model.config.eval), in metres"


def _one_per_frame(values: Iterable, sentence: str) -> Iterator:
    if isinstance(values, str) or not hasattr(values, "__iter__") or getattr(values, "ndim", 1) == 0:
        raise ConfigError(f"{sentence}: it was given {values!r}")
    return iter(values)


def _require_positive(name: str, value: float) -> None:
    if not (isinstance(value, int | float | np.number) and 0 < value < math.inf):
        raise ConfigError(f"{name} must be a positive number: it is {value!r}")
    if not 1 / LARGEST <= value <= LARGEST:
        raise ConfigError(f"{name} is {value:g}: it must lie between {1 / LARGEST:g} and {LARGEST:g}")
