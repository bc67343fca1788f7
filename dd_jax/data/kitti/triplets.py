"""Triplets of the frames that a KITTI split lists, for the raw and the odometry layout."""

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Int32

from dd_jax.data.frames import FrameFile, FrameTable
from dd_jax.data.kitti.splits import Entry
from dd_jax.data.splits import refuse_absent
from dd_jax.types import TARGET


def list_triplets(
    entries: list[Entry],
    file_of: Callable[[str, int, int], FrameFile | None],
    image_path: Callable[[str, int, int], str],
    source: str,
    step: int,
) -> tuple[list[FrameFile], Int32[np.ndarray, "n 3"]]:
    """The unique frames of the triplets (t-step, t, t+step), and the triplets as positions in that list.

    Args:
      file_of: the file of (folder, frame, camera), None if there is none.
      image_path: its path for messages.
      source: file or split of the entries, for messages.

    Raises:
      ConfigError: target images are absent.
    """
    table = FrameTable()

    def position(*entry: str | int) -> int:
        return table.position(entry, functools.partial(file_of, *entry))

    triplets = np.array([[position(f, t + offset, c) for offset in (-step, 0, step)] for f, t, c in entries], np.int32)
    refuse_absent([image_path(*entry) for entry, row in zip(entries, triplets) if row[1] < 0], len(entries), source)
    return table.files, triplets


def images_by_camera(
    root: Path, entries: list[Entry], files: list[FrameFile], triplets: Int32[np.ndarray, "n 3"]
) -> dict[tuple[str, int], list[Path]]:
    """The target images of each folder and camera."""
    images: dict[tuple[str, int], list[Path]] = {}
    for (folder, _, camera), row in zip(entries, triplets):
        images.setdefault((folder, camera), []).append(root / files[row[TARGET]].image)
    return images
