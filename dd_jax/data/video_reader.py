"""The frames of a video file in presentation order, read with PyAV. A frame that cannot be decoded keeps its number.

The number of frames and their times are what decoding shows, not what the container announces.
"""

import contextlib
import dataclasses
import heapq
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
from jaxtyping import UInt8
from tqdm import tqdm

from dd_jax.config import ConfigError
from dd_jax.data.deinterlacing import Shown, deinterlaced
from dd_jax.data.folder import SUFFIXES

Image = UInt8[np.ndarray, "H W 3"]

FASTEST = 1000.0
"""Frames per second. Rates above this are treated as unknown."""

RATE = 25.0
"""Frames per second of a video whose file states no plausible rate."""

NO_TIME = -1 << 63
"""Sorts packets without a time stamp before all others."""


PLAYLISTS = ("hls", "concat", "dash", "imf", "sdp")
"""FFmpeg's names of formats that hold the names of other files."""

ANY_METADATA = {"metadata_errors": "replace"} if int(av.__version__.partition(".")[0]) < 19 else {}
"""Argument of ``av.open`` with which metadata need not be UTF-8; PyAV 19 takes any metadata and knows no such argument."""

VARYING = 1.5
"""A rate varies if an interval between frames is this many times longer or shorter than the median one."""


@dataclasses.dataclass(frozen=True)
class Survey:
    """What decoding has shown about the chosen frames of a video."""

    numbers: range
    size: tuple[int, int]  # (height, width) of the first frame that can be decoded
    rate: float  # chosen frames per second; where their intervals differ, of the median one
    seconds: list[float] | None  # of each chosen frame, since the first frame of the video; None: they come at ``rate``
    findings: list[str]  # sentences about damage, and a rate that varies


def opened(path: Path) -> av.container.InputContainer:
    """The container, which holds a video stream that can be decoded; also a context manager.

    Raises:
      ConfigError: the file is not a video, or there is no decoder for it.
    """
    with contextlib.suppress(av.FFmpegError), reports() as lines:
        # A relative path with a colon would be read as a URL; a playlist leads to other files, in a network if that is allowed.
        container = av.open(str(path.absolute()), options={"protocol_whitelist": "file"}, **ANY_METADATA)
        if container.format.name in PLAYLISTS:
            container.close()
            raise ConfigError(f"{path} is a list of other files, not a video: give one of those")
        stream = container.streams.best("video")
        if stream is not None and stream.codec_context is not None:
            return container
        container.close()
        if stream is not None:
            reason = next((text.splitlines()[0] for _, _, text in lines if "codec" in text), "unknown codec")
            raise ConfigError(f"{path} is encoded in a way that cannot be decoded here ({reason}): {_conversion(path)}")
    reason = "".join(f" (FFmpeg: {text})" for text in _errors(lines)[:1])
    kinds = ", ".join(SUFFIXES)
    raise ConfigError(f"{path} can be read neither as an image ({kinds}) nor as a video: give another file{reason}")


@contextlib.contextmanager
def reports() -> Iterator[list[tuple[int, str, str]]]:
    """What FFmpeg says in this block: severity, component, text. PyAV would drop it."""
    before = av.logging.get_level()
    av.logging.set_level(av.logging.WARNING)
    try:
        with av.logging.Capture(local=False) as lines:  # also what its threads say
            yield lines
    finally:
        av.logging.set_level(before)


def reported(path: Path, lines: list[tuple[int, str, str]]) -> list[str]:
    """A sentence on the errors among FFmpeg's reports, if there are any."""
    errors = _errors(lines)
    more = f" and {len(errors) - 1} more" if len(errors) > 1 else ""
    return [f"FFmpeg reports errors in {path}: {errors[0]}{more}"] if errors else []


def _errors(lines: list[tuple[int, str, str]]) -> list[str]:
    return [text.strip() for severity, _, text in lines if severity <= av.logging.ERROR]


