"""Removes lens distortion from a folder of pictures, for ``--config.data.source=folder``."""

import dataclasses
import json
from pathlib import Path

import cv2
from tqdm import tqdm

from dd_jax.config import ConfigError
from dd_jax.data import frames, video_camera
from dd_jax.data.folder import CAMERA, SUFFIXES, is_image
from dd_jax.data.recordings import find_pictures
from dd_jax.data.video_camera import Intrinsics
from dd_jax.prepare.runner import note_origin
from dd_jax.runtime import files
from dd_jax.runtime.file_order import in_order

NOTE = "undistorted.json"


@dataclasses.dataclass(frozen=True)
class Undistorted:
    """Outcome for a folder."""

    folder: Path
    count: int
    size: tuple[int, int]  # height, width
    camera: Intrinsics


def undistort(
    path: Path, out: Path, intrinsics: Intrinsics | None, distortion: tuple[float, ...], suffix: str = "jpg"
) -> Undistorted:
    """Writes ``OUT/frames/NAME/*.jpg``, named as the pictures, and ``OUT/frames/NAME/intrinsics.json``; NAME is the folder's.

    Existing files are kept, so an interrupted job is continued.

    Args:
      path: folder of pictures, or one that ``find_pictures`` knows, such as a KITTI drive.
      intrinsics, distortion: as for :func:`dd_jax.prepare.video.prepare`.

    Raises:
      ConfigError: no pictures, a damaged one or one of another size, an invalid camera, or files of other settings in ``out``.
    """
    if intrinsics is None or not distortion:
        raise ConfigError(
            f"{path} is a folder: give --intrinsics and --distortion to undistort its pictures; pictures without distortion "
            f"are read as they are from {out / 'frames'}, with {CAMERA} beside them (docs/data.md)"
        )
    pictures, name = find_pictures(path, None), path.absolute().name
    names = in_order((entry.name for entry in pictures.iterdir() if is_image(entry.name)), pictures)
    if not names:
        raise ConfigError(f"{pictures} has no {', '.join(SUFFIXES)} images")
    folder = out / "frames" / name
    height, width = size = _read(pictures / names[0]).shape[:2]
    video_camera.describe(intrinsics, width, height, "--intrinsics")
    camera, straighten = video_camera.undistortion(intrinsics, distortion, width, height)
    content = video_camera.describe(camera, width, height, "--distortion")
    try:
        note_origin(folder / NOTE, {"intrinsics": list(intrinsics), "distortion": list(distortion), "suffix": suffix})
        files.replace(folder / CAMERA, json.dumps(content) + "\n")
        for picture in tqdm(names, desc=name, unit="frame", disable=None):
            target = folder / f"{Path(picture).stem}.{suffix}"
            if not target.is_file():
                files.replace(target, _encoded(straighten(_read(pictures / picture, size)), suffix))
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written ({error.strerror or error}): make room and run it again") from error
    return Undistorted(folder, len(names), size, camera)


def _read(path: Path, size: tuple[int, int] | None = None) -> video_camera.Image:
    """A picture, of the ``size`` (height, width) of the others."""
    try:
        image = frames.decode_whole_image(path)
    except frames.UnreadableFrame as error:
        raise ConfigError(f"the image {error} is damaged or cut off: replace or remove it, then run this again") from error
    if size not in (None, image.shape[:2]):
        raise ConfigError(
            f"{path} has {image.shape[1]} x {image.shape[0]} pixels, the first picture {size[1]} x {size[0]}: "
            "undistort pictures of one camera at a time"
        )
    return image


def _encoded(image: video_camera.Image, suffix: str) -> bytes:
    return cv2.imencode(f".{suffix}", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
