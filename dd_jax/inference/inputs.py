"""Frames to predict, with their intrinsics: images, a folder, a pattern, a video or a KITTI drive."""

import dataclasses
import functools
import glob
import logging
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32

from dd_jax.config import ConfigError
from dd_jax.data import frames, video_camera, video_reader
from dd_jax.data.folder import SUFFIXES, is_image
from dd_jax.data.frames import UnreadableFrame, decode_whole_image, load_array, object_mask
from dd_jax.data.kitti import timestamps
from dd_jax.data.kitti.raw import read_annotated
from dd_jax.data.recordings import Recording, find_pictures, recording_of
from dd_jax.data.video_camera import Intrinsics
from dd_jax.data.video_reader import FASTEST, Image
from dd_jax.inference.beside import require_names
from dd_jax.runtime.file_order import in_order, stamps_of
from dd_jax.runtime.files import natural_key

log = logging.getLogger(__name__)

EVERY = slice(None)
RATE = 10.0
"""Frames per second of drives, and of images by default."""

GAP = 1.5
"""Intervals longer than this many usual ones are gaps."""

MAPS = (".npy", ".png")
"""Suffixes of masks and ground truth."""

FORWARD_SPEED = 8
"""Column of KITTI's oxts files with the forward speed in m/s."""


@dataclasses.dataclass(frozen=True)
class Source:
    """Consecutive frames of one camera."""

    title: str
    names: list[str]  # of the frames, unique; output files have these names
    stamps: list[str]  # of each frame: changes with its file
    read: Callable[[Callable[[int], bool]], Iterator[Image | None]]  # all frames in order; None for those not requested
    where: Callable[[int], str]  # name of a frame in messages
    size: tuple[int, int]  # (height, width)
    K: Float32[np.ndarray, "3 3"]  # in pixels of the frames
    camera: str  # the origin of K, for messages
    rate: float  # frames per second
    drive: Path | None = None  # folder of a KITTI drive
    mask_folder: Path | None = None  # of the data set
    seconds: Sequence[float] | None = None  # of each frame; None: they come at ``rate``
    files: Sequence[Path] | None = None  # of the frames; None: a video
    findings: Sequence[str] = ()  # sentences about damage, and a rate that varies


def open_source(
    inputs: Sequence[str],
    *,
    chosen: slice = EVERY,
    camera: int | None = None,
    intrinsics: Intrinsics | None = None,
    fov: float | None = None,
    rate: float | None = None,
) -> Source:
    """Finds the kind of ``inputs`` and reads the first frame.

    Args:
      inputs: an image; several images, consecutive in this order; a folder or a pattern (``drive/*.jpg``), in the order of
        names; a video; or a folder in the layout of a data set (see ``data.recordings``): a KITTI drive or sequence, ...
      chosen: range of frames, like ``slice(100, 200, 2)``.
      camera: of a drive or sequence, 2 (left) or 3. Default: the one that there is, 2 if there are both.
      intrinsics, fov: in pixels, or the horizontal field of view in degrees. Default: the calibration of the data set, a
        folder's ``intrinsics.json``, or a guess.
      rate: frames per second. Default: the times of the video or data set, those in the names of images, or 10.

    Raises:
      ConfigError: no frame, a first frame that cannot be decoded, or an invalid camera or rate.
    """
    if rate is not None and not 1 / FASTEST <= rate <= FASTEST:
        raise ConfigError(f"--rate={rate:g} must be frames per second, between {1 / FASTEST:g} and {FASTEST:g}")
    only = Path(inputs[0]).expanduser() if len(inputs) == 1 else None
    if only is not None and only.is_dir():
        files = _image_files(find_pictures(only, camera))
    elif camera is not None:
        raise ConfigError(f"--camera={camera} is for KITTI drives: {inputs[0]} has no folder image_0{camera}")
    elif only is not None and only.is_file() and only.suffix.lower() not in SUFFIXES:
        return _video(only, chosen, intrinsics, fov, rate)
    else:
        files = _files(inputs)

    names = [path.stem for path in files]
    duplicate = next((name for name, after in zip(sorted(names), sorted(names)[1:]) if name == after), None)
    if duplicate is not None:
        raise ConfigError(f"two of the images are named {duplicate}, as their output files would be: predict them separately")
    recording = recording_of(files[0])
    if len({path.parent for path in files}) > 1:
        recording = Recording(recording.camera, recording.origin)  # masks and times of one folder are not those of all
    known_times = _times(recording, names) if rate is None and len(names) > 1 else None
    files, names, count = files[chosen], names[chosen], len(files)
    if not files:
        raise ConfigError(f"--frames leaves none of the {count} frames of {inputs[0]}")
    seconds = None if known_times is None else _irregular(known_times[chosen], names, chosen.step or 1)
    height, width = _decode(files[0]).shape[:2]
    known = _given_camera(intrinsics, fov, (height, width))
    if known is None and recording.camera is not None:
        known = recording.camera(files, (height, width)), recording.origin
    K, sentence = known or _guessed_camera(files[0], (height, width))

    def read(requested: Callable[[int], bool]) -> Iterator[Image | None]:
        for place, path in enumerate(files):
            yield _decode(path) if requested(place) else None

    rate = (RATE if rate is None else rate) / (chosen.step or 1)
    if seconds is not None:
        rate = float(np.clip((len(seconds) - 1) / (seconds[-1] - seconds[0]), 1 / FASTEST, FASTEST))
    title = only.name if only is not None else f"{names[0]} to {names[-1]}"
    return Source(
        title=title,
        names=names,
        stamps=[_stamp(path) for path in files],
        read=read,
        where=lambda place: str(files[place]),
        size=(height, width),
        K=K,
        camera=sentence,
        rate=rate,
        drive=recording.drive,
        mask_folder=recording.masks,
        seconds=seconds,
        files=files,
    )