def metadata(path: Path) -> dict[str, str]:
    """Metadata of the container by key. Raises as :func:`opened`."""
    with opened(path) as container:
        return dict(container.metadata)


def rate(path: Path) -> float:
    """Mean frames per second, :data:`RATE` if the file states no plausible one. Raises as :func:`opened`."""
    with opened(path) as container:
        return _rate(container.streams.best("video"))


def announced(path: Path) -> int:
    """Number of frames that the container announces, 0 if it announces none. Raises as :func:`opened`."""
    with opened(path) as container:
        return _announced(container)


def missing(path: Path) -> int:
    """Announced frames at the end that a truncated file does not hold; 0 for a few. Raises as :func:`opened`.

    Whole files may hold fewer packets than they announce (an AVI with dropped frames), but not end early as well.
    """
    with opened(path) as container:
        stream = container.streams.best("video")
        packets = [packet for packet in _packets(container) if packet.size]
        promised = _announced(container)
        absent = promised - len(packets)
        stamps = [packet.dts if packet.pts is None else packet.pts for packet in packets]
        if absent > 0 and stamps and None not in stamps:
            end = max(stamps) + (packets[-1].duration or 0) - (stream.start_time or 0)
            absent = min(absent, promised - round(float(end * stream.time_base) * _rate(stream)))
        return absent if absent > max(2, promised // 100) else 0


def decoded(path: Path) -> Iterator[Shown]:
    """All frames in presentation order, deinterlaced, with their times. Raises as :func:`opened`."""
    return deinterlaced(_timed(path))


def pixels(frame: av.VideoFrame) -> Image | None:
    """The frame in RGB, upright as players show it; None if its pixel format cannot be converted."""
    try:
        return np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), _quarter_turns(frame)))
    except (av.FFmpegError, ValueError):
        return None


def survey(path: Path, chosen: slice) -> Survey:
    """Decodes the video up to the last chosen frame, or to its end where only that tells which frames are chosen.

    Raises:
      ConfigError: as :func:`opened`; no frame is chosen, or none can be decoded.
    """
    start, stop = chosen.start or 0, chosen.stop
    limit = stop if stop is not None and 0 <= start < stop else None
    seconds, broken, count, first = [], [], 0, None  # count: up to the last frame that can be decoded
    with reports() as lines, tqdm(desc=f"looking through {path.name}", unit="frame", disable=None, delay=2) as progress:
        for number, (frame, time) in enumerate(_timed(path)):
            seconds.append(time)
            progress.update()
            if frame is not None:
                count, first = number + 1, first or frame
                broken += [number] if frame.is_corrupt else []
            if limit is not None and count >= limit:
                lost = 0
                break
        else:
            lost = len(seconds) - count + missing(path)
    if first is None:
        raise ConfigError(f"{path} has no readable frame{_codec(path)}: {_conversion(path)}, or give another file")
    numbers = range(count if limit is None else min(count, limit))[chosen]
    if not numbers:
        raise ConfigError(f"--frames leaves none of the {count} frames of {path}")
    findings = reported(path, lines)
    if broken := [number for number in broken if number in numbers]:
        findings.append(
            f"{len(broken)} frames of {path} are damaged, the first is {broken[0]:06d}: the decoder filled the gaps, so do not "
            "trust their depth, or leave them out with --frames"
        )
    if lost:
        findings.append(f"{path} ends {lost} frames before its announced length: it is cut off or damaged there")
    stated, times = rate(path), [seconds[number] for number in numbers]
    if len(times) == 1 or all(time == number / stated for number, time in zip(numbers, times)):
        return Survey(numbers, _size(first), stated / numbers.step, None, findings)
    intervals = np.diff(times)
    typical, longest = float(np.median(intervals)), int(intervals.argmax())
    if intervals.max() > VARYING * typical or intervals.min() * VARYING < typical:
        findings.append(
            f"the frame rate of {path} varies: the frames are {typical:.3g} s apart, but {intervals[longest]:.3g} s before frame "
            f"{numbers[longest + 1]:06d}: their time stamps are used, unless --rate is given"
        )
    return Survey(numbers, _size(first), round(1 / typical, 6), times, findings)


