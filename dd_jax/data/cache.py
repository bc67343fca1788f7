"""Frames at training size in a memory-mapped file, so that reading one is a copy.

A split's cache is a folder with ``frames.u8`` (n, h, w, 3), ``masks.bits`` (n, h w / 8; one bit per pixel), ``priors.u16``
(n, h, w) and ``journal.u8``: per frame a fingerprint of its source files, and whether they could be decoded. A frame whose
fingerprint differs from the current one is decoded again. This rule covers the first build, an interrupted one, and changed
files. ``sums.u4`` (n, 3) has a checksum (CRC-32) of each of a frame's arrays, compared at the first read of a process, since it
takes seven times as long as the copy; caches of earlier versions lack it.
"""

import contextlib
import fcntl
import hashlib
import logging
import math
import os
import shutil
import zlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import SupportsIndex

import numpy as np
from jaxtyping import Bool, Int, UInt8, UInt16, UInt64
from tqdm import tqdm

from dd_jax.config import ConfigError, DataConfig
from dd_jax.data import frames
from dd_jax.data.frames import WHOLE, FrameFile, Listing, UnreadableFrame
from dd_jax.data.masks import SEGMENTS
from dd_jax.runtime.files import Folders

log = logging.getLogger(__name__)

VERSION = 1
"""Part of the folder's name; increase it when the meaning of the stored arrays changes."""

JOURNAL = np.dtype([("fingerprint", "<u8"), ("readable", "u1")])
SUMS = "sums.u4"
STORED = ("frames.u8", "masks.bits", "priors.u16")
"""Files with the arrays of a frame, in the order of their checksums."""

CHUNK = 256
"""Frames between two commits to the journal: the most that an interrupted build loses."""


