"""Your own video: ``ROOT/frames/*.png|jpg``, or several clips ``ROOT/frames/CLIP/*.png|jpg``, and ``intrinsics.json``.

``intrinsics.json`` holds one camera, in pixels of the images, with (0, 0) at the centre of the top-left pixel::

    {"width": 960, "height": 540, "fx": 831.4, "fy": 831.4, "cx": 479.5, "cy": 269.5}

It is in ROOT, or in a clip's folder for that clip only. The EXIF orientation of images is applied; they must be free of lens
distortion. Optional object masks are named as their frames: ``ROOT/masks[/CLIP]/NAME.png`` or ``.npy`` (nonzero = object; see
``--config.data.mask_format``), and so is prior depth: ``ROOT/priors[/CLIP]/NAME.png`` or ``.npy`` (inverse depth by another
network). Frames are ordered by name (see ``runtime.file_order``); hidden files are ignored. Split files are optional, with lines
``[CLIP] NAME``; without them the last tenth of each clip is val and test.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from dd_jax.config import ConfigError, DataConfig
from dd_jax.data.frames import MISSING, FrameFile, FrameTable, Listing, first_readable, frame_file, intrinsics
from dd_jax.data.splits import keep_once, read_lines, refuse_absent, refuse_outside, split_file
from dd_jax.runtime.file_order import in_order
from dd_jax.runtime.files import Folders, read_json

SUFFIXES = (".png", ".jpg", ".jpeg")
CAMERA = "intrinsics.json"

VAL_SHARE = 10
"""One in this many frames, at the end of each clip, is for validation."""

Clips = dict[str, list[str]]  # names of the images in order; the clip "" is ROOT/frames itself


def is_image(name: str) -> bool:
    """Whether a file of this name is a frame; hidden files are not, such as the ``._*.png`` that macOS writes beside images."""
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


def list_split(config: DataConfig, split: str) -> Listing:
    """Triplets of frames of a clip, ``config.frame_step`` apart; there is no ground truth.

    Raises:
      ConfigError: no frames, duplicate names, no usable intrinsics, a damaged split file, or clips too short for a triplet.
    """
    path, root = split_file(config, split), Path(config.root)
    folders, table = Folders(root), FrameTable()
    clips = _clips(folders)
    chosen = _from_file(path, clips) if path.is_file() or config.split_dir else _by_rule(clips, split, root, config.frame_step)

    def position(clip: str, place: int) -> int:
        def find() -> FrameFile | None:
            name = clips[clip][place]
            beside = f"{Path(name).stem}.png", f"{Path(name).stem}.npy"
            mask = folders.find(_beside("masks", clip), *beside) if config.masks == "files" else None
            prior = folders.find(_beside("priors", clip), *beside) if config.priors == "files" else None
            return frame_file(folders.find(_beside("frames", clip), name), mask, prior)

        return table.position((clip, place), find) if 0 <= place < len(clips[clip]) else MISSING

    offsets = (-config.frame_step, 0, config.frame_step)
    cameras = _cameras(root, {clip: clips[clip] for clip, _ in chosen}, (config.height, config.width))
    return Listing(
        root=root,
        files=table.files,
        triplets=np.array([[position(clip, place + offset) for offset in offsets] for clip, place in chosen], np.int32),
        K=np.stack([cameras[clip] for clip, _ in chosen]),
        names=[f"{clip} {Path(clips[clip][place]).stem}".strip() for clip, place in chosen],
        ground_truth=lambda index, kind: None,
    )


def _beside(kind: str, clip: str) -> str:
    return f"{kind}/{clip}" if clip else kind


def _clips(folders: Folders) -> Clips:
    frames = folders.root / "frames"
    if not frames.is_dir():
        raise ConfigError(f"the folder {frames} does not exist: put the images there, or make it with scripts/prepare_video.py")
    clips = {}
    for clip in ["", *sorted(entry.name for entry in frames.iterdir() if entry.is_dir())]:
        names = in_order(filter(is_image, folders.stamps(_beside("frames", clip))), frames / clip)
        first: dict[str, str] = {}
        twice = next((name for name in names if first.setdefault(Path(name).stem, name) != name), None)
        if twice is not None:
            raise ConfigError(
                f"{frames / clip} holds {first[Path(twice).stem]} and {twice}, which masks and lists cannot tell apart: "
                "remove one of them"
            )
        if names:
            clips[clip] = names
    if not clips:
        raise ConfigError(f"neither {frames} nor a folder in it holds {', '.join(SUFFIXES)} images")
    return clips


def _by_rule(clips: Clips, split: str, root: Path, step: int) -> list[tuple[str, int]]:
    """Frames with both neighbours on the same side of the cut; a clip too short for a cut is for training."""
    chosen, fewest = [], 2 * step + 1
    for clip, names in clips.items():
        tail = max(fewest, round(len(names) / VAL_SHARE))
        cut = len(names) - tail if len(names) >= 2 * fewest else len(names)
        places = range(step, cut - step) if split == "train" else range(cut + step, len(names) - step)
        chosen += [(clip, place) for place in places]
    if not chosen:
        raise ConfigError(
            f"the clips in {root / 'frames'} are too short for the {split} split: with "
            f"--config.data.frame_step={step} a clip needs {fewest} frames, and {2 * fewest} if some of them are to be for val"
        )
    return chosen


def _from_file(path: Path, clips: Clips) -> list[tuple[str, int]]:
    places = {(clip, Path(name).stem): place for clip, names in clips.items() for place, name in enumerate(names)}
    entries = []
    for number, words in read_lines(path):
        if len(words) > 2:
            raise ConfigError(f"{path}:{number}: expected '[CLIP] NAME', found {' '.join(words)!r}")
        refuse_outside("/".join(words), f"{path}:{number}")
        clip, name = words[0] if len(words) == 2 else "", words[-1]
        with_suffix = is_image(name) and (clip, name) not in places
        entries.append((number, (clip, Path(name).stem if with_suffix else name)))
    refuse_absent(["/".join(key).strip("/") for _, key in entries if key not in places], len(entries), path)
    return [(key[0], places[key]) for key in keep_once(entries, path)]


def _cameras(root: Path, clips: Clips, target: tuple[int, int]) -> dict[str, Float32[np.ndarray, "3 3"]]:
    """Every clip's camera; reports the errors of all clips at once."""
    cameras, complaints = {}, []
    for clip, names in clips.items():
        try:
            cameras[clip] = _camera(root, clip, names, target)
        except ConfigError as error:
            complaints.append(str(error))
    if complaints:
        raise ConfigError("; ".join(dict.fromkeys(complaints)))
    return cameras


