"""What KITTI's two layouts, raw (``kitti``) and odometry (``odometry``), have in common."""

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32, Int32

from dd_jax.config import ConfigError
from dd_jax.data.frames import FrameFile, FrameTable
from dd_jax.data.kitti.splits import Entry
from dd_jax.data.splits import refuse_absent

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


def nominal_camera(size: tuple[int, int]) -> Float32[np.ndarray, "3 3"]:
    """The field's constant camera in pixels at the training size (height, width)."""
    (height, width), (fx, fy, cx, cy) = size, NOMINAL
    return np.array([[fx * width, 0, cx * width], [0, fy * height, cy * height], [0, 0, 1]], np.float32)


def list_triplets(
    entries: list[Entry],
    file_of: Callable[[str, int, int], FrameFile | None],
    picture: Callable[[str, int, int], str],
    source: str,
) -> tuple[list[FrameFile], Int32[np.ndarray, "n 3"]]:
    """Every frame of the triplets (t-1, t, t+1) once, and the triplets as positions in that list.

    Args:
      file_of: the file of (folder, frame, camera), None where there is none.
      picture: how a message calls it.
      source: file or split that the entries are from, for the message.

    Raises:
      ConfigError: target images are absent.
    """
    table = FrameTable()

    def position(*entry: str | int) -> int:
        return table.position(entry, functools.partial(file_of, *entry))

    triplets = np.array([[position(f, t + step, c) for step in (-1, 0, 1)] for f, t, c in entries], np.int32)
    refuse_absent([picture(*entry) for entry, row in zip(entries, triplets) if row[1] < 0], len(entries), source)
    return table.files, triplets
