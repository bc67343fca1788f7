"""Frames, masks, prior depth and cameras in Cityscapes' original sequences and in preprocessed triplets."""

import functools
import logging
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from dd_jax.config import ConfigError, DataConfig
from dd_jax.data.camera_check import picture_size
from dd_jax.data.cityscapes import splits as rules
from dd_jax.data.cityscapes.files import (
    CAMERA_SIZE,
    HOMES,
    IMAGE_FOLDERS,
    KEPT,
    ORIGINAL_SIZE,
    STEP,
    UNFINISHED,
    Cameras,
    Entry,
    Numbers,
    Tree,
    check_whole,
    frame_numbers,
    full_triplets,
    read_camera_text,
    read_note,
    triplets_in,
)
from dd_jax.data.frames import WHOLE, Box, FrameFile, frame_file
from dd_jax.runtime.files import Found

log = logging.getLogger(__name__)


class Sequences:
    """Frames of the original tree."""

    def __init__(self, config: DataConfig):
        self.root, self.config = Path(config.root), config
        self.step = STEP * config.frame_step  # from a target to its neighbours
        self.tree = Tree(self.root)
        self.folders, self.cameras, self.home = self.tree.folders, Cameras(self.tree), functools.cache(self._home)
        self._pictures: dict[str, tuple[Path, tuple[int, int]] | None] = {}

    def _home(self, city: str) -> str:
        """The part of the data set (train, val, test) that a city belongs to."""
        bases = ("leftImg8bit_sequence", "leftImg8bit", "camera", "mask_sequence")
        places = ((base, home) for base in bases for home in HOMES)
        return next((home for base, home in places if (self.root / base / home / city).is_dir()), HOMES[0])

    def picture(self, city: str, image: Path) -> tuple[Path, tuple[int, int]] | None:
        """An image of a city, which may be this one, and its size (height, width); None while none could be read."""
        self._pictures[city] = self._pictures.get(city) or picture_size([image])
        return self._pictures[city]

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
        """The entries of which no frame lacks a mask, if there are masks at all (as in DynamicDepth's lists)."""
        if self.config.masks != "files" or not any((self.root / name).is_dir() for name in ("train_mask", "mask_sequence/train")):
            return entries

        @functools.cache
        def bare(*frame: str | int) -> bool:
            found = self.frame(*frame)
            return found is not None and not found.mask

        kept = [(c, s, n) for c, s, n in entries if not any(bare(c, s, n + offset) for offset in (-self.step, 0, self.step))]
        if len(kept) < len(entries):
            log.warning("%d of %d triplets are left out: a frame has no object mask", len(entries) - len(kept), len(entries))
        return kept

    def image_path(self, entry: Entry) -> str:
        """Expected image path of a frame, for messages."""
        city, sequence, number = entry
        name = f"{city}_{sequence}_{number:06d}_leftImg8bit.png"
        return f"{self.root}/leftImg8bit_sequence/{self.home(city)}/{city}/{name}"

    def frame(self, city: str, sequence: str, number: int) -> FrameFile | None:
        """A frame with its mask and prior depth; None if it has no image."""
        home, name = self.home(city), f"{city}_{sequence}_{number:06d}_leftImg8bit.png"
        image = next(filter(None, (self.folders.find(f"{base}/{home}/{city}", name) for base in IMAGE_FOLDERS)), None)
        return self.complete(image, KEPT, city, sequence, number)

    def complete(self, image: Found, box: Box, *frame: str | int) -> FrameFile | None:
        """``image`` with the mask and prior depth of its frame."""
        mask, mask_box = self.mask(*frame) if self.config.masks == "files" else (None, WHOLE)
        prior, prior_box = self.prior(*frame) if self.config.priors == "files" else (None, WHOLE)
        return frame_file(image, mask, prior, box=box, mask_box=mask_box, prior_box=prior_box)

    def mask(self, city: str, sequence: str, number: int) -> tuple[Found, Box]:
        """Mask of a frame, stored under its own name or as the neighbour of a target, and the kept part of it."""
        home = self.home(city)
        for target, suffix in ((number, ""), (number + STEP, "-1"), (number - STEP, "+1")):
            name = f"{city}_{sequence}_{target}{suffix}.npy"
            found = self.folders.find("val_mask" if home == "test" else "train_mask", name)
            if found is not None:
                return found, WHOLE
        return self.folders.find(f"mask_sequence/{home}/{city}", f"{city}_{sequence}_{number:06d}_mask.png"), KEPT

    def prior(self, city: str, sequence: str, number: int) -> tuple[Found, Box]:
        """Prior depth of a frame, and the kept part of it."""
        name = f"{city}_{sequence}_{number:06d}"
        found = self.folders.find("train_prior", f"{name}.png")
        if found is not None:
            return found, WHOLE
        return self.folders.find(f"prior_sequence/{self.home(city)}/{city}", f"{name}_prior.png"), KEPT

    def matrix(self, entry: Entry, size: tuple[int, int]) -> Float32[np.ndarray, "3 3"]:
        """Intrinsics at ``size`` (height, width)."""
        check_whole(*(self.picture(entry[0], self.root / self.frame(*entry).image) or (self.root, ORIGINAL_SIZE)))
        return self.cameras.of(self.home(entry[0]), *entry).matrix(size)


