"""Builds a TFDS store from a folder, shard by shard, so that an interrupted build can be continued.

Everything is written to ``OUT/NAME.unfinished``, which is renamed at the end; every shard gets its name when complete.
"""

import dataclasses
import functools
import hashlib
import io
import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter
from jaxtyping import Int
from tensorflow_datasets.core import example_serializer
from tqdm import tqdm

from dd_jax.config import ConfigError, DataConfig
from dd_jax.data import frames
from dd_jax.data.cache import warn_of_misfits
from dd_jax.data.frames import MISSING, WHOLE, Listing, UnreadableFrame
from dd_jax.data.loader import list_split, require_priors
from dd_jax.data.masks import SEGMENTS
from dd_jax.data.tfds.builders import BUILDERS, CONFIGS, KINDS, VERSION, Example, Shards
from dd_jax.data.tfds.store import NOTE, check_shards, read_note
from dd_jax.runtime.files import stamp_of

AHEAD = 32
"""Records prepared in threads at a time."""


@dataclasses.dataclass
class Flaws:
    """Defects of frames found while packing."""

    unreadable: list[int] = dataclasses.field(default_factory=list)  # positions in ``Content.frames``
    misfits: list[str] = dataclasses.field(default_factory=list)  # see ``frames.misfit``


@dataclasses.dataclass
class Content:
    """Content of a store."""

    config: DataConfig
    full: bool  # images at the source's size, not at training size
    frames: list[tuple[Listing, int]]  # of all splits, each once
    samples: dict[str, tuple[Listing, Int[np.ndarray, "n 3"]]]  # split -> listing, triplets as positions in ``frames``
    depth: Sequence[str]  # splits whose ground truth is stored

    def settings(self) -> dict[str, Any]:
        """The settings that matter for reading."""
        size = [self.config.height, self.config.width]
        kept = ("source", "split", "frame_step", "resize", "intrinsics", "masks", "mask_format", "priors")
        return {"size": None if self.full else size, "reference": size, "depth": [*self.depth]} | {
            name: getattr(self.config, name) for name in kept
        }

    def fingerprint(self, per_shard: int) -> str:
        """Digest of settings, lists, cameras, and sizes and times of all files."""
        # Without the default step, as before the field existed: such stores can still be continued.
        settings = {name: value for name, value in self.settings().items() if (name, value) != ("frame_step", 1)}
        digest = hashlib.sha256(json.dumps([settings, per_shard, VERSION]).encode())
        for listing, index in self.frames:
            digest.update(repr(listing.files[index]).encode())
        if self.config.mask_format == "coco_panoptic":
            folders = {(listing.root / listing.files[index].mask).parent for listing, index in self.frames}
            digest.update(repr([stamp_of(folder / SEGMENTS) for folder in sorted(folders)]).encode())
        for split, (listing, positions) in self.samples.items():
            digest.update(f"{split} {listing.names}".encode() + positions.tobytes() + listing.K.tobytes())
            truth = chain.from_iterable(map(listing.truth_files, range(len(positions) if split in self.depth else 0)))
            digest.update(repr([stamp_of(path) for path in truth]).encode())
        return digest.hexdigest()


def build(
    config: DataConfig,
    out: Path,
    *,
    name: str = "",
    splits: Sequence[str] = ("train", "val", "test"),
    depth: Sequence[str] = ("train", "val", "test"),
    full: bool = False,
    per_shard: int = 512,
) -> Path:
    """Packs the folder ``config.root`` into the store ``OUT/NAME`` and returns its path.

    Args:
      name: of a builder; "" = the default of ``config.source``.
      depth: splits whose ground truth is packed too.
      full: images at the source's size instead of the config's.

    Raises:
      ConfigError: invalid arguments, or as :func:`collect` and :func:`write`.
    """
    names = {"kitti": ("kitti_triplets", "synthetic_triplets"), "cityscapes": ("cityscapes_triplets",)}
    if config.source not in names:
        raise ConfigError(f"--config.data.source={config.source!r} cannot be packed, only {' and '.join(map(repr, names))}")
    name = name or names[config.source][0]
    if name not in names[config.source]:
        raise ConfigError(
            f"--name={name!r} does not match --config.data.source={config.source!r}: use {' or '.join(names[config.source])}"
        )
    known = ("train", "val", "test")
    odd = [split for split in (*splits, *depth) if split not in known]
    if odd or not splits:
        raise ConfigError(f"--splits and --depth must name splits ({', '.join(known)}), not {', '.join(odd) or 'nothing'}")
    return write(collect(config, splits, full, depth), name, out, per_shard)