def read(path: Path, numbers: range, wanted: Callable[[int], bool]) -> Iterator[Image | None]:
    """The frames with these numbers, RGB; None for one whose index in ``numbers`` is not wanted.

    Ends early if the video does. An undecodable frame is damage if a later one can be decoded, otherwise the end.

    Raises:
      ConfigError: a frame of ``numbers`` cannot be decoded, or its size differs from that of the video's first frame.
    """
    first = damaged = None
    for number, (frame, _) in enumerate(decoded(path)):
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


class _Clock:
    """Seconds since the first frame, from the stamps of all frames in order; (number / rate) where stamps only round that.

    A frame without a stamp, or with an earlier one than the frame before (files joined), follows that at the stated rate.
    """

    def __init__(self, rate: float, tick: float):
        self._rate, self._rounding = rate, min(tick, 0.4 / rate)
        self._number, self._seconds, self._stamp, self._zero = -1, 0.0, -np.inf, None

    def __call__(self, stamp: float | None) -> float:
        self._number += 1
        follows = self._seconds + 1 / self._rate if self._number else 0.0
        regular, seconds = self._number / self._rate, follows
        if stamp is not None:
            if self._zero is None or stamp <= self._stamp:
                self._zero = stamp - follows
            self._stamp, seconds = stamp, stamp - self._zero
        self._seconds = regular if abs(seconds - regular) <= self._rounding else seconds
        return self._seconds


def _timed(path: Path) -> Iterator[Shown]:
    """All frames as stored, with their times."""
    lost: list[int] = []  # time stamps of undecodable packets whose turn has not come: decoders reorder frames
    with opened(path) as container:
        stream = container.streams.best("video")
        clock = _Clock(_rate(stream), float(stream.time_base))
        for packet in _packets(container):
            try:
                frames = packet.decode()
            except av.FFmpegError:
                if not packet.is_discard:
                    heapq.heappush(lost, NO_TIME if packet.pts is None else packet.pts)
                continue
            for frame in frames:
                while lost and (frame.pts is None or lost[0] < frame.pts):
                    heapq.heappop(lost)
                    yield Shown(None, clock(None))
                yield Shown(frame, clock(frame.time))
        yield from (Shown(None, clock(None)) for _ in lost)


def _packets(container: av.container.InputContainer) -> Iterator[av.Packet]:
    """Packets of the video stream, up to the end or to where a damaged container cannot be followed further."""
    with contextlib.suppress(av.FFmpegError):
        yield from container.demux(container.streams.best("video"))


def _rate(stream: av.video.stream.VideoStream) -> float:
    stated = (float(rate or 0) for rate in (stream.average_rate, stream.guessed_rate))
    return next((rate for rate in stated if 0 < rate < FASTEST), RATE)


def _announced(container: av.container.InputContainer) -> int:
    stream = container.streams.best("video")
    if container.format.name == "avi":  # counts ticks, of which a frame may last several
        return round(float(stream.frames * stream.time_base) * _rate(stream))
    return stream.frames


def _quarter_turns(frame: av.VideoFrame) -> int:
    return round(frame.rotation / 90)


def _size(frame: av.VideoFrame) -> tuple[int, int]:
    """(height, width) of an upright frame."""
    return (frame.width, frame.height) if _quarter_turns(frame) % 2 else (frame.height, frame.width)


def _codec(path: Path) -> str:
    with opened(path) as container:
        return f" ({container.streams.best('video').codec_context.codec.long_name})"


def _conversion(path: Path) -> str:
    return f"convert it to H.264 (ffmpeg -i {path.name} -c:v libx264 {path.stem}_h264.mp4)"


def _undecodable(path: Path, number: int) -> ConfigError:
    before = f"--frames=:{number} or " if number else ""
    return ConfigError(f"frame {number} of {path} cannot be decoded: leave it out with {before}--frames={number + 1}:")