class Triplets(Sequences):
    """Frames from the thirds of preprocessed images; masks, prior depth and disparities as in the original tree."""

    def __init__(self, config: DataConfig):
        super().__init__(config)
        self.base = "preprocessed/" if (self.root / "preprocessed").is_dir() else ""
        folder = self.root / self.base
        settings, source = read_note(folder), self.root if self.base else "CITYSCAPES"
        unfinished = settings.pop(UNFINISHED, ())
        if unfinished:
            flags = [f"--{name}={value}" for name, value in settings.items()]
            raise ConfigError(
                f"{folder} lacks triplets of {', '.join(unfinished)} because making them was interrupted: run scripts/"
                f"prepare_cityscapes.py {source} --out={folder} {' '.join(flags)} again, or read the sequences directly, "
                f"--config.data.root={source} --config.data.layout=sequence"
            )
        made = settings.get("frame_step", 1)
        if made != config.frame_step:
            raise ConfigError(
                f"{folder} holds triplets of --config.data.frame_step={made}, not {config.frame_step}: set it to {made}, make "
                f"others with scripts/prepare_cityscapes.py {source} --out=DIR --frame_step={config.frame_step}, or read the "
                f"sequences directly, --config.data.root={source} --config.data.layout=sequence"
            )

    def by_rule(self, split: str) -> list[Entry]:
        cities = (path.name for path in (self.root / self.base).iterdir() if path.is_dir())
        return rules.draw(self.masked(triplets_in(self.folders, cities, self.base)), split, self.config.frame_step)

    def image_path(self, entry: Entry) -> str:
        city, sequence, number = entry
        return f"{self.root / self.base / city}/{city}_{sequence}_{number:06d}.jpg"

    def frame(self, city: str, sequence: str, number: int) -> FrameFile | None:
        """Most frames are in three files; the one with the frame in the centre is preferred, so that each is stored once."""
        for place in (0, -1, 1):
            image = self.folders.find(f"{self.base}{city}", f"{city}_{sequence}_{number - place * self.step:06d}.jpg")
            if image is not None:
                return self.complete(image, ((place + 1) / 3, (place + 2) / 3, 0.0, 1.0), city, sequence, number)
        return None

    def matrix(self, entry: Entry, size: tuple[int, int]) -> Float32[np.ndarray, "3 3"]:
        image = self.root / self.frame(*entry).image  # of another triplet for a target without its own
        _, (height, width) = self.picture(entry[0], image) or ("", (CAMERA_SIZE[0], 3 * CAMERA_SIZE[1]))
        return read_camera_text(image.with_name(f"{image.stem}_cam.txt"), (height, width // 3), size)
