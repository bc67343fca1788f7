"""Measured depth of Cityscapes: the published depth maps of the test set, or disparity and camera files of any frame."""

import logging
import math
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32

from dd_jax.config import ConfigError
from dd_jax.data import frames
from dd_jax.data.cityscapes.files import KEPT_ROWS, ORIGINAL_SIZE, Entry
from dd_jax.data.cityscapes.layouts import Sequences
from dd_jax.data.frames import GroundTruth

log = logging.getLogger(__name__)

DISPARITIES = ("disparity", "disparity_sequence", "disparity_trainvaltest/disparity")


class MeasuredDepth:
    """Measured depth of the target frames of ``entries``, and its files."""

    def __init__(self, tree: Sequences, entries: list[Entry], published: bool, out_of_order: str):
        self.tree, self.entries = tree, entries
        folder = tree.root / "gt_depths"
        self.published = folder if published and not out_of_order else None  # numbered by line of the list
        if published and out_of_order and folder.is_dir():
            log.warning(
                "%s is not used: its numbers are lines of the public test list, but the frames here have another order: copy "
                "that list to ROOT/splits, or name its folder with --config.data.split_dir", folder,
            )  # fmt: skip

    def files(self, index: int) -> list[Path]:
        """Candidate files for a frame's depth; the first one that exists is used."""
        city, sequence, number = self.entries[index]
        name = f"{self.tree.home(city)}/{city}/{city}_{sequence}_{number:06d}_disparity.png"
        published = [] if self.published is None else [self.published / f"{index:03d}_depth.npy"]
        return published + [self.tree.root / base / name for base in DISPARITIES]

    def __call__(self, index: int, kind: str) -> GroundTruth | None:
        """Depth of the kept rows; Cityscapes has one kind only."""
        found = next((path for path in self.files(index) if path.is_file()), None)
        if found is None:
            return None
        entry = self.entries[index]
        if found.suffix == ".npy":
            depth = _read_depth(found)
        else:
            camera = self.tree.cameras.of(self.tree.home(entry[0]), *entry)
            if not 0 < camera.baseline < math.inf:
                raise ConfigError(f"{camera.path}: the baseline {camera.baseline:g} must be positive for depth from {found}")
            depth = _depth_from_disparity(found, camera.fx * camera.baseline)
        depth = depth[: depth.shape[0] * KEPT_ROWS // ORIGINAL_SIZE[0]]
        return GroundTruth(depth, _mask_at(self.tree, entry, depth.shape))


def _mask_at(tree: Sequences, entry: Entry, shape: tuple[int, int]) -> Bool[np.ndarray, "H W"] | None:
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
        raise ConfigError(f"{path} is damaged or holds objects, which are not unpickled: download it again") from error
    if depth.ndim != 2 or depth.dtype.kind != "f":
        raise ConfigError(f"{path} holds {depth.dtype} values of shape {list(depth.shape)}, not a depth map: download it again")
    with np.errstate(over="ignore", invalid="ignore"):
        depth = np.asarray(depth, np.float32)
    return np.where(np.isfinite(depth) & (depth > 0), depth, 0)


def _depth_from_disparity(path: Path, focal_baseline: float) -> Float32[np.ndarray, "H W"]:
    """Depth in metres from Cityscapes' 16-bit values p: disparity is (p - 1) / 256 pixels, p = 0 is none."""
    try:
        values = frames.decode_depth(path)
    except frames.UnreadableFrame as error:
        raise ConfigError(
            f"{path} is not a 16-bit grey PNG, or is incomplete: unpack Cityscapes' disparity archive again"
        ) from error
    disparity = (values.astype(np.float64) - 1) / 256
    return np.where(disparity > 0, focal_baseline / np.maximum(disparity, 1 / 256), 0).astype(np.float32)
