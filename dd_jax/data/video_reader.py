"""The frames of a video file in order, where OpenCV alone would go silently over what is damaged or changes."""

import contextlib
import io
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from dd_jax.config import ConfigError
from dd_jax.data.folder import SUFFIXES

Picture = UInt8[np.ndarray, "H W 3"]

PATIENCE = 100
"""Frames in a row that cannot be decoded, after which a video that does not say its length is believed to have ended."""


def opened(path: Path) -> Any:
    """A ``cv2.VideoCapture``.

    Raises:
      ConfigError: this is no video.
    """
    capture = cv2.VideoCapture(str(path))
    if not capture.isOpened():
        raise ConfigError(f"{path} can be read neither as a picture ({', '.join(SUFFIXES)}) nor as a video")
    return capture


def length(path: Path) -> int:
    """Frames that a video announces; where it announces nothing, up to the last one that can be decoded."""
    capture, count, number = opened(path), 0, 0
    announced = int(max(capture.get(cv2.CAP_PROP_FRAME_COUNT), 0))
    while not announced and number < count + PATIENCE:
        number += 1
        count = number if capture.grab() else count
    capture.release()
    return announced or count


def size(path: Path, count: int) -> tuple[int, int]:
    """(height, width) of the first of ``count`` frames that can be decoded.

    Raises:
      ConfigError: there is none.
    """
    capture = opened(path)
    found = (picture.shape[:2] for done, picture in (capture.read() for _ in range(count)) if done)
    first = next(found, None)
    capture.release()
    if first is None:
        raise ConfigError(f"{path} has no readable frame")
    return first


def read(path: Path, numbers: range, count: int, wanted: Callable[[int], bool]) -> Iterator[Picture | None]:
    """Those of the ``count`` frames that have these numbers, RGB; None for one whose place in ``numbers`` is not wanted.

    Ends early where the video does. A frame that fails while a later one can be decoded is damage, and no end.

    Raises:
      ConfigError: a frame of ``numbers`` cannot be decoded, or has another size than the first one of the video.
    """
    capture, sizes = opened(path), _coded_sizes(path)
    first = damaged = None
    for number in range(count):
        if number > numbers[-1] and damaged is None:
            break
        coded = next(sizes)
        first = first or coded
        if not capture.grab():
            damaged = number if damaged is None and number in numbers else damaged
            continue
        if damaged is not None:
            raise _undecodable(path, damaged)
        if number not in numbers:
            continue
        if coded is not None and coded != first:
            raise ConfigError(
                f"frame {number} of {path} has {coded[0]} x {coded[1]} pixels, the first one {first[0]} x {first[1]}: "
                "frames that belong together have one size, so predict the parts as files of their own"
            )
        done, picture = capture.retrieve() if wanted(numbers.index(number)) else (True, None)
        if not done:
            raise _undecodable(path, number)
        yield None if picture is None else cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
    capture.release()


def _undecodable(path: Path, number: int) -> ConfigError:
    before = f"--frames=:{number} or " if number else ""
    return ConfigError(f"frame {number} of {path} cannot be decoded: leave it out with {before}--frames={number + 1}:")


def _coded_sizes(path: Path) -> Iterator[tuple[int, int] | None]:
    """(width, height) that each frame of a Motion JPEG has in the file, as OpenCV scales all to that of the first; else None."""
    packets = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_FORMAT, -1])  # as they are, not decoded
    if packets.get(cv2.CAP_PROP_FOURCC) == cv2.VideoWriter_fourcc(*"MJPG"):
        size = None
        while packets.grab():
            with contextlib.suppress(OSError):  # a damaged one is told by who decodes it
                size = Image.open(io.BytesIO(packets.retrieve()[1].tobytes())).size
            yield size
    packets.release()
    yield from itertools.repeat(None)
