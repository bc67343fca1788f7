"""Reads a store of ``builders`` without TensorFlow; samples equal those of the folder it was made from.

A store at training size is decoded batch by batch, without another copy on disk; one at full size fills the frame cache, which
works for any training size. ``STORE/NAME/store.json`` holds its settings and the size of every shard in bytes.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Bool, Float32, Int, UInt8, UInt16

from dd_jax.config import ConfigError, DataConfig
from dd_jax.data import frames, published_order
from dd_jax.data.frames import DecodedFrame, FrameFile, GroundTruth, Listing, UnreadableFrame
from dd_jax.data.splits import refuse_outside
from dd_jax.data.tfds.builders import BUILDERS, KINDS, VERSION, features_of
from dd_jax.runtime.files import read_json, stamp_of

NOTE = "store.json"
ENCODED = {name: tfds.decode.SkipDecoding() for name in ("image", "mask", "prior")}
CHUNK = 4096

SINGLE_PIXEL = bytes((0, 0, 0, 1)) * 2
"""Width and height in the header of a PNG of one pixel."""

LARGEST = 100_000
"""Of the height and width of images."""

KEYS = {"fingerprint", "settings", "shards", "splits", "unreadable"}
SETTINGS = {"size", "reference", "depth", "source", "resize", "intrinsics", "masks", "priors"}
"""Required keys of ``store.json`` and of its settings."""


def open_store(config: DataConfig, split: str) -> tuple[Listing, "StoredFrames"]:
    """The samples of a split and their frames.

    Raises:
      ConfigError: no complete store, or one without this split or for another size, filter, camera or kind of data.
    """
    folder = find_store(Path(config.root))
    note = read_note(folder)
    note |= note["settings"]
    check_shards(folder, note)
    _check_settings(folder, note, config)
    if split not in note["splits"]:
        raise ConfigError(f"{folder} has no {split} split, only {', '.join(note['splits'])}: build it with --splits")
    with damage_as_config_error(folder):
        records = _records(folder, "triplets", split)
        samples = [sample for at in range(0, len(records), CHUNK) for sample in records.__getitems__(_upto(at, len(records)))]
        positions = np.array([sample["frames"] for sample in samples], np.int64)
        K = np.stack([sample["K"] for sample in samples])
        names = [sample["name"].decode() for sample in samples]
        if positions.shape[1:] != (3,) or K.shape[1:] != (3, 3) or not np.isfinite(K).all():
            raise ValueError("its samples are not triplets of frames with a camera")
    used, inverse = np.unique(positions[positions >= 0], return_inverse=True)
    triplets = np.full(positions.shape, frames.MISSING, np.int32)
    triplets[positions >= 0] = inverse
    stored = StoredFrames(folder, note, used, config)
    named = note["source"] == "cityscapes" or note.get("split", config.split) != ""
    listing = Listing(
        root=folder,
        files=[_file(note, position, config.priors == "files") for position in used.tolist()],
        triplets=triplets,
        K=_cameras(K, note, (config.height, config.width)),
        names=names,
        ground_truth=_ground_truth(folder, note, split),
        stored=stored.decode,
        misfits=tuple(note.get("misfits", ())) if config.masks == "files" else (),
        out_of_order=published_order.other_order(names) if named else "",
    )
    return listing, stored


def _records(folder: Path, config: str, split: str, **options: Any) -> Any:
    """The records of a split of one of the store's configs, with the fields that it must have."""
    builder = tfds.builder_from_directory(folder / config / VERSION)
    if {*builder.info.features} != {*features_of(config)}:
        raise ValueError(f"its {config} have other fields")
    return builder.as_data_source(split, **options)


def _upto(start: int, total: int) -> list[int]:
    return list(range(start, min(start + CHUNK, total)))


