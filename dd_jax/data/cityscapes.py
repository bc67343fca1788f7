"""Cityscapes: preprocessed triplets for training, the original sequences for the test set.

* train, val: ``ROOT/CITY/CITY_SSSSSS_FFFFFF.jpg``, frames t-2, t, t+2 side by side without the bonnet (lower quarter), and
  ``..._cam.txt`` (SfMLearner's layout; a folder ``ROOT/preprocessed`` is used where it exists). Masks are
  ``ROOT/train_mask/CITY_SSSSSS_F.npy`` for t and ``F-1``, ``F+1`` for t-2, t+2 (DynamicDepth's layout, F without zeros).
  Prior depth of t is ``ROOT/train_prior/CITY_SSSSSS_FFFFFF.png`` (16 bits, inverse depth by another network).
* test: ``ROOT/leftImg8bit_sequence/test/CITY/..._leftImg8bit.png`` at t-2 and t (t also from ``ROOT/leftImg8bit``), upper
  768 of 1024 rows, with ``ROOT/camera/test/CITY/..._camera.json``, ``ROOT/gt_depths/%03d_depth.npy`` in the order of the
  split file, and ``ROOT/val_mask``. Cordts et al., "The Cityscapes Dataset", 2016.
"""

import functools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from dd_jax.config import ConfigError, DataConfig
from dd_jax.data.frames import MISSING, Folders, FrameFile, FrameTable, GroundTruth, Listing, frame_file, intrinsics, object_mask
from dd_jax.data.splits import read_cityscapes, refuse_absent, split_file

STEP = 2
"""Every second frame of the 17 Hz recording, close to KITTI's 10 Hz."""

CAMERA_SIZE = (384, 1024)
"""What ``_cam.txt`` refers to, whatever the size of the pictures beside it (some copies of the script swap the two)."""

ORIGINAL_SIZE = (1024, 2048)
KEPT_ROWS = 768

Entry = tuple[str, str, int]  # city, sequence, frame


def list_split(config: DataConfig, split: str) -> Listing:
    """Triplets (t-2, t, t+2) of "train" or "val", pairs (t-2, t) of "test".

    Raises:
      ConfigError: folder, split file, target images or camera files are absent or make no sense.
    """
    path = split_file(config, split)
    entries = read_cityscapes(path)
    return (_list_test if split == "test" else _list_triplets)(config, path, entries)


def _list_triplets(config: DataConfig, path: Path, entries: list[Entry]) -> Listing:
    root, table = Path(config.root), FrameTable()
    folders = Folders(root)
    base = "preprocessed/" if (root / "preprocessed").is_dir() else ""

    def third(city: str, sequence: str, centre: int, place: int) -> FrameFile | None:
        """The picture ``place`` (-1, 0, 1) of the triplet around ``centre``."""
        image = folders.find(f"{base}{city}", f"{city}_{sequence}_{centre:06d}.jpg")
        suffix = "" if place == 0 else f"{place:+d}"
        mask = folders.find("train_mask", f"{city}_{sequence}_{centre}{suffix}.npy") if config.masks == "files" else None
        prior = None
        if config.priors == "files" and place == 0:
            prior = folders.find("train_prior", f"{city}_{sequence}_{centre:06d}.png")
        return frame_file(image, mask, prior, box=((place + 1) / 3, (place + 2) / 3, 0.0, 1.0))

    def frame(city: str, sequence: str, number: int) -> FrameFile | None:
        """Most frames are in three files; the one they are the centre of is taken for all, so that each is stored once."""
        places = (third(city, sequence, number - place * STEP, place) for place in (0, -1, 1))
        return next((file for file in places if file is not None), None)

    def position(city: str, sequence: str, number: int) -> int:
        return table.position((city, sequence, number), functools.partial(frame, city, sequence, number))

    centres = [third(*entry, 0) for entry in entries]
    names = ["_".join((city, sequence, f"{number:06d}")) for city, sequence, number in entries]
    pictures = [root / base / entry[0] / name for entry, name in zip(entries, names)]
    refuse_absent([f"{picture}.jpg" for picture, file in zip(pictures, centres) if file is None], len(entries), path)
    return Listing(
        root=root,
        files=table.files,
        triplets=np.array([[position(c, s, n + step) for step in (-STEP, 0, STEP)] for c, s, n in entries], np.int32),
        K=np.stack([read_camera_text(Path(f"{picture}_cam.txt"), (config.height, config.width)) for picture in pictures]),
        names=[f"{entry[0]} {name}" for entry, name in zip(entries, names)],
        ground_truth=lambda index, kind: None,
    )


