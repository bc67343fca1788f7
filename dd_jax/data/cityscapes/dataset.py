"""Cityscapes: preprocessed triplets or the original sequences for training, the original sequences for the test set.

* train, val from triplets: ``ROOT/CITY/CITY_SSSSSS_FFFFFF.jpg``, frames t-2, t, t+2 side by side without the bonnet (lower
  quarter), and ``..._cam.txt`` (SfMLearner's layout; a folder ``ROOT/preprocessed`` is used where it exists).
* train, val, test from sequences: the tree of ``cityscapes_files``, upper 768 of 1024 rows. The test set has t-2 and t only.
* masks: ``ROOT/train_mask/CITY_SSSSSS_F.npy`` for t and ``F-1``, ``F+1`` for t-2, t+2 (DynamicDepth's layout, F without
  zeros, of the kept rows; ``val_mask`` for the test set), else ``ROOT/mask_sequence/{train,val,test}/CITY/
  CITY_SSSSSS_FFFFFF_mask.png``, of the whole picture.
* prior depth (16 bits, inverse depth by another network): ``ROOT/train_prior/CITY_SSSSSS_FFFFFF.png`` of the kept rows, else
  ``ROOT/prior_sequence/{train,val,test}/CITY/CITY_SSSSSS_FFFFFF_prior.png`` of the whole picture.
* ground truth: of the test set ``ROOT/gt_depths/%03d_depth.npy`` in the order of the split file; else, of any frame,
  ``ROOT/disparity/{train,val,test}/CITY/..._disparity.png`` (also ``disparity_sequence``) and its camera file.

Without a split file the rules of ``cityscapes_splits`` hold.
"""

import functools
import logging
import math
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, Float32

from dd_jax.config import ConfigError, DataConfig
from dd_jax.data import frames, published_order
from dd_jax.data.cityscapes import splits as rules
from dd_jax.data.cityscapes.files import (
    HOMES,
    KEPT,
    KEPT_ROWS,
    ORIGINAL_SIZE,
    STEP,
    UNFINISHED,
    Cameras,
    Entry,
    Numbers,
    Tree,
    frame_numbers,
    full_triplets,
    read_note,
    triplets_in,
)
from dd_jax.data.frames import MISSING, WHOLE, Box, FrameFile, FrameTable, GroundTruth, Listing, frame_file
from dd_jax.data.splits import refuse_absent, split_file
from dd_jax.runtime.files import Found

log = logging.getLogger(__name__)

CAMERA_SIZE = (384, 1024)
"""What ``_cam.txt`` refers to, whatever the size of the pictures beside it (some copies of the script swap the two)."""

DISPARITIES = ("disparity", "disparity_sequence", "disparity_trainvaltest/disparity")


def list_split(config: DataConfig, split: str) -> Listing:
    """Triplets (t-2, t, t+2) of "train" or "val", pairs (t-2, t) of "test".

    Raises:
      ConfigError: folder, split file, target images or camera files are absent or make no sense, or triplets are unfinished.
    """
    path = split_file(config, split)
    tree = _Sequences(config) if split == "test" or _layout(config) == "sequence" else _Triplets(config)
    listed = path.is_file() or bool(config.split_dir)
    entries = rules.read_list(path) if listed else tree.by_rule(split)
    if not entries:
        raise ConfigError(
            f"no frames for the {split} split below {tree.root}: expected leftImg8bit_sequence/{{train,val,test}}/CITY/*.png or, "
            "for train and val, triplets CITY/*.jpg made by scripts/prepare_cityscapes.py; check --config.data.root"
        )
    table = FrameTable()

    def position(city: str, sequence: str, number: int) -> int:
        return table.position((city, sequence, number), functools.partial(tree.frame, city, sequence, number))

    steps = (-STEP, 0) if split == "test" else (-STEP, 0, STEP)
    rows = [[position(city, sequence, number + step) for step in steps] for city, sequence, number in entries]
    triplets = np.array([row + [MISSING] * (3 - len(row)) for row in rows], np.int32)
    absent = [tree.picture(entry) for entry, row in zip(entries, rows) if row[1] == MISSING]
    refuse_absent(absent, len(entries), path if listed else tree.root)
    size = (config.height, config.width)
    names = [rules.line(entry) for entry in entries]
    out_of_order = published_order.other_order(names) if listed or split != "test" else published_order.CITYSCAPES
    truth = _GroundTruth(tree, entries, published=split == "test", out_of_order=out_of_order)
    return Listing(
        root=tree.root,
        files=table.files,
        triplets=triplets,
        K=np.stack([tree.matrix(entry, size) for entry in entries]),
        names=names,
        ground_truth=truth,
        truth_files=truth.files,
        out_of_order=out_of_order,
    )


