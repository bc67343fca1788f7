"""KITTI's calibration files and the intrinsics in them."""

from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32

from dd_jax.config import ConfigError
from dd_jax.data.frames import intrinsics

NOMINAL = (0.58, 1.92, 0.5, 0.5)
"""The field's constant camera (Monodepth2): fx / W, fy / H, cx / W, cy / H."""

LARGEST = 10_000
"""Pixels along a side that a picture may have; KITTI's have 1,242."""

AGAIN = "unpack KITTI's archive of it again"
"""What helps against a damaged file."""


def parse_calibration(text: str) -> dict[str, Float[np.ndarray, " n"] | str]:
    """``key: values`` lines, split at the first colon; values that are not all numbers stay text."""
    values: dict[str, np.ndarray | str] = {}
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            try:
                values[key.strip()] = np.array([float(word) for word in value.split()])
            except ValueError:
                values[key.strip()] = value.strip()
    return values


def read_calibration(path: Path, **sizes: int) -> dict[str, Float[np.ndarray, " n"] | str]:
    """A calibration file whose values ``sizes`` are so many finite numbers.

    Raises:
      ConfigError: no such file, or one of the values is absent, too short or no number, or no size of a picture.
    """
    if not path.is_file():
        raise ConfigError(
            f"the calibration file {path} does not exist: unpack KITTI's calibration archive below --config.data.root "
            "(training alone can do without: --config.data.intrinsics=nominal)"
        )
    values = parse_calibration(path.read_text(errors="replace"))
    for key, size in sizes.items():
        value = values.get(key)
        if not isinstance(value, np.ndarray) or value.size != size or not np.isfinite(value).all():
            raise ConfigError(f"{path}: {key} must be {size} finite numbers: {AGAIN}")
        if key.startswith("S_rect") and not ((value >= 1) & (value <= LARGEST)).all():
            raise ConfigError(f"{path}: {key} must be a width and a height between 1 and {LARGEST} pixels: {AGAIN}")
    return values


def drive_camera(path: Path, camera: int, size: tuple[int, int]) -> Float32[np.ndarray, "3 3"]:
    """Intrinsics of a rectified colour camera at ``size`` (height, width) from ``calib_cam_to_cam.txt``.

    Raises:
      ConfigError: no such file, or values that make no sense.
    """
    values = read_calibration(path, **{f"P_rect_0{camera}": 12, f"S_rect_0{camera}": 2})
    (fx, _, cx, _), (_, fy, cy, _), _ = values[f"P_rect_0{camera}"].reshape(3, 4)
    rectified = tuple(values[f"S_rect_0{camera}"][::-1])
    return intrinsics(fx, fy, cx, cy, rectified, size, f"{path} (P_rect_0{camera})")


def nominal_camera(size: tuple[int, int]) -> Float32[np.ndarray, "3 3"]:
    """The field's constant camera in pixels at the training size (height, width)."""
    (height, width), (fx, fy, cx, cy) = size, NOMINAL
    return np.array([[fx * width, 0, cx * width], [0, fy * height, cy * height], [0, 0, 1]], np.float32)
