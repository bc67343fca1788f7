"""A folder of pictures in the layout of a data set: which folder a path means, and the camera, masks and times beside it."""

import dataclasses
import functools
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from dd_jax.config import ConfigError
from dd_jax.data import folder
from dd_jax.data.cityscapes import files as cityscapes
from dd_jax.data.folder import is_image
from dd_jax.data.kitti import calibration, odometry

CAMERAS = (2, 3, 0, 1)
"""Of KITTI, in order of preference: colour left and right, grey left and right."""

Camera = Callable[[Sequence[Path], tuple[int, int]], Float32[np.ndarray, "3 3"]]
"""Intrinsics of pictures at a size (height, width)."""


@dataclasses.dataclass(frozen=True)
class Recording:
    """Pictures of one camera, and what lies beside them; None where a layout has no such file."""

    camera: Camera | None = None
    origin: str = ""  # of the camera, for messages
    masks: Path | None = None  # folder
    times: Path | None = None  # file with the time of each picture
    drive: Path | None = None  # of KITTI raw


def find_pictures(path: Path, camera: int | None) -> Path:
    """The folder of pictures that ``path`` means: itself, or in a KITTI drive or sequence, or ``ROOT/frames``.

    Args:
      camera: of KITTI; None: the first of :data:`CAMERAS` that there is.

    Raises:
      ConfigError: no pictures of that camera, or pictures of several clips.
    """
    places = {number: (path / f"image_0{number}" / "data", path / f"image_{number}") for number in CAMERAS}
    there = {number: place for number in CAMERAS for place in places[number] if _holds_images(place)}
    if camera is not None and camera not in there:
        others = " or ".join(f"--camera={number}" for number in there if number in (2, 3))
        hint = f"; there is {others}" if others else ""
        raise ConfigError(f"--camera={camera} is for KITTI drives: {path} has no folder image_0{camera} with images{hint}")
    if there:
        return there[camera] if camera is not None else next(iter(there.values()))
    frames = path if path.name == "frames" else path / "frames"
    clips = sorted(filter(_holds_images, frames.glob("*")))
    if len(clips) > 1 and not _holds_images(path):
        names = ", ".join(clip.name for clip in clips)
        raise ConfigError(f"{frames} holds several clips ({names}): give the folder of one of them")
    return next(filter(_holds_images, (path, path / "data", frames, *clips)), path)


def recording_of(image: Path) -> Recording:
    """What the layout of a data set has beside the folder of ``image``."""
    here = image.absolute().parent
    raw, sequence = re.fullmatch(r"image_0([0-3])", here.parent.name), re.fullmatch(r"image_([0-3])", here.name)
    if raw and here.name == "data":
        return _raw(here, int(raw[1]))
    if sequence and (here.parent / odometry.CALIBRATION).is_file():
        return _sequence(here.parent, int(sequence[1]))
    if here.parent.parent.name in cityscapes.IMAGE_FOLDERS:
        return Recording(cityscapes.whole_camera, "camera file of Cityscapes")
    root = folder.root_of(here)
    path = folder.camera_file(here, root)
    return Recording(
        camera=None if path is None else functools.partial(folder.read_camera, path),
        origin=f"from {path}",
        masks=None if root is None else root / "masks" / here.relative_to(root / "frames"),
    )


def _sequence(sequence: Path, number: int) -> Recording:
    path = sequence / odometry.CALIBRATION

    def camera(images: Sequence[Path], size: tuple[int, int]) -> Float32[np.ndarray, "3 3"]:
        return odometry.sequence_camera(path, number, images, size)

    return Recording(camera, f"calibration of the sequence, {path}", sequence / f"mask_{number}", sequence / "times.txt")


def _raw(here: Path, number: int) -> Recording:
    drive = here.parents[1]
    dates = drive.parent, drive.resolve().parent  # a drive may be a link to or from the folder with the calibration
    path = next((date / calibration.CALIBRATION for date in dates if (date / calibration.CALIBRATION).is_file()), None)

    def camera(images: Sequence[Path], size: tuple[int, int]) -> Float32[np.ndarray, "3 3"]:
        if path is None:
            raise ConfigError(
                f"the calibration file {dates[0] / calibration.CALIBRATION} does not exist: unpack KITTI's calibration archive "
                "there, or give the camera as --intrinsics=fx,fy,cx,cy or --fov"
            )
        return calibration.drive_camera(path, number, images, size)

    masks, times = drive / f"mask_0{number}" / "data", here.parent / "timestamps.txt"
    return Recording(camera, f"calibration of the drive, {path}", masks, times, drive)


def _holds_images(place: Path) -> bool:
    return place.is_dir() and any(is_image(entry.name) for entry in place.iterdir())