class StoredFrames:
    """Frames of a store; at training size it replaces a ``FrameStore``, decoding at every read."""

    def __init__(self, folder: Path, note: dict[str, Any], positions: Int[np.ndarray, " n"], config: DataConfig):
        self._folder, self._positions = folder, positions
        with damage_as_config_error(folder):
            self._records = _records(folder, "frames", "frames", decoders=ENCODED)
        self.size = None if note["size"] is None else tuple(note["size"])  # None: the source's sizes
        self.readable: Bool[np.ndarray, " n"] = ~np.isin(positions, note["unreadable"])
        self._masks, self._priors = config.masks == "files", config.priors == "files"

    def decode(self, index: int) -> DecodedFrame:
        """One frame as it is stored.

        Raises:
          UnreadableFrame: it was unreadable when the store was made.
          ConfigError: the store is damaged.
        """
        return self._decode(self._records_of(np.array([index]))[0])

    def _decode(self, record: dict[str, Any]) -> DecodedFrame:
        if not record["readable"]:
            raise UnreadableFrame(record["name"].decode())
        return DecodedFrame(
            image=frames.decode_image(record["image"]),
            mask=frames.decode_mask(record["mask"]) if self._masks and _given(record["mask"]) else None,
            prior=frames.decode_depth(record["prior"]) if self._priors and _given(record["prior"]) else None,
        )

    def _records_of(self, indices: Int[np.ndarray, " k"]) -> list[dict[str, Any]]:
        with damage_as_config_error(self._folder):
            return self._records.__getitems__(self._positions[indices].tolist())

    def read(
        self, index: Int[np.ndarray, "*n"], images: UInt8[np.ndarray, "*n h w 3"], masks: Bool[np.ndarray, "*n h w"]
    ) -> None:
        """Decodes frames and masks of ``index`` into the given arrays; zeros for negative entries."""
        present = index >= 0
        images[~present], masks[...] = 0, False
        for place, record in zip(zip(*np.nonzero(present)), self._records_of(index[present])):
            frame = self._decode(record)
            images[place] = frame.image
            if frame.mask is not None:
                masks[place] = frames.resize_mask(frame.mask, *masks.shape[-2:])

    def prior(self, index: Int[np.ndarray, " n"]) -> UInt16[np.ndarray, "n h w"] | None:
        """Prior depth of these frames; None if the store has none."""
        if not self._priors:
            return None
        stored, none = (record["prior"] for record in self._records_of(index)), np.zeros((1, 1), np.uint16)
        return np.stack([frames.resize_prior(frames.decode_depth(p) if _given(p) else none, *self.size) for p in stored])


def _given(png: bytes) -> bool:
    """Whether a stored mask or prior is more than the single pixel that marks an absent one."""
    return png[16:24] != SINGLE_PIXEL


def find_store(root: Path) -> Path:
    """The folder of the only data set in ``root``, or ``root`` itself if it is one.

    Raises:
      ConfigError: there is no data set, or more than one.
    """
    found = [root] if (root / NOTE).is_file() else [root / name for name in BUILDERS if (root / name / NOTE).is_file()]
    if len(found) != 1:
        unfinished = any((root / f"{name}.unfinished").is_dir() for name in BUILDERS)
        held = "more than one store" if found else "an unfinished store" if unfinished else "no store"
        raise ConfigError(
            f"--config.data.root={str(root)!r} holds {held}: name a folder with one of {', '.join(BUILDERS)} in it; "
            "scripts/prepare_tfds.py makes and finishes them"
        )
    return found[0]


def read_note(folder: Path) -> dict[str, Any]:
    """Content of ``store.json``.

    Raises:
      ConfigError: it cannot be read.
    """
    try:
        note = read_json(folder / NOTE)
        missing = (KEYS - {*note}) or (SETTINGS - {*note["settings"]})
        if missing:
            raise ValueError(f"no {', '.join(sorted(missing))}")
        _check_types(note)
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(f"{folder / NOTE} cannot be read ({error}): build the store again") from error
    return note


def _check_types(note: dict[str, Any]) -> None:
    """Raises ValueError or TypeError unless the values have the types of those that ``prepare.tfds_store`` writes."""
    settings, shards = note["settings"], note["shards"]
    if not all(isinstance(value, dict) for value in (settings, shards, note["splits"])):
        raise ValueError("settings, shards and splits must be objects")
    int(note["fingerprint"][:12], 16)
    for name, size in shards.items():
        refuse_outside(name, "shards")
        if type(size) is not int:
            raise ValueError(f"{name} must have a size in bytes")
    sizes = [settings["reference"], *([] if settings["size"] is None else [settings["size"]])]
    if any(len(size) != 2 or not all(type(side) is int and 0 < side < LARGEST for side in size) for size in sizes):
        raise ValueError("size and reference must be height and width")
    if not all(isinstance(settings[name], str) for name in SETTINGS - {"size", "reference", "depth"}):
        raise ValueError("settings must be text")
    lists = {
        "unreadable": (note["unreadable"], int),
        "depth": (settings["depth"], str),
        "misfits": (note.get("misfits", []), str),
    }
    for name, (values, kind) in lists.items():
        if not isinstance(values, list) or not all(type(value) is kind for value in values):
            raise ValueError(f"{name} must be a list of {kind.__name__}")


