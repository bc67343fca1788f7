"""Motion and parallax between video frames, and their sharpness."""

import dataclasses
import math

import cv2
import numpy as np
from jaxtyping import Float32, Float64, UInt8

TRACKING_WIDTH = 480
"""Pixels; corners are tracked in images of this width."""

MIN_CORNERS = 20
OFF_PLANE = 1.0
"""Pixels at the tracking width; a corner farther from the best homography counts as parallax."""

Grey = UInt8[np.ndarray, "h w"]
Points = Float32[np.ndarray, "n 2"]


@dataclasses.dataclass(frozen=True)
class Difference:
    """Difference of two frames; infinite and NaN with too few corners."""

    motion: float  # median displacement of corners as a share of the width
    parallax: float  # share of corners that no single homography (camera rotation or one plane) explains


def shrink(image: UInt8[np.ndarray, "H W 3"]) -> Grey:
    """The RGB image in grey, :data:`TRACKING_WIDTH` pixels wide."""
    size = (TRACKING_WIDTH, max(1, round(image.shape[0] * TRACKING_WIDTH / image.shape[1])))
    return cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), size, interpolation=cv2.INTER_AREA)


def track(before: Grey, after: Grey) -> tuple[Points, Points] | None:
    """Corners of the first frame and their positions in the second (Lucas-Kanade); None with too few corners."""
    corners = cv2.goodFeaturesToTrack(before, maxCorners=300, qualityLevel=0.01, minDistance=7)
    if corners is None or len(corners) < MIN_CORNERS:
        return None
    moved, found, _ = cv2.calcOpticalFlowPyrLK(before, after, corners, None)
    found = found.astype(bool).ravel()
    pair = corners.reshape(-1, 2)[found], moved.reshape(-1, 2)[found]
    return pair if found.sum() >= MIN_CORNERS else None


def compare(before: Grey, after: Grey) -> Difference:
    """Motion and parallax between two frames.

    With a static camera, moving objects have a minority of the corners, so the median motion is near zero.
    """
    pair = track(before, after)
    if pair is None:
        return Difference(math.inf, math.nan)
    distance = np.linalg.norm(pair[1] - pair[0], axis=-1)
    _, explained = cv2.findHomography(*pair, cv2.RANSAC, OFF_PLANE)
    parallax = math.nan if explained is None else 1.0 - float(explained.mean())
    return Difference(float(np.median(distance)) / before.shape[1], parallax)


def alignment(source: Grey, target: Grey) -> Float64[np.ndarray, "3 3"] | None:
    """Homography from pixels of ``source`` to those of ``target`` that explains most corners; None with too few corners."""
    pair = track(source, target)
    return None if pair is None else cv2.findHomography(*pair, cv2.RANSAC, OFF_PLANE)[0]


def sharpness(image: Grey) -> float:
    """Variance of the Laplacian: decreases with blur but depends on the scene, so compare neighbouring frames only."""
    return float(cv2.Laplacian(image, cv2.CV_32F).var())


def blurred(values: list[float], share: float = 0.5, window: int = 9) -> list[int]:
    """Positions with a sharpness below ``share`` of the median of the ``window`` frames around them."""
    padded = np.pad(np.asarray(values, float), window // 2, mode="reflect" if len(values) > window // 2 else "edge")
    around = np.median(np.lib.stride_tricks.sliding_window_view(padded, window), axis=-1)
    return np.flatnonzero(np.asarray(values) < share * around).tolist()
