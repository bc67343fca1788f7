"""File names, frame numbers and cameras of Cityscapes, from a folder or from the original zip archives.

::

    leftImg8bit_sequence/{train,val,test}/CITY/CITY_SSSSSS_FFFFFF_leftImg8bit.png   2048 x 1024, 17 Hz, all frames
    leftImg8bit/{train,val,test}/CITY/...                                           annotated frames only
    camera/{train,val,test}/CITY/CITY_SSSSSS_FFFFFF_camera.json                     annotated frames only
    disparity/{train,val,test}/CITY/CITY_SSSSSS_FFFFFF_disparity.png                annotated frames only

A snippet has 30 frames, the 20th is annotated. In some cities SSSSSS is a long recording with consecutive FFFFFF.
Cordts et al., "The Cityscapes Dataset for Semantic Urban Scene Understanding", 2016.
"""

import dataclasses
import functools
import math
import re
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from dd_jax.config import ConfigError
from dd_jax.data.camera_check import RESIZED, check_intrinsics, off_centre, picture_size, stretch
from dd_jax.data.frames import intrinsics
from dd_jax.runtime.files import Folders, parse_json, read_json

STEP = 2
"""Every second frame of the 17 Hz recording, close to KITTI's 10 Hz: the published step, which ``data.frame_step`` multiplies."""

ORIGINAL_SIZE = (1024, 2048)
KEPT_ROWS = 768
"""The rows below show the car's bonnet and its star."""

KEPT = (0.0, 1.0, 0.0, KEPT_ROWS / ORIGINAL_SIZE[0])
"""The kept part of an image, as in ``FrameFile.box``."""

HOMES = ("train", "val", "test")
"""Cityscapes' official parts; each city belongs to one."""

IMAGE_FOLDERS = ("leftImg8bit_sequence", "leftImg8bit")
CAMERA_FOLDERS = ("camera", "camera_trainvaltest/camera")

CAMERA_SIZE = (384, 1024)
"""Image size that ``_cam.txt`` refers to, whatever the size of the images (some versions of the script swap the two)."""

LENS_SHIFT = 0.1
"""Largest distance of the principal point from the centre of the whole image, as a share of its size; Cityscapes' is 0.036."""

NOTE, UNFINISHED = "triplets.json", "unfinished"
"""Note beside preprocessed triplets: their settings, and the cities that may be incomplete."""

Entry = tuple[str, str, int]  # city, sequence, frame
Numbers = dict[str, set[int]]  # sequence -> its frames


class Tree:
    """A folder, and zip archives treated as folders in it."""

    def __init__(self, root: Path, archives: Iterable[Path] = ()):
        self.root, self.folders = root, Folders(root)
        self.names, self.subfolders = functools.cache(self._names), functools.cache(self._subfolders)
        self._archives: list[zipfile.ZipFile] = []
        self._members: dict[str, dict[str, zipfile.ZipFile]] = {}  # folder -> name -> archive
        for path in archives:
            try:
                archive = zipfile.ZipFile(path)
            except Exception as error:  # of damaged archives, and of features that Python does not read
                self.close()
                raise ConfigError(f"{path} is not a complete zip archive ({error}): download it again or remove it") from error
            self._archives.append(archive)
            for member in archive.namelist():
                folder, _, name = member.rpartition("/")
                if name:
                    self._members.setdefault(folder, {})[name] = archive

    def close(self) -> None:
        """Closes the archives."""
        for archive in self._archives:
            archive.close()

    def _names(self, folder: str) -> list[str]:
        return sorted({*self.folders.stamps(folder), *self._members.get(folder, ())})

    def _subfolders(self, folder: str) -> list[str]:
        path = self.root / folder
        found = {entry.name for entry in path.iterdir() if entry.is_dir()} if path.is_dir() else set()
        inner = (name[len(folder) + 1 :] for name in self._members if name.startswith(f"{folder}/"))
        return sorted(found | {name.split("/")[0] for name in inner})

    def read(self, path: str) -> bytes:
        """Content of a file.

        Raises:
          OSError: the file is absent or damaged in its archive.
        """
        if (self.root / path).is_file():
            return (self.root / path).read_bytes()
        folder, _, name = path.rpartition("/")
        archive = self._members.get(folder, {}).get(name)
        if archive is None:
            raise FileNotFoundError(path)
        try:
            return archive.read(path)
        except Exception as error:  # as above
            raise OSError(f"{path!r} cannot be read from its archive ({type(error).__name__})") from error


