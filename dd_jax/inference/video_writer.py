"""Frames and their depth side by side in an MP4 file."""

from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8

from dd_jax.config import ConfigError
from dd_jax.runtime.files import PARTIAL

Picture = UInt8[np.ndarray, "h w 3"]

LONGEST = 1920
"""Pixels of the longer side at most: larger pictures are halved as often as it takes."""


class Movie:
    """Writes ``path`` picture by picture, under another name until :meth:`close` renames it.

    Raises:
      ConfigError: the file cannot be written.
    """

    def __init__(self, path: Path, rate: float):
        self._path, self._rate = path, max(round(rate, 2), 0.01)  # the container counts in fractions of 16 bits
        self._partial = path.with_name(f".{path.stem}{PARTIAL}{path.suffix}")  # the suffix tells OpenCV the container
        self._writer: cv2.VideoWriter | None = None
        self._count = 0

    def add(self, image: Picture, depth: Picture) -> None:
        """One more frame: the image beside the coloured depth, or above it where they are wide."""
        picture = np.concatenate([image, depth], axis=0 if image.shape[1] > 2 * image.shape[0] else 1)
        while max(picture.shape) > LONGEST:
            picture = cv2.resize(picture, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        height, width = picture.shape[0] // 2 * 2, picture.shape[1] // 2 * 2  # the codec halves the colours
        if self._writer is None:
            self._writer = cv2.VideoWriter(str(self._partial), cv2.VideoWriter_fourcc(*"mp4v"), self._rate, (width, height))
            if not self._writer.isOpened():
                raise ConfigError(f"{self._path} cannot be written as a video: choose a folder that can be written to")
        self._writer.write(np.ascontiguousarray(picture[:height, :width, ::-1]))
        self._count += 1

    def close(self) -> None:
        """Completes the file; nothing is left where no picture came."""
        if self._writer is not None:
            self._writer.release()
            self._writer = None
            there = int(cv2.VideoCapture(str(self._partial)).get(cv2.CAP_PROP_FRAME_COUNT))  # OpenCV does not say what it lost
            if there != self._count:
                raise ConfigError(f"{self._path} could not be written to its end: make room on the disk, then run this again")
            self._partial.replace(self._path)

    def abandon(self) -> None:
        """Removes what was written and not completed."""
        if self._writer is not None:
            self._writer.release()
        self._partial.unlink(missing_ok=True)

