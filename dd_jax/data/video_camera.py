"""Intrinsics of a video (given, from its metadata, or a default field of view) and removal of lens distortion."""

import math
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float64

from dd_jax.config import ConfigError
from dd_jax.data import frames, video_reader
from dd_jax.data.video_reader import Image

Intrinsics = tuple[float, float, float, float]  # fx, fy, cx, cy in pixels, integers at pixel centres

DEFAULT_FOV = 60.0
"""Degrees along the longer side, assumed for a video without metadata: typical of phones and some dash cameras."""

FILM_WIDTH = 36.0
"""Millimetres; width of the film frame that "35 mm equivalent" focal lengths refer to."""

FOCAL_KEY = "com.apple.quicktime.camera.focal_length.35mm_equivalent"
"""Key of the container's metadata that iPhones write."""


def from_fov(fov: float, width: int, height: int) -> Intrinsics:
    """Square pixels and a central principal point, from the horizontal field of view in degrees.

    Raises:
      ConfigError: ``fov`` is not between 0 and 180 degrees.
    """
    if not 0 < fov < 180:
        raise ConfigError(f"--fov={fov:g} must lie between 0 and 180 degrees")
    focal = width / 2 / math.tan(math.radians(fov) / 2)
    return focal, focal, (width - 1) / 2, (height - 1) / 2


def guess(video: Path, width: int, height: int) -> tuple[Intrinsics, str]:
    """Guessed intrinsics of a video (or image) and a sentence about their origin."""
    longer, film = max(width, height), _stated_focal(video)
    focal = longer / 2 / math.tan(math.radians(DEFAULT_FOV) / 2) if film is None else film / FILM_WIDTH * longer
    fov = math.degrees(2 * math.atan(width / 2 / focal))
    origin = (
        f"the file states no focal length, so {DEFAULT_FOV:g} degrees along the longer side are assumed"
        if film is None
        else f"from the focal length in the file, {film:g} mm (35 mm equivalent)"
    )
    return (focal, focal, (width - 1) / 2, (height - 1) / 2), f"guessed horizontal field of view {fov:.0f} degrees, {origin}"


def describe(camera: Intrinsics, width: int, height: int, where: str) -> dict[str, float | int]:
    """Content of ``intrinsics.json``.

    Raises:
      ConfigError: impossible intrinsics; the message begins with ``where``.
    """
    frames.intrinsics(*camera, (height, width), (height, width), where)  # the checks of training
    return {"width": width, "height": height, **dict(zip(("fx", "fy", "cx", "cy"), camera))}


def undistortion(
    camera: Intrinsics, coefficients: tuple[float, ...], width: int, height: int
) -> tuple[Intrinsics, Callable[[Image], Image]]:
    """Intrinsics of the undistorted images and the function that undistorts.

    The largest image of the same size and shape of pixels (fx : fy) without empty borders.

    Args:
      coefficients: k1, k2, p1, p2 and optionally k3 of Brown's model in OpenCV's convention.

    Raises:
      ConfigError: they fold the image or leave parts of it empty.
    """
    fx, fy, cx, cy = camera
    K, distortion = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]]), np.array(coefficients, float)
    new = _same_pixels(cv2.getOptimalNewCameraMatrix(K, distortion, (width, height), 0)[0], K, width, height)
    maps = cv2.initUndistortRectifyMap(K, distortion, None, new, (width, height), cv2.CV_32FC1)
    inside = [(axis > -1.5) & (axis < size + 0.5) for axis, size in zip(maps, (width, height))]  # NaN counts as outside
    share = float(np.mean(inside[0] & inside[1]))
    if share < 0.99 or not np.isfinite(new).all():
        raise ConfigError(
            f"--distortion={','.join(f'{value:g}' for value in coefficients)} leaves {1 - share:.0%} of the image empty: check "
            "the order k1,k2,p1,p2[,k3], and that --intrinsics is the camera it was measured with"
        )
    straight = float(new[0, 0]), float(new[1, 1]), float(new[0, 2]), float(new[1, 2])
    return straight, lambda image: cv2.remap(image, *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _same_pixels(
    stretched: Float64[np.ndarray, "3 3"], K: Float64[np.ndarray, "3 3"], width: int, height: int
) -> Float64[np.ndarray, "3 3"]:
    """The largest view inside that of ``stretched``, about its centre, whose pixels have the proportions of those of ``K``."""
    middle = np.linalg.solve(stretched, [(width - 1) / 2, (height - 1) / 2, 1])  # the ray at its centre
    new = K * max(stretched[0, 0] / K[0, 0], stretched[1, 1] / K[1, 1])
    new[:, 2] = (width - 1) / 2 - new[0, 0] * middle[0], (height - 1) / 2 - new[1, 1] * middle[1], 1
    return new


def _stated_focal(video: Path) -> float | None:
    """35 mm equivalent focal length in millimetres from the metadata of the file; None if it states no plausible one."""
    try:
        value = float(video_reader.metadata(video)[FOCAL_KEY])
    except (ConfigError, KeyError, ValueError):
        return None
    return value if 5 <= value <= 500 else None
