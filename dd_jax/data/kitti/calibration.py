"""KITTI's calibration files and the intrinsics in them."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32

from dd_jax.config import ConfigError
from dd_jax.data.camera_check import check_pictures, picture_size
from dd_jax.data.frames import intrinsics

NOMINAL = (0.58, 1.92, 0.5, 0.5)
"""Constant intrinsics of Monodepth2: fx / W, fy / H, cx / W, cy / H."""

CALIBRATION = "calib_cam_to_cam.txt"
"""File of the cameras of a date, in the date's folder."""

LARGEST = 10_000
"""Maximum image width and height in pixels; KITTI's images are 1,242 wide."""

LARGEST_VALUE = 1e6
"""Of all values of a calibration that are used."""

AGAIN = "unpack KITTI's archive of it again"
"""Remedy for a damaged file, in messages."""


def parse_calibration(text: str) -> dict[str, Float[np.ndarray, " n"] | str]:
    """``key: values`` lines, split at the first colon; values that are not all numbers are kept as text."""
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
    """A calibration file; ``sizes`` are the required keys and their counts of finite numbers: 9 is a rotation, 12 a projection.

    Raises:
      ConfigError: the file or a value is absent, or a value has another count, is not finite, or is not an image size, a
        rotation, or the projection of a rectified camera.
    """
    if not path.is_file():
        raise ConfigError(
            f"the calibration file {path} does not exist: unpack KITTI's calibration archive below --config.data.root "
            "(training works without: --config.data.intrinsics=nominal)"
        )
    values = parse_calibration(path.read_text(errors="replace"))
    for key, size in sizes.items():
        value = values.get(key)
        if not isinstance(value, np.ndarray) or value.size != size or not np.isfinite(value).all():
            raise ConfigError(f"{path}: {key} must be {size} finite numbers: {AGAIN}")
        if key.startswith("S_rect") and not ((value >= 1) & (value <= LARGEST)).all():
            raise ConfigError(f"{path}: {key} must be a width and a height between 1 and {LARGEST} pixels: {AGAIN}")
        if not (np.abs(value) < LARGEST_VALUE).all():
            raise ConfigError(f"{path}: {key} has a value beyond {LARGEST_VALUE:g}: {AGAIN}")
        if size == 9 and not is_rotation(value.reshape(3, 3)):
            raise ConfigError(f"{path}: {key} must be a rotation: {AGAIN}")
        if size == 12 and not _is_projection(value.reshape(3, 4)):
            raise ConfigError(f"{path}: {key} must be the projection of a rectified camera, fx 0 cx x 0 fy cy y 0 0 1 z: {AGAIN}")
    return values


def is_rotation(R: Float[np.ndarray, "*n 3 3"]) -> bool:
    """Whether the columns are orthonormal and right-handed, to a hundredth."""
    return bool(np.allclose(np.swapaxes(R, -1, -2) @ R, np.eye(3), rtol=0, atol=0.01) and (np.linalg.det(R) > 0).all())


def _is_projection(P: Float[np.ndarray, "3 4"]) -> bool:
    K = P[:, :3]  # a focal length below a pixel would be a view of 180 degrees
    return bool(min(abs(K[0, 0]), abs(K[1, 1])) >= 1 and K[2, 2] == 1 and not K[[0, 1, 2, 2], [1, 0, 0, 1]].any())


def drive_camera(path: Path, camera: int, images: Iterable[Path], target: tuple[int, int]) -> Float32[np.ndarray, "3 3"]:
    """Intrinsics of a rectified camera at the ``target`` size (height, width) from :data:`CALIBRATION`.

    Args:
      images: of this camera, one of which is compared with the calibration.

    Raises:
      ConfigError: the file is absent or invalid, or as :func:`check_rectified`.
    """
    values = read_calibration(path, **{f"P_rect_0{camera}": 12, f"S_rect_0{camera}": 2})
    check_rectified(path, camera, images)
    (fx, _, cx, _), (_, fy, cy, _), _ = values[f"P_rect_0{camera}"].reshape(3, 4)
    rectified = tuple(values[f"S_rect_0{camera}"][::-1])
    return intrinsics(fx, fy, cx, cy, rectified, target, f"{path} (P_rect_0{camera})")


def check_rectified(path: Path, camera: int, images: Iterable[Path]) -> None:
    """Compares the first picture with the sizes in :data:`CALIBRATION`, if there are any.

    Raises:
      ConfigError: the picture was cropped, or is not rectified.
    """
    values = parse_calibration(path.read_text(errors="replace")) if path.is_file() else {}
    rectified, raw = (_size(values.get(f"{key}_0{camera}")) for key in ("S_rect", "S"))
    found = picture_size(images) if rectified is not None else None
    if found is not None:
        check_pictures(*found, rectified, f"{path} (S_rect_0{camera})", raw)


def _size(value: Float[np.ndarray, " n"] | str | None) -> tuple[int, int] | None:
    """(height, width) from a width and a height."""
    known = isinstance(value, np.ndarray) and value.size == 2 and np.isfinite(value).all() and (value >= 1).all()
    return (int(value[1]), int(value[0])) if known else None


def nominal_camera(size: tuple[int, int]) -> Float32[np.ndarray, "3 3"]:
    """Constant intrinsics :data:`NOMINAL` in pixels at the training size (height, width)."""
    (height, width), (fx, fy, cx, cy) = size, NOMINAL
    return np.array([[fx * width, 0, cx * width], [0, fy * height, cy * height], [0, 0, 1]], np.float32)
