"""Frames and their depth side by side in an MP4 file."""

from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8

from dd_jax.config import ConfigError
from dd_jax.runtime.files import PARTIAL

Image = UInt8[np.ndarray, "h w 3"]

LONGEST = 1920
"""Largest number of pixels of the longer side: larger images are halved repeatedly."""


class SideBySideVideo:
    """Writes ``path`` frame by frame, under a temporary name until :meth:`close` renames it.

    Raises:
      ConfigError: the file cannot be written.
    """

    def __init__(self, path: Path, rate: float):
        self._path, self._rate = path, max(round(rate, 2), 0.01)  # the container stores the rate as a 16-bit fraction
        self._partial = path.with_name(f".{path.stem}{PARTIAL}{path.suffix}")  # OpenCV takes the container from the suffix
        self._writer: cv2.VideoWriter | None = None
        self._count = 0

    def add(self, image: Image, depth: Image) -> None:
        """Adds a frame: the image beside the coloured depth, or above it if it is wide."""
        both = np.concatenate([image, depth], axis=0 if image.shape[1] > 2 * image.shape[0] else 1)
        while max(both.shape) > LONGEST:
            both = cv2.resize(both, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        height, width = both.shape[0] // 2 * 2, both.shape[1] // 2 * 2  # the codec subsamples colour
        if self._writer is None:
            self._writer = cv2.VideoWriter(str(self._partial), cv2.VideoWriter_fourcc(*"mp4v"), self._rate, (width, height))
            if not self._writer.isOpened():
                raise ConfigError(f"{self._path} cannot be written as a video: choose a folder that can be written to")
        self._writer.write(np.ascontiguousarray(both[:height, :width, ::-1]))
        self._count += 1

    def close(self) -> None:
        """Completes the file; no file is left if there was no frame."""
        if self._writer is not None:
            self._writer.release()
            self._writer = None
            written = int(cv2.VideoCapture(str(self._partial)).get(cv2.CAP_PROP_FRAME_COUNT))  # OpenCV reports no errors
            if written != self._count:
                raise ConfigError(f"{self._path} was not written completely: free disk space, then run again")
            self._partial.replace(self._path)

    def abandon(self) -> None:
        """Removes an incomplete file."""
        if self._writer is not None:
            self._writer.release()
        self._partial.unlink(missing_ok=True)