def layout(config: DataConfig, count: int) -> dict[str, tuple[np.dtype, tuple[int, ...]]]:
    """The files of a cache of ``count`` frames: name -> type and shape of its array."""
    height, width = config.height, config.width
    files = {"frames.u8": (np.dtype(np.uint8), (count, height, width, 3)), "journal.u8": (JOURNAL, (count,))}
    files[SUMS] = np.dtype("<u4"), (count, len(STORED))
    if config.masks == "files":
        files["masks.bits"] = np.dtype(np.uint8), (count, height * width // 8)
    if config.priors == "files":
        files["priors.u16"] = np.dtype(np.uint16), (count, height, width)
    return files


class FrameStore:
    """Read access to a finished cache; can be opened by several processes, and pickled."""

    def __init__(self, folder: Path, files: dict[str, tuple[np.dtype, tuple[int, ...]]]):
        self._arguments, self._folder = (folder, files), folder
        arrays = _open(folder, files, "r")
        self.frames, self.masks, self.priors = map(arrays.get, STORED)
        self._sums = arrays.get(SUMS)
        self._sound = np.full((len(self.frames), len(STORED)), self._sums is None)  # what needs no comparison any more

    def __reduce__(self):
        return FrameStore, self._arguments

    def prior(self, index: Int[np.ndarray, " n"]) -> UInt16[np.ndarray, "n h w"] | None:
        """Prior depth of these frames, as stored; None if the cache has none. Raises as :meth:`read`."""
        if self.priors is None:
            return None
        return np.stack([self._verified(frame, 2, self.priors[frame]) for frame in index])

    def read(
        self, index: Int[np.ndarray, "*n"], images: UInt8[np.ndarray, "*n h w 3"], masks: Bool[np.ndarray, "*n h w"]
    ) -> None:
        """Copies frames and masks of ``index`` into the given arrays; zeros for negative entries.

        Raises:
          ConfigError: the file has changed since.
        """
        for position, frame in np.ndenumerate(index):
            images[position] = self._verified(frame, 0, self.frames[frame]) if frame >= 0 else 0
            if frame >= 0 and self.masks is not None:
                bits = self._verified(frame, 1, self.masks[frame])
                masks[position] = np.unpackbits(bits).view(bool).reshape(masks.shape[-2:])
            else:
                masks[position] = False

    def _verified(self, frame: SupportsIndex, kind: int, array: np.ndarray) -> np.ndarray:
        """The stored array, of :data:`STORED`'s file ``kind``."""
        if not self._sound[frame, kind]:
            if zlib.crc32(array) != self._sums[frame, kind]:
                raise ConfigError(
                    f"the frame cache {self._folder} is damaged ({STORED[kind]}, frame {frame}): delete this folder, then the "
                    "same command builds it again"
                )
            self._sound[frame, kind] = True
        return array


def open_cache(listing: Listing, config: DataConfig, label: str) -> tuple[FrameStore, Bool[np.ndarray, " n"]]:
    """The frames of a listing, decoded if not cached, and which of them are readable.

    ``label`` is the part of the cache's folder name that identifies the split.

    Raises:
      ConfigError: more than ``max_unreadable`` frames cannot be decoded, or the cache cannot be written.
    """
    files = listing.files
    identity = hashlib.sha256("\n".join(f"{file.image} {file.box}" for file in files).encode()).hexdigest()[:10]
    base = Path(config.cache_dir) if config.cache_dir else listing.root / ".cache"
    mask_format = "" if config.mask_format == "binary" else f"-{config.mask_format}"
    kinds = f"{mask_format if config.masks == 'files' else '-nomasks'}{'-priors' if config.priors == 'files' else ''}"
    name = f"{label}-{config.height}x{config.width}-{config.resize}{kinds}-{identity}-v{VERSION}"
    beside = Folders(listing.root) if config.mask_format == "coco_panoptic" else None
    wanted = np.array([_fingerprint(file, beside) for file in files], np.uint64)
    stored = layout(config, len(files))
    folder = base / name
    if folder.exists() and not (folder / SUMS).exists():  # of an earlier version
        del stored[SUMS]
    sizes = {file: dtype.itemsize * math.prod(shape) for file, (dtype, shape) in stored.items()}
    try:
        if not _finished(folder, sizes, wanted):  # a finished cache may be on a read-only disk
            with _lock(base, name):
                _allocate(folder, sizes)
                _fill(folder, stored, wanted, listing, config)
    except OSError as error:
        raise ConfigError(
            f"the frame cache {folder} cannot be written ({error.strerror or error}): "
            "name a folder with enough room with --config.data.cache_dir"
        ) from error
    readable = _journal(folder, "r")["readable"].astype(bool)
    if not readable.all():
        names = _names(listing, np.flatnonzero(~readable))
        log.warning("%d unreadable frames are left out, replace them: %s", (~readable).sum(), names)
    _limit(listing, np.flatnonzero(~readable), config)
    return FrameStore(folder, stored), readable


def _open(folder: Path, files: dict[str, tuple[np.dtype, tuple[int, ...]]], mode: str) -> dict[str, np.memmap]:
    return {name: np.memmap(folder / name, dtype, mode, shape=shape) for name, (dtype, shape) in files.items()}


def _journal(folder: Path, mode: str) -> np.memmap:
    return np.memmap(folder / "journal.u8", JOURNAL, mode)


def _sizes(folder: Path, names: Iterable[str]) -> dict[str, int]:
    return {name: (folder / name).stat().st_size for name in names if (folder / name).is_file()}


def _finished(folder: Path, sizes: dict[str, int], wanted: UInt64[np.ndarray, " n"]) -> bool:
    return _sizes(folder, sizes) == sizes and np.array_equal(_journal(folder, "r")["fingerprint"], wanted)


def _fingerprint(file: FrameFile, beside: Folders | None) -> int:
    """Changes with any file of a frame; ``beside`` is given if a file beside the mask defines its meaning."""
    text = f"{file.stamp} {file.mask} {file.mask_stamp}" + (f" {file.prior} {file.prior_stamp}" if file.prior else "")
    boxes = file.mask_box, file.prior_box
    text += "" if boxes == (WHOLE, WHOLE) else f" {boxes}"
    if beside is not None and file.mask:
        text += f" {beside.find(str(Path(file.mask).parent), SEGMENTS)}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") or 1  # 0 = never stored