def read_camera_text(path: Path, target: tuple[int, int]) -> Float32[np.ndarray, "3 3"]:
    """Intrinsics at the ``target`` size (height, width) from SfMLearner's nine numbers.

    Raises:
      ConfigError: no such file, not nine numbers, or numbers that make no sense.
    """
    try:
        fx, _, cx, _, fy, cy, _, _, _ = (float(word) for word in path.read_text().split(","))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} must hold nine numbers, fx,0,cx,0,fy,cy,0,0,1, separated by commas") from error
    return intrinsics(fx, fy, cx, cy, CAMERA_SIZE, target, str(path))


def _list_test(config: DataConfig, path: Path, entries: list[Entry]) -> Listing:
    root, table = Path(config.root), FrameTable()
    folders = Folders(root)
    cameras = next((name for name in ("camera", "camera_trainvaltest/camera") if (root / name).is_dir()), "camera") + "/test"

    def frame(city: str, sequence: str, target: int, back: int) -> FrameFile | None:
        name = f"{city}_{sequence}_{target - back * STEP:06d}_leftImg8bit.png"
        image = folders.find(f"leftImg8bit_sequence/test/{city}", name) or folders.find(f"leftImg8bit/test/{city}", name)
        suffix = f"-{back}" if back else ""
        mask = folders.find("val_mask", f"{city}_{sequence}_{target}{suffix}.npy") if config.masks == "files" else None
        return frame_file(image, mask, box=(0.0, 1.0, 0.0, KEPT_ROWS / ORIGINAL_SIZE[0]))

    def row(*entry: str | int) -> list[int]:
        before, at = (table.position((*entry, back), functools.partial(frame, *entry, back)) for back in (1, 0))
        return [before, at, MISSING]

    triplets = np.array([row(*entry) for entry in entries], np.int32)
    pictures = (f"{root}/leftImg8bit_sequence/test/{c}/{c}_{s}_{n:06d}_leftImg8bit.png" for c, s, n in entries)
    absent = [picture for picture, triplet in zip(pictures, triplets) if triplet[1] < 0]
    refuse_absent(absent, len(entries), path)
    return Listing(
        root=root,
        files=table.files,
        triplets=triplets,
        K=np.stack([_nearest_camera(folders, cameras, entry, (config.height, config.width)) for entry in entries]),
        names=[f"{c} {c}_{s}_{n:06d}" for c, s, n in entries],
        ground_truth=_ground_truth(root, entries, config.mask_format),
    )


def _nearest_camera(folders: Folders, base: str, entry: Entry, target: tuple[int, int]) -> Float32[np.ndarray, "3 3"]:
    """Camera files exist for annotated frames only; the nearest frame of the same sequence serves."""
    city, sequence, number = entry
    prefix, suffix = f"{city}_{sequence}_", "_camera.json"
    numbers = _numbers(folders, f"{base}/{city}", prefix, suffix)
    if not numbers:
        raise ConfigError(
            f"no camera file {folders.root / base / city}/{prefix}*{suffix}: unpack Cityscapes' camera archive there"
        )
    nearest = min(numbers, key=lambda other: (abs(other - number), other))
    path = folders.root / base / city / f"{prefix}{nearest:06d}{suffix}"
    try:
        values = json.loads(path.read_text())["intrinsic"]
        fx, fy, cx, cy = (float(values[key]) for key in ("fx", "fy", "u0", "v0"))
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} has no intrinsic fx, fy, u0, v0") from error
    return intrinsics(fx, fy, cx, cy, (KEPT_ROWS, ORIGINAL_SIZE[1]), target, str(path))


def _numbers(folders: Folders, folder: str, prefix: str, suffix: str) -> list[int]:
    names = folders.stamps(folder)
    return [int(name[len(prefix) : -len(suffix)]) for name in names if name.startswith(prefix) and name.endswith(suffix)]


def _ground_truth(root: Path, entries: list[Entry], mask_format: str) -> Callable[[int, str], GroundTruth | None]:
    def ground_truth(index: int, kind: str) -> GroundTruth | None:
        """Depth of the kept rows; Cityscapes knows one kind only."""
        path = root / f"gt_depths/{index:03d}_depth.npy"
        if not path.is_file():
            return None
        depth = np.load(path).astype(np.float32)
        depth = depth[: depth.shape[0] * KEPT_ROWS // ORIGINAL_SIZE[0]]
        city, sequence, number = entries[index]
        return GroundTruth(depth, object_mask(root, f"val_mask/{city}_{sequence}_{number}.npy", depth.shape, mask_format))

    return ground_truth
