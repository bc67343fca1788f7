"""The frames of a video file in presentation order, read with PyAV. A frame that cannot be decoded keeps its number."""

import contextlib
import heapq
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
from jaxtyping import UInt8

from dd_jax.config import ConfigError
from dd_jax.data.folder import SUFFIXES

Image = UInt8[np.ndarray, "H W 3"]

FASTEST = 1000.0
"""Frames per second. Rates above this are treated as unknown."""

RATE = 25.0
"""Frames per second of a video whose file states no plausible rate."""

NO_TIME = -1 << 63
"""Sorts packets without a time stamp before all others."""


def opened(path: Path) -> av.container.InputContainer:
    """The container, which holds a video stream; also a context manager.

    Raises:
      ConfigError: the file is not a video.
    """
    with contextlib.suppress(av.FFmpegError):
        container = av.open(str(path.absolute()))  # a relative path with a colon would be read as a URL
        if container.streams.best("video") is not None:
            return container
        container.close()
    raise ConfigError(f"{path} can be read neither as an image ({', '.join(SUFFIXES)}) nor as a video: give another file")


def metadata(path: Path) -> dict[str, str]:
    """Metadata of the container by key. Raises as :func:`opened`."""
    with opened(path) as container:
        return dict(container.metadata)


def rate(path: Path) -> float:
    """Mean frames per second, :data:`RATE` if the file states no plausible one. Raises as :func:`opened`."""
    with opened(path) as container:
        stream = container.streams.best("video")
        stated = float(stream.average_rate or stream.guessed_rate or 0)
    return stated if 0 < stated < FASTEST else RATE


def length(path: Path) -> int:
    """Number of frames that the file announces, or of its packets if it announces none. Raises as :func:`opened`."""
    with opened(path) as container:
        return container.streams.best("video").frames or sum(packet.size > 0 for packet in _packets(container))


def decoded(path: Path) -> Iterator[av.VideoFrame | None]:
    """All frames in presentation order; None for one that cannot be decoded. Raises as :func:`opened`."""
    lost: list[int] = []  # time stamps of undecodable packets whose turn has not come: decoders reorder frames
    with opened(path) as container:
        for packet in _packets(container):
            try:
                frames = packet.decode()
            except av.FFmpegError:
                heapq.heappush(lost, NO_TIME if packet.pts is None else packet.pts)
                continue
            for frame in frames:
                while lost and (frame.pts is None or lost[0] < frame.pts):
                    heapq.heappop(lost)
                    yield None
                yield frame
    yield from (None for _ in lost)


def pixels(frame: av.VideoFrame) -> Image | None:
    """The frame in RGB, upright as players show it; None if its pixel format cannot be converted."""
    try:
        return np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), _quarter_turns(frame)))
    except (av.FFmpegError, ValueError):
        return None


def size(path: Path, count: int) -> tuple[int, int]:
    """(height, width) of the first of ``count`` frames that can be decoded.

    Raises:
      ConfigError: none can be decoded.
    """
    first = next((frame for frame in itertools.islice(decoded(path), count) if frame is not None), None)
    if first is None:
        raise ConfigError(f"{path} has no readable frame: give another file")
    return _size(first)


def read(path: Path, numbers: range, count: int, wanted: Callable[[int], bool]) -> Iterator[Image | None]:
    """Those of the ``count`` frames with these numbers, RGB; None for one whose index in ``numbers`` is not wanted.

    Ends early if the video does. An undecodable frame is damage if a later one can be decoded, otherwise the end.

    Raises:
      ConfigError: a frame of ``numbers`` cannot be decoded, or its size differs from that of the video's first frame.
    """
    first = damaged = None
    for number, frame in enumerate(itertools.islice(decoded(path), count)):
        if frame is None:
            damaged = number if damaged is None and number in numbers else damaged
            continue
        if damaged is not None:
            raise _undecodable(path, damaged)
        height, width = _size(frame)
        first = first or (height, width)
        if number not in numbers:
            continue
        if (height, width) != first:
            raise ConfigError(
                f"frame {number} of {path} has {width} x {height} pixels, the first one {first[1]} x {first[0]}: "
                "all frames need the same size, so predict the parts as separate files"
            )
        image = pixels(frame) if (chosen := wanted(numbers.index(number))) else None
        if chosen and image is None:
            raise _undecodable(path, number)
        yield image
        if number == numbers[-1]:
            return


def _packets(container: av.container.InputContainer) -> Iterator[av.Packet]:
    """Packets of the video stream, up to the end or to where a damaged container cannot be followed further."""
    with contextlib.suppress(av.FFmpegError):
        yield from container.demux(container.streams.best("video"))


def _quarter_turns(frame: av.VideoFrame) -> int:
    return round(frame.rotation / 90)


def _size(frame: av.VideoFrame) -> tuple[int, int]:
    """(height, width) of an upright frame."""
    return (frame.width, frame.height) if _quarter_turns(frame) % 2 else (frame.height, frame.width)


def _undecodable(path: Path, number: int) -> ConfigError:
    before = f"--frames=:{number} or " if number else ""
    return ConfigError(f"frame {number} of {path} cannot be decoded: leave it out with {before}--frames={number + 1}:")