def _times(recording: Recording, names: Sequence[str]) -> list[Decimal] | None:
    """The time of each frame by the data set's file of time stamps or by the frames' names; None if neither states it."""
    return stamps_of(names) if recording.times is None else timestamps.seconds_of(recording.times, names)


def _irregular(times: list[Decimal], names: Sequence[str], step: int) -> list[float] | None:
    """Seconds since the first frame; None where that is the time at :data:`RATE`. Warns about gaps."""
    seconds = [float(time - times[0]) for time in times]
    intervals = np.diff(seconds)
    if not intervals.size or not (intervals > 0).all() or np.allclose(intervals, step / RATE, rtol=0, atol=1e-6):
        return None
    usual, longest = float(np.median(intervals)), int(intervals.argmax())
    if intervals[longest] > GAP * usual:
        log.warning(
            "%g s pass between the frames %s and %s, %g s between most: frames are missing there, and the networks match across "
            "the gap; --frames leaves a part out", intervals[longest], names[longest], names[longest + 1], usual,
        )  # fmt: skip
    return seconds


def masks_of(source: Source, folder: Path | None) -> Callable[[int], Bool[np.ndarray, "H W"] | None]:
    """The object mask of a frame, ``NAME.png`` or ``NAME.npy`` in ``folder`` (default: a drive's); None if there is no file.

    Raises:
      ConfigError: no such folder, or none of its files has a frame's name; the returned function also raises for a mask that
        cannot be decoded or has other proportions than the frame.
    """
    if folder is not None and not folder.is_dir():
        raise ConfigError(f"--masks={folder} is not a folder")
    if folder is not None:
        require_names(folder, source.names, MAPS, "masks", "--masks", "they count as frames without objects")
    folder = source.mask_folder if folder is None else folder
    if folder is None or not folder.is_dir():
        return lambda place: None
    return lambda place: object_mask(folder, f"{source.names[place]}.png", source.size)


def truths_of(source: Source, folder: Path) -> Iterator[np.ndarray | None]:
    """Ground-truth depth of the frames, ``NAME.npy`` in metres or KITTI's 16-bit ``NAME.png``; None if there is no file.

    Raises:
      ConfigError: no such folder, none of its files has a frame's name, or a file that cannot be read or shows another part of
        the frame.
    """
    if not folder.is_dir():
        raise ConfigError(f"--truth={folder} is not a folder")
    require_names(folder, source.names, MAPS, "maps", "--truth", "they take the median scale of the frames so far")
    return (_truth(folder, name, source.size) for name in source.names)


def speeds_of(source: Source) -> list[float | None]:
    """Speed in m/s at each frame, from the ``oxts`` files of a KITTI drive; None if there is no file.

    Raises:
      ConfigError: not a drive, no file at all, or one without speed.
    """
    if source.drive is None:
        raise ConfigError("--speed=oxts is for KITTI drives: give the speed in metres per second")
    folder = source.drive / "oxts" / "data"
    if not folder.is_dir():
        raise ConfigError(f"{folder} does not exist: unpack the oxts files of the drive there, or give --speed in m/s")
    instead = "--speed=oxts and give the speed in m/s"
    require_names(folder, source.names, (".txt",), "oxts files", instead, "they take the median scale of the frames so far")
    return [_speed(folder / f"{name}.txt") for name in source.names]