@contextlib.contextmanager
def _lock(base: Path, name: str) -> Iterator[None]:
    base.mkdir(parents=True, exist_ok=True)
    with (base / f"{name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.warning("waiting for another process to build the frame cache %s", base / name)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _allocate(folder: Path, sizes: dict[str, int]) -> None:
    """Creates the files at full size (so that a full disk fails now); starts over if one has another size."""
    if _sizes(folder, sizes) == sizes:
        return
    if folder.exists():
        log.warning("the frame cache %s is damaged: rebuilding it", folder)
        shutil.rmtree(folder)
    started = folder.with_name(folder.name + ".new")
    shutil.rmtree(started, ignore_errors=True)
    started.mkdir()
    try:
        for name, size in sizes.items():
            with (started / name).open("wb") as file:
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file.fileno(), 0, size)
                else:
                    file.truncate(size)
    except OSError:
        shutil.rmtree(started, ignore_errors=True)
        raise
    started.rename(folder)


def _fill(
    folder: Path,
    stored: dict[str, tuple[np.dtype, tuple[int, ...]]],
    wanted: UInt64[np.ndarray, " n"],
    listing: Listing,
    config: DataConfig,
) -> None:
    """Decodes every frame whose fingerprint in the journal is not current."""
    journal = _journal(folder, "r+")
    todo = np.flatnonzero(journal["fingerprint"] != wanted)
    changed = int((journal["fingerprint"][todo] != 0).sum())
    if changed:
        log.warning("%d source files of the frame cache %s have changed: decoded again", changed, folder)
    count, (height, width) = len(wanted), (config.height, config.width)
    arrays = _open(folder, stored, "r+")
    del arrays["journal.u8"]
    images, masks, priors = map(arrays.get, STORED)
    misfits: list[str] = []

    def store(index: int) -> bool:
        try:
            frame = listing.decode(index)
            images[index] = frames.resize_image(frame.image, height, width, config.resize)
            if masks is not None:
                mask = np.zeros((height, width), bool) if frame.mask is None else frame.mask
                if listing.stored is None:  # those of a store are in its note
                    misfits.extend(frames.misfit(frame, listing.root / listing.files[index].mask))
                masks[index] = np.packbits(frames.resize_mask(mask, height, width))
            if priors is not None and frame.prior is not None:
                priors[index] = frames.resize_prior(frame.prior, height, width)
            if SUMS in arrays:
                arrays[SUMS][index] = [0 if array is None else zlib.crc32(array[index]) for array in (images, masks, priors)]
            return True
        except UnreadableFrame:
            return False

    progress = tqdm(total=count, initial=count - todo.size, desc=f"frames at {height}x{width}", unit="frame", disable=None)
    with progress, ThreadPoolExecutor(config.threads) as threads:
        for start in range(0, todo.size, CHUNK):
            chunk, readable = todo[start : start + CHUNK], []
            for ok in threads.map(store, chunk.tolist()):
                readable.append(ok)
                progress.update()
            for array in arrays.values():  # data reach the disk before the journal records them
                array.flush()
            journal["fingerprint"][chunk], journal["readable"][chunk] = wanted[chunk], readable
            journal.flush()
            _limit(listing, np.flatnonzero((journal["fingerprint"] == wanted) & (journal["readable"] == 0)), config)
    warn_of_misfits(misfits)


def warn_of_misfits(misfits: Sequence[str]) -> None:
    """Warns about masks with other proportions than their images."""
    if misfits:
        log.warning(
            "%d object masks have other proportions than their images and are stretched over them, the first is %s: write "
            "them again if they belong to other images", len(misfits), min(misfits),
        )  # fmt: skip


def _limit(listing: Listing, unreadable: Int[np.ndarray, " k"], config: DataConfig) -> None:
    if unreadable.size > config.max_unreadable:
        raise ConfigError(
            f"{unreadable.size} frames cannot be decoded, more than --config.data.max_unreadable={config.max_unreadable}; "
            f"replace them: {_names(listing, unreadable)}"
        )


def _names(listing: Listing, indices: Int[np.ndarray, " k"]) -> str:
    def name(file: FrameFile) -> str:
        return f"{listing.root / file.image}" + (f" (or its mask {file.mask})" if file.mask else "")

    more = f" and {indices.size - 20} more" if indices.size > 20 else ""
    return ", ".join(name(listing.files[i]) for i in indices[:20]) + more