def _layout(config: DataConfig) -> str:
    """Where train and val come from: what the config says, else triplets where there are any."""
    root = Path(config.root)
    if config.layout:
        return config.layout
    sequences = (root / "leftImg8bit_sequence").is_dir()
    triplets = (root / "preprocessed").is_dir() or any(root.glob("*/*_cam.txt"))
    return "sequence" if sequences and not triplets else "triplets"


class _Sequences:
    """Frames of the original tree."""

    def __init__(self, config: DataConfig):
        self.root, self.config = Path(config.root), config
        self.tree = Tree(self.root)
        self.folders, self.cameras, self.home = self.tree.folders, Cameras(self.tree), functools.cache(self._home)

    def _home(self, city: str) -> str:
        """The part of the data set that a city belongs to."""
        bases = ("leftImg8bit_sequence", "leftImg8bit", "camera", "mask_sequence")
        places = ((base, home) for base in bases for home in HOMES)
        return next((home for base, home in places if (self.root / base / home / city).is_dir()), HOMES[0])

    def by_rule(self, split: str) -> list[Entry]:
        """The entries of a split without a list file."""
        if split != "test":
            found = self.numbers("leftImg8bit_sequence/train")
            return rules.draw(self.masked([entry for city in found for entry in full_triplets(city, found[city])]), split)
        found = self.numbers("leftImg8bit/test")
        images = [(city, s, n) for city, numbers in found.items() for s in sorted(numbers) for n in sorted(numbers[s])]
        return images or self.cameras.annotated("test")

    def numbers(self, base: str) -> dict[str, Numbers]:
        """The frames of every city below ``base``."""
        cities = self.tree.subfolders(base)
        return {city: frame_numbers(self.folders.stamps(f"{base}/{city}"), city, "_leftImg8bit.png") for city in cities}

    def masked(self, entries: list[Entry]) -> list[Entry]:
        """Without the triplets of which a frame has no mask, where there are masks at all (DynamicDepth's lists)."""
        if self.config.masks != "files" or not any((self.root / name).is_dir() for name in ("train_mask", "mask_sequence/train")):
            return entries
        known = functools.cache(lambda *frame: self.mask(*frame)[0] is not None)
        kept = [(c, s, n) for c, s, n in entries if all(known(c, s, n + step) for step in (-STEP, 0, STEP))]
        if len(kept) < len(entries):
            log.warning("%d of %d triplets are left out: a frame has no object mask", len(entries) - len(kept), len(entries))
        return kept

    def picture(self, entry: Entry) -> str:
        """Where the picture of a frame should be."""
        city, sequence, number = entry
        name = f"{city}_{sequence}_{number:06d}_leftImg8bit.png"
        return f"{self.root}/leftImg8bit_sequence/{self.home(city)}/{city}/{name}"

    def frame(self, city: str, sequence: str, number: int) -> FrameFile | None:
        """A frame with its mask and prior depth; None without a picture."""
        home, name = self.home(city), f"{city}_{sequence}_{number:06d}_leftImg8bit.png"
        bases = ("leftImg8bit_sequence", "leftImg8bit")
        image = next(filter(None, (self.folders.find(f"{base}/{home}/{city}", name) for base in bases)), None)
        return self.complete(image, KEPT, city, sequence, number)

    def complete(self, image: Found, box: Box, *frame: str | int) -> FrameFile | None:
        """The picture ``image`` with the mask and prior depth of its frame."""
        mask, mask_box = self.mask(*frame) if self.config.masks == "files" else (None, WHOLE)
        prior, prior_box = self.prior(*frame) if self.config.priors == "files" else (None, WHOLE)
        return frame_file(image, mask, prior, box=box, mask_box=mask_box, prior_box=prior_box)

    def mask(self, city: str, sequence: str, number: int) -> tuple[Found, Box]:
        """Mask of a frame, under its own name or as the neighbour of a target, and the part of it that is kept."""
        home = self.home(city)
        for target, suffix in ((number, ""), (number + STEP, "-1"), (number - STEP, "+1")):
            name = f"{city}_{sequence}_{target}{suffix}.npy"
            found = self.folders.find("val_mask" if home == "test" else "train_mask", name)
            if found is not None:
                return found, WHOLE
        return self.folders.find(f"mask_sequence/{home}/{city}", f"{city}_{sequence}_{number:06d}_mask.png"), KEPT

    def prior(self, city: str, sequence: str, number: int) -> tuple[Found, Box]:
        """Prior depth of a frame, and the part of it that is kept."""
        name = f"{city}_{sequence}_{number:06d}"
        found = self.folders.find("train_prior", f"{name}.png")
        if found is not None:
            return found, WHOLE
        return self.folders.find(f"prior_sequence/{self.home(city)}/{city}", f"{name}_prior.png"), KEPT

    def matrix(self, entry: Entry, size: tuple[int, int]) -> Float32[np.ndarray, "3 3"]:
        """Intrinsics at ``size`` (height, width)."""
        return self.cameras.of(self.home(entry[0]), *entry).matrix(size)