def _speed(path: Path) -> float | None:
    try:
        speed = float(path.read_text().split()[FORWARD_SPEED]) if path.is_file() else None
        if speed is not None and not abs(speed) < FASTEST:
            raise ValueError(f"{speed} m/s")
        return speed
    except (OSError, ValueError, IndexError) as error:
        raise ConfigError(f"{path} has no speed in column {FORWARD_SPEED + 1}: remove it, or give --speed in m/s") from error


def _video(path: Path, chosen: slice, intrinsics: Intrinsics | None, fov: float | None, rate: float | None) -> Source:
    video = video_reader.survey(path, chosen)
    numbers = video.numbers
    K, sentence = _given_camera(intrinsics, fov, video.size) or _guessed_camera(path, video.size)
    return Source(
        title=path.name,
        names=[f"{number:06d}" for number in numbers],
        stamps=[_stamp(path)] * len(numbers),
        read=functools.partial(video_reader.read, path, numbers),
        where=lambda place: f"frame {numbers[place]} of {path}",
        size=video.size,
        K=K,
        camera=sentence,
        rate=video.rate if rate is None else rate / numbers.step,
        seconds=video.seconds if rate is None else None,
        findings=video.findings,
    )


def _stamp(path: Path) -> str:
    """Size and modification time of a file."""
    about = path.stat()
    return f"{about.st_size}-{about.st_mtime_ns}"


def _image_files(folder: Path) -> list[Path]:
    names = [path.name for path in folder.iterdir() if is_image(path.name)] if folder.is_dir() else []
    if not names:
        raise ConfigError(f"{folder} has no {', '.join(SUFFIXES)} images")
    return [folder / name for name in in_order(names, folder)]


def _files(inputs: Sequence[str]) -> list[Path]:
    found: list[Path] = []
    for text in inputs:
        path = Path(text).expanduser()
        matches = [path] if path.is_file() else [Path(name) for name in glob.glob(str(path), recursive=True)]
        if not matches:
            raise ConfigError(f"{text} does not exist: name images, a folder, a pattern in quotes, a video or a KITTI drive")
        folders = sorted({path.parent for path in matches}, key=lambda folder: natural_key(str(folder)))
        found += [
            folder / name
            for folder in folders
            for name in in_order((path.name for path in matches if path.parent == folder), folder)
        ]
    other = next((path for path in found if path.suffix.lower() not in SUFFIXES), None)
    if other is not None:
        raise ConfigError(f"{other} is not a {', '.join(SUFFIXES)} image: give a folder or a video as the only input")
    return found


def _decode(path: Path) -> Image:
    try:
        return decode_whole_image(path)
    except UnreadableFrame as error:
        raise ConfigError(f"the image {error} is damaged or cut off: replace or remove it, then run this again") from error


def _truth(folder: Path, name: str, size: tuple[int, int]) -> np.ndarray | None:
    path = next((path for path in (folder / f"{name}{suffix}" for suffix in MAPS) if path.is_file()), None)
    if path is None:
        return None
    if path.suffix == ".png":
        truth = read_annotated(path, "write 256 x the metres in 16 bits there, or metres into an .npy")
    else:
        try:
            truth = np.asarray(load_array(path))
        except UnreadableFrame as error:
            raise ConfigError(f"{path} is not a complete array") from error
    if truth.ndim == 2 and truth.size and not frames.same_proportions(truth.shape, size):
        raise ConfigError(
            f"{path} has {truth.shape[1]} x {truth.shape[0]} pixels, other proportions than its frame of {size[1]} x {size[0]}: "
            "write it for the whole frame, with 0 where the depth is unknown"
        )
    return truth


def _given_camera(
    intrinsics: Intrinsics | None, fov: float | None, size: tuple[int, int]
) -> tuple[Float32[np.ndarray, "3 3"], str] | None:
    if intrinsics is not None:
        return frames.intrinsics(*intrinsics, size, size, "--intrinsics"), "as given"
    if fov is None:
        return None
    camera = video_camera.from_fov(fov, size[1], size[0])
    return frames.intrinsics(*camera, size, size, "--fov"), f"horizontal field of view {fov:g} degrees, as given"


def _guessed_camera(path: Path, size: tuple[int, int]) -> tuple[Float32[np.ndarray, "3 3"], str]:
    camera, sentence = video_camera.guess(path, size[1], size[0])
    return frames.intrinsics(*camera, size, size, "the guessed camera"), sentence
