"""Converts Cityscapes' sequences to triplets, the fastest format for training from a folder.

From ``leftImg8bit_sequence/train`` and ``camera/train``, unpacked or in their zip archives, every frame with both neighbours
(two frames away, or a multiple of two) becomes ``OUT/CITY/CITY_SSSSSS_FFFFFF.jpg``, the three side by side without the bonnet,
and ``..._cam.txt``.
This is the layout of SfMLearner's script (Zhou et al. 2017), which ManyDepth and DynamicDepth train on.
"""

import dataclasses
import json
import os
from collections.abc import Iterable, Set
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8
from tqdm import tqdm

from dd_jax.config import ConfigError
from dd_jax.data import frames
from dd_jax.data.cityscapes import splits as rules
from dd_jax.data.cityscapes.files import (
    KEPT,
    NOTE,
    ORIGINAL_SIZE,
    STEP,
    UNFINISHED,
    Camera,
    Cameras,
    Entry,
    Tree,
    frame_numbers,
    full_triplets,
    read_note,
    triplets_in,
)
from dd_jax.data.frames import UnreadableFrame
from dd_jax.runtime.files import Folders

BASE = "leftImg8bit_sequence/train"
ENDING = "_leftImg8bit.png"


@dataclasses.dataclass(frozen=True)
class Settings:
    """Format of the triplets, the same for a whole folder."""

    height: int = 384  # of one frame
    width: int = 1024
    quality: int = 95  # of the JPEG
    resize: str = "area"  # "area" | "lanczos"
    frame_step: int = 1  # as ``data.frame_step``: the neighbours of frame t are t-2k and t+2k


@dataclasses.dataclass
class Prepared:
    """Outcome of a conversion."""

    folder: Path
    triplets: int  # in the folder
    written: int  # of these, in this call
    unreadable: list[str]  # frames whose triplets are left out


def prepare(root: Path, out: Path, settings: Settings = Settings(), cities: Iterable[str] = (), threads: int = 2) -> Prepared:
    """Writes all missing triplets, and the lists ``OUT/splits/{train,val}_files.txt`` by rule.

    Args:
      root: folder with ``leftImg8bit_sequence`` and ``camera``, or with their zip archives.
      cities: only these; empty = all.

    Raises:
      ConfigError: sequences or camera files are absent or invalid, or ``out`` holds triplets of another format.
    """
    numbers_fit = min(settings.height, settings.width) >= 32 and 1 <= settings.quality <= 100 and settings.frame_step >= 1
    if settings.resize not in ("area", "lanczos") or not numbers_fit:
        raise ConfigError(
            f"{settings}: sizes are at least 32, quality lies between 1 and 100, resize is 'area' or 'lanczos', frame_step is at "
            "least 1"
        )
    tree = Tree(root, archives=sorted(root.glob("*.zip")))
    try:
        entries = _entries(tree, set(cities), STEP * settings.frame_step)
        cameras = Cameras(tree)
        of_entry = {entry: cameras.of("train", *entry) for entry in entries}  # raises before hours of work
        wanted = {city for city, _, _ in entries}
        _remember(out, settings, begun=wanted)
        todo = [entry for entry in entries if not _image_path(out, entry).is_file()]
        damaged: set[str] = set()
        runs = _runs(todo)
        progress = tqdm(total=len(entries), initial=len(entries) - len(todo), desc="triplets", unit="triplet", disable=None)
        with progress, ThreadPoolExecutor(max(1, threads)) as pool:
            for bad in pool.map(lambda run: _write_run(tree, out, run, of_entry, settings, progress), runs):
                damaged |= bad
    finally:
        tree.close()
    present = triplets_in(Folders(out), (path.name for path in out.iterdir() if path.is_dir()))
    for split in ("train", "val"):
        lines = "".join(f"{rules.line(entry)}\n" for entry in rules.draw(present, split, settings.frame_step))
        _replace(out / "splits" / f"{split}_files.txt", lines.encode())
    _remember(out, settings, done=wanted)
    return Prepared(out, len(present), sum(_image_path(out, entry).is_file() for entry in todo), sorted(damaged))