def frame_numbers(names: Iterable[str], city: str, ending: str) -> Numbers:
    """The frames of a city among the names of a folder."""
    pattern, found = re.compile(rf"{re.escape(city)}_(\d{{6}})_(\d{{6}}){re.escape(ending)}"), {}
    for name in names:
        match = pattern.fullmatch(name)
        if match:
            found.setdefault(match[1], set()).add(int(match[2]))
    return found


def full_triplets(city: str, numbers: Numbers, step: int = STEP) -> list[Entry]:
    """Every frame t of a city for which t-step and t+step exist, in order."""
    return [
        (city, sequence, number)
        for sequence, present in sorted(numbers.items())
        for number in sorted(present)
        if number - step in present and number + step in present
    ]


def triplets_in(folders: Folders, cities: Iterable[str], base: str = "") -> list[Entry]:
    """The preprocessed triplets, ``BASE/CITY/*.jpg``, in order."""
    found = ((city, frame_numbers(folders.stamps(f"{base}{city}"), city, ".jpg")) for city in sorted(cities))
    return [(city, s, n) for city, numbers in found for s, frames in sorted(numbers.items()) for n in sorted(frames)]


def read_note(folder: Path) -> dict[str, Any]:
    """The note beside preprocessed triplets; empty if there is none.

    Raises:
      ConfigError: the note is damaged.
    """
    note = folder / NOTE
    try:
        return dict(read_json(note)) if note.is_file() else {}
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{note} cannot be read: remove {folder} and make the triplets again") from error


@dataclasses.dataclass(frozen=True)
class Camera:
    """Content of a camera file, in pixels of the original image and metres."""

    path: Path
    fx: float
    fy: float
    u0: float
    v0: float
    baseline: float  # of the stereo pair; NaN if the file has none

    def matrix(self, target: tuple[int, int]) -> Float32[np.ndarray, "3 3"]:
        """Intrinsics of the kept rows at the ``target`` size (height, width)."""
        return intrinsics(self.fx, self.fy, self.u0, self.v0, (KEPT_ROWS, ORIGINAL_SIZE[1]), target, str(self.path))


def check_whole(image: Path, size: tuple[int, int]) -> None:
    """Raises ConfigError if an image of ``size`` (height, width) has other proportions than the camera files are for."""
    if stretch(size, ORIGINAL_SIZE) > RESIZED:
        raise ConfigError(
            f"{image} has {size[1]} x {size[0]} pixels, but the camera files are for {ORIGINAL_SIZE[1]} x {ORIGINAL_SIZE[0]}: "
            "take whole frames, or ones resized as a whole"
        )


def read_camera_text(path: Path, frame: tuple[int, int], target: tuple[int, int]) -> Float32[np.ndarray, "3 3"]:
    """Intrinsics at the ``target`` size (height, width) from SfMLearner's nine numbers.

    Args:
      frame: size (height, width) of the triplets' frames, which some versions of the script use instead of 1024 x 512.

    Raises:
      ConfigError: the file is absent, does not hold nine valid numbers, or is for images of another size.
    """
    try:
        fx, _, cx, _, fy, cy, _, _, _ = values = [float(word) for word in path.read_text().split(",")]
        if not all(map(math.isfinite, values)):
            raise ValueError("not finite")
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} must hold nine numbers, fx,0,cx,0,fy,cy,0,0,1, separated by commas") from error
    whole, own = (round(height / KEPT[3]) for height in (CAMERA_SIZE[0], frame[0]))
    off, own_off = (off_centre(cx, cy, size) for size in ((whole, CAMERA_SIZE[1]), (own, frame[1])))
    if off > LENS_SHIFT or own_off + LENS_SHIFT / 5 < off:
        likely = (own, frame[1]) if own_off < LENS_SHIFT else (2 * cy + 1, 2 * cx + 1)
        raise ConfigError(
            f"{path} is for images of {likely[1]:.0f} x {likely[0]:.0f}: its principal point is cx={cx:g} cy={cy:g}, but the "
            f"file must be for {CAMERA_SIZE[1]} x {whole}, whatever the size of the frames (these have {frame[1]} x {frame[0]}): "
            f"make the triplets again with scripts/prepare_cityscapes.py, or multiply fx, cx by {CAMERA_SIZE[1] / likely[1]:.4g} "
            f"and fy, cy by {whole / likely[0]:.4g}"
        )
    return intrinsics(fx, fy, cx, cy, CAMERA_SIZE, target, str(path))