class _Triplets(_Sequences):
    """Frames from the thirds of preprocessed pictures; masks, prior depth and disparities as with the original tree."""

    def __init__(self, config: DataConfig):
        super().__init__(config)
        self.base = "preprocessed/" if (self.root / "preprocessed").is_dir() else ""
        folder = self.root / self.base
        settings = read_note(folder)
        unfinished = settings.pop(UNFINISHED, ())
        if unfinished:
            source, flags = self.root if self.base else "CITYSCAPES", [f"--{name}={value}" for name, value in settings.items()]
            raise ConfigError(
                f"{folder} does not hold all triplets of {', '.join(unfinished)}, for making them was interrupted: run scripts/"
                f"prepare_cityscapes.py {source} --out={folder} {' '.join(flags)} again, or read the recordings themselves, "
                f"--config.data.root={source} --config.data.layout=sequence"
            )

    def by_rule(self, split: str) -> list[Entry]:
        cities = (path.name for path in (self.root / self.base).iterdir() if path.is_dir())
        return rules.draw(self.masked(triplets_in(self.folders, cities, self.base)), split)

    def picture(self, entry: Entry) -> str:
        city, sequence, number = entry
        return f"{self.root / self.base / city}/{city}_{sequence}_{number:06d}.jpg"

    def frame(self, city: str, sequence: str, number: int) -> FrameFile | None:
        """Most frames are in three files; the one they are the centre of is taken for all, so that each is stored once."""
        for place in (0, -1, 1):
            image = self.folders.find(f"{self.base}{city}", f"{city}_{sequence}_{number - place * STEP:06d}.jpg")
            if image is not None:
                return self.complete(image, ((place + 1) / 3, (place + 2) / 3, 0.0, 1.0), city, sequence, number)
        return None

    def matrix(self, entry: Entry, size: tuple[int, int]) -> Float32[np.ndarray, "3 3"]:
        return read_camera_text(Path(self.picture(entry).removesuffix(".jpg") + "_cam.txt"), size)