def _entries(tree: Tree, cities: set[str], step: int) -> list[Entry]:
    there = tree.subfolders(BASE)
    if not there:
        raise ConfigError(
            f"{tree.root} holds neither {BASE} nor an archive with it: name the folder of Cityscapes' leftImg8bit_sequence"
        )
    if not cities <= set(there):
        raise ConfigError(f"{tree.root / BASE} has no {', '.join(sorted(cities - set(there)))}; it has {', '.join(there)}")
    found = ((city, frame_numbers(tree.names(f"{BASE}/{city}"), city, ENDING)) for city in sorted(cities or there))
    entries = [entry for city, numbers in found for entry in full_triplets(city, numbers, step)]
    if not entries:
        raise ConfigError(f"no frame below {tree.root / BASE} has both neighbours, {step} frames before and after it")
    return entries


def _remember(out: Path, settings: Settings, begun: Set[str] = frozenset(), done: Set[str] = frozenset()) -> None:
    """Notes the settings and the cities with possibly missing triplets; refuses other settings later."""
    found, wanted = read_note(out), dataclasses.asdict(settings)
    unfinished = sorted(({*found.pop(UNFINISHED, ())} | begun) - done)
    if found and {"frame_step": 1, **found} != wanted:
        raise ConfigError(f"{out} holds triplets made with {found}, not {wanted}: use the same, or choose another --out")
    _replace(out / NOTE, json.dumps(wanted | ({UNFINISHED: unfinished} if unfinished else {})).encode())


def _runs(entries: list[Entry]) -> list[list[Entry]]:
    """Runs of consecutive targets, at most a snippet long, whose frames are decoded once."""
    runs: list[list[Entry]] = []
    for entry in entries:
        last = runs[-1][-1] if runs else None
        if last is None or last[:2] != entry[:2] or entry[2] - last[2] > 1 or len(runs[-1]) == 30:
            runs.append([])
        runs[-1].append(entry)
    return runs


def _write_run(
    tree: Tree, out: Path, run: list[Entry], cameras: dict[Entry, Camera], settings: Settings, progress: tqdm
) -> set[str]:
    """Writes the triplets of one run; returns the frames that cannot be read."""
    decoded: dict[int, UInt8[np.ndarray, "h w 3"] | None] = {}
    damaged, step = set(), STEP * settings.frame_step

    def frame(entry: Entry, number: int) -> UInt8[np.ndarray, "h w 3"] | None:
        if number not in decoded:
            city, sequence, _ = entry
            name = f"{BASE}/{city}/{city}_{sequence}_{number:06d}{ENDING}"
            try:
                image = frames.cut(frames.decode_image(tree.read(name)), KEPT)
                decoded[number] = frames.resize_image(image, settings.height, settings.width, settings.resize)
            except (OSError, UnreadableFrame):
                decoded[number] = None
                damaged.add(name)
        return decoded[number]

    for entry in run:
        number = entry[2]
        images = [frame(entry, number + offset) for offset in (-step, 0, step)]
        for old in [old for old in decoded if old < number - step + 1]:
            del decoded[old]
        if all(image is not None for image in images):
            encoded = cv2.imencode(
                ".jpg", np.concatenate(images, axis=1)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, settings.quality]
            )[1]
            target = _image_path(out, entry)
            _replace(target.with_name(f"{target.stem}_cam.txt"), camera_text(cameras[entry]).encode())
            _replace(target, encoded.tobytes())  # written last: its presence implies the camera's
        progress.update()
    return damaged


def camera_text(camera: Camera) -> str:
    """The nine numbers of ``_cam.txt``: pixels of the full image at 1024 x 512; cutting off the bonnet does not change them."""
    height, width = 512, 1024
    sy, sx = height / ORIGINAL_SIZE[0], width / ORIGINAL_SIZE[1]
    cx, cy = (camera.u0 + 0.5) * sx - 0.5, (camera.v0 + 0.5) * sy - 0.5
    return f"{camera.fx * sx!r},0.,{cx!r},0.,{camera.fy * sy!r},{cy!r},0.,0.,1."


def _image_path(out: Path, entry: Entry) -> Path:
    city, sequence, number = entry
    return out / city / f"{city}_{sequence}_{number:06d}.jpg"


def _replace(path: Path, data: bytes) -> None:
    """Writes a file atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    started = path.with_name(f"{path.name}.new")
    started.write_bytes(data)
    os.replace(started, path)