def collect(config: DataConfig, splits: Sequence[str], full: bool, depth: Sequence[str]) -> Content:
    """Lists the splits and finds the frames that they share.

    Raises:
      ConfigError: the folder lacks a split, or files are absent or invalid.
    """
    content = Content(config, full, [], {}, [split for split in splits if split in depth])
    places: dict[tuple, int] = {}
    for split in splits:
        listing = list_split(config, split)
        if split == "train":
            require_priors(listing, config)
        of_file = np.empty(len(listing.files) + 1, np.int64)
        of_file[MISSING] = MISSING  # the last entry, read by index -1
        for index, file in enumerate(listing.files):
            place = places.setdefault((file.image, file.box), len(places))
            of_file[index] = place
            if place == len(content.frames):
                content.frames.append((listing, index))
        content.samples[split] = listing, of_file[listing.triplets]
    return content


def write(content: Content, name: str, out: Path, per_shard: int = 512) -> Path:
    """Writes the store ``OUT/NAME``, with ``per_shard`` records a shard; returns its folder.

    Raises:
      ConfigError: another store exists or was begun from other files or settings; too many frames are unreadable; or the
        store cannot be written.
    """
    folder, started = out / name, out / f"{name}.unfinished"
    if folder.exists():
        check_shards(folder, _note(folder, content, per_shard, "was made"))
        return folder
    try:
        started.mkdir(parents=True, exist_ok=True)
        note = _note(started, content, per_shard, "was begun")
        _save(started, note)
        records = {split: len(positions) for split, (_, positions) in content.samples.items()}
        total = len(content.frames) + sum(records.values()) + sum(records[split] for split in content.depth)
        progress = tqdm(total=total, desc=name, unit="record", disable=None)
        with progress, ThreadPoolExecutor(content.config.threads) as pool:
            for config in CONFIGS:
                flaws = Flaws()
                builder = BUILDERS[name](config=config, data_dir=out, shards=_shards(content, config, per_shard, pool, flaws))
                _write_config(builder, started, note, flaws, progress, content)
        os.replace(started, folder)
        warn_of_misfits(note["misfits"])
    except OSError as error:
        raise ConfigError(f"the store {folder} cannot be written ({error}): choose another --out and run it again") from error
    return folder


def _note(folder: Path, content: Content, per_shard: int, what: str) -> dict[str, Any]:
    """``store.json`` of a finished or begun store of the same content, or a new one."""
    fingerprint = content.fingerprint(per_shard)
    if not (folder / NOTE).is_file():
        splits = {split: len(listing.names) for split, (listing, _) in content.samples.items()}
        return {
            "fingerprint": fingerprint, "settings": content.settings(), "splits": splits, "unreadable": [], "misfits": [],
            "shards": {},
        }  # fmt: skip
    note = read_note(folder)
    if note["fingerprint"] != fingerprint:
        raise ConfigError(f"{folder} {what} from other files or with other settings: remove it, or choose another --out")
    note.setdefault("misfits", [])
    return note


def _write_config(
    builder: tfds.core.DatasetBuilder, started: Path, note: dict, flaws: Flaws, progress: tqdm, content: Content
) -> None:
    """All shards of one config, then TFDS's description of them."""
    base = started / builder.builder_config.name / VERSION
    base.mkdir(parents=True, exist_ok=True)
    infos = []
    for split, shards in builder.shards.items():
        template = tfds.core.ShardedFileTemplate(
            data_dir=base, dataset_name=builder.name, split=split, filetype_suffix="array_record"
        )
        paths = [Path(template.sharded_filepath(shard_index=i, num_shards=len(shards))) for i in range(len(shards))]
        for path, records in zip(paths, shards):
            shard = str(path.relative_to(started))
            if path.is_file() and path.stat().st_size == note["shards"].get(shard):
                progress.update(len(records))
                continue
            note["shards"][shard] = _write_shard(path, records, builder.info.features, progress)
            note["unreadable"] = sorted({*note["unreadable"], *flaws.unreadable})
            note["misfits"] = sorted({*note["misfits"], *flaws.misfits})
            _save(started, note)
            _limit(content, note["unreadable"])
        lengths, size = [len(records) for records in shards], sum(path.stat().st_size for path in paths)
        infos.append(tfds.core.SplitInfo(name=split, shard_lengths=lengths, num_bytes=size, filename_template=template))
    builder.info.set_splits(tfds.core.splits.SplitDict(infos))
    builder.info.write_to_directory(base)


def _write_shard(path: Path, records: "_Shard", features: tfds.features.FeaturesDict, progress: tqdm) -> int:
    """Writes one shard atomically; returns its size in bytes."""
    temporary = path.with_name(f"{path.name}.new")
    serializer = example_serializer.ExampleSerializer(features.get_serialized_info())
    try:
        writer = ArrayRecordWriter(str(temporary), "group_size:1,uncompressed")  # images are compressed already
        try:
            for _, example in records():
                record = serializer.get_tf_example(features.encode_example(example))
                writer.write(record.SerializeToString(deterministic=True))  # otherwise the order of fields varies
                progress.update()
        finally:
            writer.close()
    except RuntimeError as error:  # raised by the writer for a full or missing disk
        raise OSError(str(error).splitlines()[0]) from error
    os.replace(temporary, path)
    return path.stat().st_size