def whole_camera(images: Sequence[Path], target: tuple[int, int]) -> Float32[np.ndarray, "3 3"]:
    """Intrinsics of whole images in ``ROOT/leftImg8bit_sequence/{train,val,test}/CITY`` at the ``target`` size (height, width).

    Raises:
      ConfigError: other file names, no camera file, an invalid one, or cropped images.
    """
    image = images[0].absolute()
    home, city = image.parts[-3:-1]
    numbers = frame_numbers([image.name], city, "_leftImg8bit.png")
    if not numbers:
        raise ConfigError(f"{image} is not named {city}_SSSSSS_FFFFFF_leftImg8bit.png: give it that name, or give the camera")
    check_whole(*(picture_size(images) or (image, ORIGINAL_SIZE)))
    ((sequence, (number,)),) = numbers.items()
    camera = Cameras(Tree(image.parents[3])).of(home, city, sequence, number)
    return intrinsics(camera.fx, camera.fy, camera.u0, camera.v0, ORIGINAL_SIZE, target, str(camera.path))


class Cameras:
    """Camera of any frame: files exist for annotated frames only, so the nearest frame number of the same sequence is used."""

    def __init__(self, tree: Tree):
        self._tree = tree
        self._numbers, self._read = functools.cache(self._find), functools.cache(self._parse)

    def of(self, home: str, city: str, sequence: str, number: int) -> Camera:
        """The camera of a frame of the part ``home``.

        Raises:
          ConfigError: the sequence has no camera file, or an invalid one.
        """
        folder, numbers = self._numbers(home, city)
        if sequence not in numbers:
            raise ConfigError(
                f"there is no camera file {self._tree.root / folder}/{city}_{sequence}_*_camera.json: "
                "unpack Cityscapes' camera archive (camera_trainvaltest.zip) there"
            )
        nearest = min(numbers[sequence], key=lambda other: (abs(other - number), other))
        return self._read(f"{folder}/{city}_{sequence}_{nearest:06d}_camera.json")

    def annotated(self, home: str) -> list[Entry]:
        """The frames with their own camera file, in order."""
        cities = sorted({city for base in CAMERA_FOLDERS for city in self._tree.subfolders(f"{base}/{home}")})
        found = ((city, self._numbers(home, city)[1]) for city in cities)
        return [(city, s, n) for city, numbers in found for s, frames in sorted(numbers.items()) for n in sorted(frames)]

    def _find(self, home: str, city: str) -> tuple[str, Numbers]:
        for base in CAMERA_FOLDERS:
            folder = f"{base}/{home}/{city}"
            numbers = frame_numbers(self._tree.names(folder), city, "_camera.json")
            if numbers:
                return folder, numbers
        return f"{CAMERA_FOLDERS[0]}/{home}/{city}", {}

    def _parse(self, name: str) -> Camera:
        path = self._tree.root / name
        try:
            values = parse_json(self._tree.read(name))
            fx, fy, u0, v0 = (float(values["intrinsic"][key]) for key in ("fx", "fy", "u0", "v0"))
            baseline = float(values.get("extrinsic", {}).get("baseline", math.nan))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            raise ConfigError(f"{path} has no intrinsic fx, fy, u0, v0: unpack Cityscapes' camera archive again") from error
        if not all(map(math.isfinite, (fx, fy, u0, v0))):
            raise ConfigError(f"{path}: intrinsic fx={fx:g} fy={fy:g} u0={u0:g} v0={v0:g} must be finite numbers")
        check_intrinsics(fx, fy, u0, v0, ORIGINAL_SIZE, str(path))
        return Camera(path, fx, fy, u0, v0, baseline)