def check_shards(folder: Path, note: dict[str, Any]) -> None:
    """Raises ConfigError if a shard is absent or has another size than when it was written."""
    for name, size in note["shards"].items():
        path = folder / name
        found, _ = stamp_of(path)
        if found != size:
            raise ConfigError(f"the shard {path} has {found} instead of {size} bytes: copy the store again, or build it again")


def _check_settings(folder: Path, note: dict[str, Any], config: DataConfig) -> None:
    for name in ("masks", "priors"):
        if getattr(config, name) == "files" and note[name] == "none":
            raise ConfigError(f"{folder} was made without {name}: set --config.data.{name}=none, or build it again with them")
    if note["source"] == "kitti" and note["intrinsics"] != config.intrinsics:
        raise ConfigError(f"{folder} holds the {note['intrinsics']} cameras: set --config.data.intrinsics={note['intrinsics']}")
    if config.split and config.split != note.get("split", config.split):
        raise ConfigError(
            f"{folder} holds the split {note['split']!r} and not {config.split!r}: set --config.data.split={note['split']}, or "
            "build a store of that split"
        )
    made = note.get("frame_step", 1)
    if made != config.frame_step:
        raise ConfigError(
            f"{folder} holds samples of --config.data.frame_step={made}, not {config.frame_step}: set it to {made}, or build "
            f"another store with scripts/prepare_tfds.py --config.data.frame_step={config.frame_step} --out=DIR"
        )
    if note["size"] is not None and (config.height, config.width, config.resize) != (*note["size"], note["resize"]):
        height, width = note["size"]
        raise ConfigError(
            f"{folder} holds frames of {height}x{width} by {note['resize']}: set --config.data.height={height}, "
            f"--config.data.width={width} and --config.data.resize={note['resize']}, or build a store with --size=full"
        )


@contextlib.contextmanager
def damage_as_config_error(folder: Path) -> Iterator[None]:
    """Converts the libraries' exceptions about a damaged store to ConfigError."""
    try:
        yield
    except Exception as error:  # ParseError of Protocol Buffers, errors of ArrayRecord, ...
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise ConfigError(f"the store {folder} is damaged ({reason}): copy it again, or build it again") from error


def _file(note: dict[str, Any], position: int, prior: bool) -> FrameFile:
    """File entry of a frame by its number in the store, for the frame cache and messages."""
    stamp = (int(note["fingerprint"][:12], 16), position)
    return FrameFile(f"frames, record {position}", stamp, prior="stored" if prior else "")


def _cameras(K: Float32[np.ndarray, "n 3 3"], note: dict[str, Any], size: tuple[int, int]) -> Float32[np.ndarray, "n 3 3"]:
    """Intrinsics at ``size``; unchanged at the store's reference size."""
    if tuple(note["reference"]) == size:
        return K
    sy, sx = (wanted / made for wanted, made in zip(size, note["reference"]))
    half = 0.0 if note["source"] == "kitti" and note["intrinsics"] == "nominal" else 0.5  # shares of the size, not pixel centres
    scaled = K.astype(np.float64)
    scaled[:, 0, 0] *= sx
    scaled[:, 1, 1] *= sy
    scaled[:, 0, 2] = (scaled[:, 0, 2] + half) * sx - half
    scaled[:, 1, 2] = (scaled[:, 1, 2] + half) * sy - half
    return scaled.astype(np.float32)


def _ground_truth(folder: Path, note: dict[str, Any], split: str) -> Callable[[int, str], GroundTruth | None]:
    if split not in note["depth"]:
        return lambda index, kind: None

    @functools.cache
    def records() -> Any:
        return _records(folder, "depth", split)

    def ground_truth(index: int, kind: str) -> GroundTruth | None:
        if kind not in KINDS:
            raise ConfigError(
                f"{folder} has no ground truth of kind {kind!r}: set --config.eval.ground_truth to one of {', '.join(KINDS)}"
            )
        with damage_as_config_error(folder):
            record = records()[index]
        kind = kind if note["source"] == "kitti" else KINDS[-1]
        depth = record[f"{kind}_depth"]
        masks = (record[f"{kind}_{mask}"] for mask in ("dynamic", "moving"))
        return GroundTruth(depth, *(mask.astype(bool) if mask.size else None for mask in masks)) if depth.size else None

    return ground_truth