@dataclasses.dataclass
class _Shard:
    """The records ``first .. first + count`` of a split in order, prepared in threads."""

    make: Callable[[int], Example]
    first: int
    count: int
    pool: ThreadPoolExecutor

    def __len__(self) -> int:
        return self.count

    def __call__(self) -> Iterator[tuple[int, Example]]:
        places = range(self.first, self.first + self.count)
        for start in range(0, self.count, AHEAD):
            chunk = places[start : start + AHEAD]
            yield from zip(chunk, self.pool.map(self.make, chunk))


def _shards(content: Content, config: str, per_shard: int, pool: ThreadPoolExecutor, flaws: Flaws) -> Shards:
    def split(make: Callable[[int], Example], total: int) -> list[_Shard]:
        return [_Shard(make, first, min(per_shard, total - first), pool) for first in range(0, total, per_shard)]

    if config == "frames":
        return {"frames": split(lambda place: _frame(content, place, flaws), len(content.frames))}
    kinds = KINDS if content.config.source == "kitti" else KINDS[-1:]  # other sources have one kind only
    made = {}
    for name in content.samples if config == "triplets" else content.depth:
        listing, positions = content.samples[name]
        make = functools.partial(*((_sample, listing, positions) if config == "triplets" else (_depth, listing, kinds)))
        made[name] = split(make, len(positions))
    return made


def _frame(content: Content, place: int, flaws: Flaws) -> Example:
    listing, index = content.frames[place]
    file, config = listing.files[index], content.config
    nothing = np.zeros((1, 1), np.uint8)
    try:
        frame = listing.decode(index)
    except UnreadableFrame:
        flaws.unreadable.append(place)
        fields = {"image": np.zeros((1, 1, 3), np.uint8), "mask": nothing, "prior": nothing}
        return {key: _png(value) for key, value in fields.items()} | {"name": file.image, "readable": False}
    flaws.misfits.extend(frames.misfit(frame, file.mask))
    image, size = frame.image, (config.height, config.width)
    mask = nothing if frame.mask is None else frame.mask.astype(np.uint8) * 255
    prior = nothing if frame.prior is None else frame.prior
    if not content.full:
        image = frames.resize_image(image, *size, config.resize)
        mask = mask if frame.mask is None else frames.resize_mask(frame.mask, *size).astype(np.uint8) * 255
        prior = prior if frame.prior is None else frames.resize_prior(prior, *size)
    original = (listing.root / file.image).read_bytes() if content.full and file.box == WHOLE else b""
    encoded = io.BytesIO(original) if _plain(original) else _png(image)
    return {"image": encoded, "mask": _png(mask), "prior": _png(prior), "name": file.image, "readable": True}


def _plain(data: bytes) -> bool:
    """Whether an image can be stored unchanged: JPEG, or PNG of 8-bit RGB without transparency."""
    return data[:2] == b"\xff\xd8" or (data[:4] == b"\x89PNG" and data[24:26] == b"\x08\x02" and b"tRNS" not in data[:1024])


def _png(image: np.ndarray) -> io.BytesIO:
    return io.BytesIO(cv2.imencode(".png", image[..., ::-1] if image.ndim == 3 else image)[1].tobytes())


def _sample(listing: Listing, positions: Int[np.ndarray, "n 3"], index: int) -> Example:
    return {"frames": positions[index], "K": listing.K[index], "name": listing.names[index]}


def _depth(listing: Listing, kinds: Sequence[str], index: int) -> Example:
    example: Example = {}
    for kind in KINDS:
        truth = listing.ground_truth(index, kind) if kind in kinds else None
        nothing = np.zeros((0, 0), np.uint8)
        example[f"{kind}_depth"] = nothing.astype(np.float32) if truth is None else truth.depth
        for name in ("dynamic", "moving"):
            mask = None if truth is None else getattr(truth, name)
            example[f"{kind}_{name}"] = nothing if mask is None else mask.astype(np.uint8)
    return example


def _limit(content: Content, unreadable: list[int]) -> None:
    limit = content.config.max_unreadable
    if len(unreadable) > limit:
        named = (
            f"{listing.root / listing.files[index].image}" for listing, index in (content.frames[i] for i in unreadable[:20])
        )
        raise ConfigError(
            f"{len(unreadable)} frames cannot be decoded, more than --config.data.max_unreadable={limit}: {', '.join(named)}"
        )


def _save(folder: Path, note: dict[str, Any]) -> None:
    temporary = folder / f"{NOTE}.new"
    temporary.write_text(json.dumps(note) + "\n")
    os.replace(temporary, folder / NOTE)