def _camera(root: Path, clip: str, names: list[str], target: tuple[int, int]) -> Float32[np.ndarray, "3 3"]:
    pictures = root / _beside("frames", clip)
    path = camera_file(pictures, root)
    if path is None:
        raise ConfigError(
            f"{root / CAMERA} does not exist: write the camera there, "
            'like {"width": 960, "height": 540, "fx": 831.4, "fy": 831.4, "cx": 479.5, "cy": 269.5}'
        )
    return read_camera(path, [pictures / name for name in names], target)


def root_of(pictures: Path) -> Path | None:
    """ROOT of images in ``ROOT/frames`` or ``ROOT/frames/CLIP``; None for any other folder."""
    return next((place.parent for place in (pictures, pictures.parent) if place.name == "frames"), None)


def camera_file(pictures: Path, root: Path | None) -> Path | None:
    """``intrinsics.json`` beside the images, or in ROOT; None if there is none."""
    places = (pictures / CAMERA, *([] if root is None else [root / CAMERA]))
    return next((path for path in places if path.is_file()), None)


def read_camera(path: Path, images: Sequence[Path], target: tuple[int, int]) -> Float32[np.ndarray, "3 3"]:
    """Intrinsics at the ``target`` size (height, width) from an ``intrinsics.json`` for ``images``.

    Checks the size of the first image that can be decoded; the cache reports unreadable ones.

    Raises:
      ConfigError: another kind of file, or one for images of other proportions.
    """
    try:
        values = read_json(path)
        width, height, fx, fy, cx, cy = (float(values[key]) for key in ("width", "height", "fx", "fy", "cx", "cy"))
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise ConfigError(f"{path} must hold the numbers width, height, fx, fy, cx, cy: {error!r}") from error
    image, actual = first_readable(images) or (images[0], (height, width))
    if not (width > 0 and height > 0) or abs(actual[1] * height / (actual[0] * width) - 1) > 0.01:
        raise ConfigError(f"{path} is for images of {width:g} x {height:g}, but {image} has {actual[1]:g} x {actual[0]:g}")
    return intrinsics(fx, fy, cx, cy, (height, width), target, str(path))