def read_camera_text(path: Path, target: tuple[int, int]) -> Float32[np.ndarray, "3 3"]:
    """Intrinsics at the ``target`` size (height, width) from SfMLearner's nine numbers.

    Raises:
      ConfigError: no such file, not nine numbers, or numbers that make no sense.
    """
    try:
        fx, _, cx, _, fy, cy, _, _, _ = values = [float(word) for word in path.read_text().split(",")]
        if not all(map(math.isfinite, values)):
            raise ValueError("not finite")
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} must hold nine numbers, fx,0,cx,0,fy,cy,0,0,1, separated by commas") from error
    return frames.intrinsics(fx, fy, cx, cy, CAMERA_SIZE, target, str(path))


class _GroundTruth:
    """Measured depth of the target frames of ``entries``, and where it lies."""

    def __init__(self, tree: _Sequences, entries: list[Entry], published: bool, out_of_order: str):
        self.tree, self.entries = tree, entries
        folder = tree.root / "gt_depths"
        self.published = folder if published and not out_of_order else None  # its numbers are lines of a list
        if published and out_of_order and folder.is_dir():
            log.warning(
                "%s is not used: its numbers are lines of the public test list, and the frames are in another order here: put "
                "that list into ROOT/splits, or name its folder with --config.data.split_dir", folder,
            )  # fmt: skip

    def files(self, index: int) -> list[Path]:
        """Where a frame's depth may lie, the first one that exists counts."""
        city, sequence, number = self.entries[index]
        name = f"{self.tree.home(city)}/{city}/{city}_{sequence}_{number:06d}_disparity.png"
        published = [] if self.published is None else [self.published / f"{index:03d}_depth.npy"]
        return published + [self.tree.root / base / name for base in DISPARITIES]

    def __call__(self, index: int, kind: str) -> GroundTruth | None:
        """Depth of the kept rows; Cityscapes knows one kind only."""
        found = next((path for path in self.files(index) if path.is_file()), None)
        if found is None:
            return None
        entry = self.entries[index]
        if found.suffix == ".npy":
            depth = _read_depth(found)
        else:
            camera = self.tree.cameras.of(self.tree.home(entry[0]), *entry)
            if not 0 < camera.baseline < math.inf:
                raise ConfigError(f"{camera.path}: the baseline {camera.baseline:g} must be positive to make depth of {found}")
            depth = _depth_from_disparity(found, camera.fx * camera.baseline)
        depth = depth[: depth.shape[0] * KEPT_ROWS // ORIGINAL_SIZE[0]]
        return GroundTruth(depth, _mask_at(self.tree, entry, depth.shape))


def _mask_at(tree: _Sequences, entry: Entry, shape: tuple[int, int]) -> Bool[np.ndarray, "H W"] | None:
    found, box = tree.mask(*entry)
    if found is None:
        return None
    try:
        return frames.resize_mask(frames.cut(frames.decode_mask(tree.root / found[0], tree.config.mask_format), box), *shape)
    except frames.UnreadableFrame as error:
        raise ConfigError(f"the object mask {found[0]} cannot be used ({error}): write it again, or delete it") from error


def _read_depth(path: Path) -> Float32[np.ndarray, "H W"]:
    try:
        depth = frames.load_array(path)
    except frames.UnreadableFrame as error:
        raise ConfigError(f"{path} is damaged or of objects, which are not unpickled: fetch it again") from error
    if depth.ndim != 2 or depth.dtype.kind != "f":
        raise ConfigError(f"{path} holds {depth.dtype} values of shape {list(depth.shape)}, not a map of depths: fetch it again")
    return np.where(np.isfinite(depth) & (depth > 0), depth, 0).astype(np.float32)


def _depth_from_disparity(path: Path, focal_baseline: float) -> Float32[np.ndarray, "H W"]:
    """Metres from Cityscapes' 16 bits: disparity is (p - 1) / 256 pixels, p = 0 none."""
    values = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if values is None or values.dtype != np.uint16 or values.ndim != 2:
        raise ConfigError(f"{path} is not a 16-bit grey PNG: unpack Cityscapes' disparity archive again")
    disparity = (values.astype(np.float64) - 1) / 256
    return np.where(disparity > 0, focal_baseline / np.maximum(disparity, 1 / 256), 0).astype(np.float32)
