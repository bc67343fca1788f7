"""A driving video as a folder that ``--config.data.source=folder`` reads."""

import dataclasses
import json
import math
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8
from tqdm import tqdm

from dd_jax.config import ConfigError
from dd_jax.data import frames

TRACKING_WIDTH = 480
"""Corners are tracked in pictures of this width."""

MIN_MOTION = 0.001
"""A frame in which the median corner moved by less than this share of the width has no parallax to learn from."""


@dataclasses.dataclass
class Prepared:
    """What became of a video."""

    folder: Path
    kept: int
    static: int  # frames left out because the camera hardly moved since the last one kept


def camera_of(
    width: int, height: int, fov: float | None = None, intrinsics: tuple[float, float, float, float] | None = None
) -> dict[str, float | int]:
    """Content of ``intrinsics.json`` from fx, fy, cx, cy in pixels, or from the horizontal field of view in degrees.

    Raises:
      ConfigError: not exactly one of the two, or a camera that cannot be.
    """
    if (fov is None) == (intrinsics is None):
        raise ConfigError("give either --fov (horizontal, in degrees) or --intrinsics=fx,fy,cx,cy (in pixels of the video)")
    if intrinsics is None:
        if not 0 < fov < 180:
            raise ConfigError(f"--fov={fov:g} must lie between 0 and 180 degrees")
        focal = width / 2 / math.tan(math.radians(fov) / 2)
        intrinsics = (focal, focal, (width - 1) / 2, (height - 1) / 2)
    frames.intrinsics(*intrinsics, (height, width), (height, width), "--intrinsics")  # refuses what training would refuse
    return {"width": width, "height": height, **dict(zip(("fx", "fy", "cx", "cy"), intrinsics))}


def motion(before: UInt8[np.ndarray, "h w"], after: UInt8[np.ndarray, "h w"]) -> float:
    """Median displacement of tracked corners as a share of the width (Lucas-Kanade); infinite with too few corners to tell.

    Moving objects seen by a standing camera hold a minority of the corners, so the median stays near zero.
    """
    corners = cv2.goodFeaturesToTrack(before, maxCorners=300, qualityLevel=0.01, minDistance=7)
    if corners is None or len(corners) < 20:
        return math.inf
    moved, found, _ = cv2.calcOpticalFlowPyrLK(before, after, corners, None)
    distance = np.linalg.norm((moved - corners)[found.astype(bool)], axis=-1)
    return float(np.median(distance)) / before.shape[1] if len(distance) >= 20 else math.inf


def prepare(
    video: Path,
    out: Path,
    *,
    fov: float | None = None,
    intrinsics: tuple[float, float, float, float] | None = None,
    every: int = 1,
    start: float = 0.0,
    end: float = math.inf,
    min_motion: float = MIN_MOTION,
    suffix: str = "jpg",
) -> Prepared:
    """Writes ``OUT/frames/NAME/%06d.jpg`` and ``OUT/frames/NAME/intrinsics.json``; NAME is the video's.

    Takes every ``every``-th frame between ``start`` and ``end`` (seconds) and leaves out those in which the camera hardly
    moved since the last one kept (see :func:`motion`). Several videos may share an ``out``: each is a clip of its own.

    Raises:
      ConfigError: the video or the camera cannot be read or makes no sense, or the clip's folder holds frames already.
    """
    if every < 1 or not 0 <= start < end:
        raise ConfigError(f"--every={every} must be at least 1, and 0 <= --start={start:g} < --end={end:g} seconds")
    folder = out / "frames" / video.stem
    if folder.is_dir() and any(folder.iterdir()):
        raise ConfigError(f"{folder} holds files already: remove it, or choose another --out")
    capture = cv2.VideoCapture(str(video)) if video.is_file() else None
    if capture is None or not capture.isOpened():
        raise ConfigError(f"{video} cannot be read as a video")
    rate = capture.get(cv2.CAP_PROP_FPS) or 25.0
    last = math.ceil(min(end * rate, max(capture.get(cv2.CAP_PROP_FRAME_COUNT), 0))) or None

    before, result = None, Prepared(folder, kept=0, static=0)
    progress = tqdm(total=last, desc=video.name, unit="frame", disable=None)
    with progress:
        number = -1
        while capture.grab() and (number := number + 1) < end * rate:
            progress.update()
            if number < start * rate or number % every:
                continue
            readable, picture = capture.retrieve()
            if not readable:
                continue
            height, width = picture.shape[:2]
            if before is None:
                camera = camera_of(width, height, fov, intrinsics)
                folder.mkdir(parents=True, exist_ok=True)
                (folder / "intrinsics.json").write_text(json.dumps(camera) + "\n")
            small = (TRACKING_WIDTH, max(1, round(height * TRACKING_WIDTH / width)))
            grey = cv2.resize(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY), small, interpolation=cv2.INTER_AREA)
            if before is not None and motion(before, grey) < min_motion:
                result.static += 1
                continue
            before = grey
            if not cv2.imwrite(str(folder / f"{number:06d}.{suffix}"), picture, [cv2.IMWRITE_JPEG_QUALITY, 95]):
                raise ConfigError(f"{folder} cannot be written")
            result.kept += 1
    capture.release()
    if not result.kept:
        raise ConfigError(f"{video} has no frame between --start={start:g} and --end={end:g} seconds")
    return result
