"""Checks every file of a data set and reports all problems at once."""

import contextlib
import dataclasses
import functools
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from tqdm import tqdm

from dd_jax.config import Config, ConfigError, DataConfig
from dd_jax.config.rules import validate
from dd_jax.data import frames, loader, picture_faults
from dd_jax.data.folder import is_image
from dd_jax.data.frames import MISSING, DamagedImage, DecodedFrame, FrameFile, Listing, UnreadableFrame
from dd_jax.prepare import triplet
from dd_jax.report.pictures import colorize_depth, grid, label
from dd_jax.runtime import files
from dd_jax.types import PREVIOUS, TARGET

SPLITS = ("train", "val", "test")
FIELD_OF_VIEW = (20.0, 150.0)
"""Degrees; a horizontal field of view outside is a problem."""

TRUTHS = 100
"""Number of evenly spaced samples per split whose ground truth is read."""

OTHER_MASK = "mask of other proportions"

MANY_REPEATED = 0.5
"""Share of the images above which repeated ones are a problem: more than a car that stands leaves."""

NAMED = 5
"""Number of files named in a message; the rest are counted."""


@dataclasses.dataclass
class Report:
    """Result of a check. ``problems`` prevent correct training or evaluation; ``notes`` are for information."""

    problems: list[str] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)
    statistics: dict[str, Any] = dataclasses.field(default_factory=dict)
    triplet: UInt8[np.ndarray, "rows width 3"] | None = None

    @property
    def good(self) -> bool:
        """Whether there are no problems."""
        return not self.problems

    @property
    def verdict(self) -> str:
        """Summary in one line."""
        count = len(self.problems)
        return "the data set is good" if self.good else f"the data set has {count} problem{'s' if count > 1 else ''}"


@dataclasses.dataclass(frozen=True)
class Inspection:
    """Properties of one stored frame."""

    size: tuple[int, int] | None = None  # height, width of the image; None: unreadable
    masked: bool = False  # has a mask, readable or not
    objects: float | None = None  # share of object pixels; None: no mask, or unreadable
    complaints: tuple[str, ...] = ()
    digest: bytes = b""  # of a usual picture that fills its file


def check(config: Config, splits: Sequence[str] = SPLITS, progress: bool | None = None) -> Report:
    """Decodes every file of the splits; never raises about the data, but reports every problem.

    Args:
      progress: whether to show a progress bar; None: only on a terminal.
    """
    report, data = Report(), config.data
    try:
        validate(config)
    except ConfigError as error:
        report.problems.append(str(error))
    known = _list(data, splits, report)
    checks: dict[FrameFile, Callable[[], Inspection]] = {}
    for listing in known.values():
        for index, file in enumerate(listing.files):
            stored = listing.stored is not None
            make = (_inspect_stored, listing, index) if stored else (_inspect, listing.root, file, data)
            checks[file] = functools.partial(*make)
    listed = set(checks)
    if len(known) < len(splits) and data.root and data.source != "tfds":  # also check images that no list names
        mentioned = {listing.root / file.image for listing in known.values() for file in listing.files}
        loose = [(file, root) for file, root in _loose(Path(data.root)) if root / file.image not in mentioned]
        checks |= {file: functools.partial(_inspect, root, file, data) for file, root in loose}
    seen = _inspect_all(checks, data.threads, progress)
    _images(seen, data, report)
    _repeated(seen, report)
    _misfits(known, report)
    if data.masks == "files" and listed:
        loss = config.loss
        needed = (config.domd.enabled and config.model.student) or loss.dynamic_cycle > 0 or loss.mask_weight != "off"
        _masks({file: one for file, one in seen.items() if file in listed}, needed, report)
    for split, listing in known.items():
        _samples(split, listing, data, report)
        _cameras(split, listing, seen, data, report)
        if split != "train":
            _truth(split, listing, config, report)
    report.statistics["frames"] = len(seen)
    report.statistics["samples"] = {split: len(listing.names) for split, listing in known.items()}
    if known:
        report.triplet = _triplet(next(iter(known.values())))
    return report


def _list(data: DataConfig, splits: Sequence[str], report: Report) -> dict[str, Listing]:
    """The splits' files; KITTI's are also listed if only the calibration is wrong."""
    known, complaints = {}, {}
    for split in splits:
        wanted = data if split == "train" else dataclasses.replace(data, priors="none")
        try:
            known[split] = loader.list_split(wanted, split)
            continue
        except ConfigError as error:
            complaints.setdefault(str(error), []).append(split)
        if data.source == "kitti" and data.intrinsics == "calib":
            with contextlib.suppress(ConfigError):
                known[split] = loader.list_split(dataclasses.replace(wanted, intrinsics="nominal"), split)
    report.problems += [f"{', '.join(concerned)}: {complaint}" for complaint, concerned in complaints.items()]
    return known


def _loose(root: Path) -> Iterator[tuple[FrameFile, Path]]:
    """Images below a root (following links) in folders of frames."""
    for path in files.below(root):
        folders = path.relative_to(root).parts[:-1]
        if is_image(path.name) and any(part.startswith(("frames", "image_", "leftImg8bit")) for part in folders):
            yield FrameFile(str(path.relative_to(root)), files.stamp_of(path)), root


def _inspect_all(
    checks: dict[FrameFile, Callable[[], Inspection]], threads: int, progress: bool | None
) -> dict[FrameFile, Inspection]:
    bar = tqdm(total=len(checks), desc="checking frames", unit="frame", disable=None if progress is None else not progress)
    seen = {}
    with bar, ThreadPoolExecutor(max(1, threads)) as pool:
        for file, result in zip(checks, pool.map(lambda inspect: inspect(), checks.values())):
            seen[file] = result
            bar.update()
    return seen


def _inspect(root: Path, file: FrameFile, data: DataConfig) -> Inspection:
    """A frame stored as files."""
    try:
        image = frames.cut(frames.decode_whole_image(root / file.image), file.box)
    except DamagedImage as error:
        return Inspection(
            masked=bool(file.mask), complaints=(f"image damaged inside ({error.damage}), which training does not notice",)
        )
    except UnreadableFrame:
        return Inspection(masked=bool(file.mask), complaints=("image unreadable",))
    size, complaints, objects = image.shape[:2], _faults(image, root / file.image), None
    if file.mask:
        mask = _try(frames.mask_of, complaints, "mask unreadable", root, file, data.mask_format)
        if mask is not None:
            objects = float(mask.mean())
            complaints += [] if frames.same_proportions(mask.shape, size) else [OTHER_MASK]
    if file.prior:
        prior = _try(frames.prior_of, complaints, "prior unreadable", root, file)
        if prior is not None:
            complaints += [] if frames.same_proportions(prior.shape, size) else ["prior of other proportions"]
            complaints += [] if np.ptp(prior) > 0 else ["prior is constant"]
    return Inspection(size, bool(file.mask), objects, tuple(complaints), _digest(image, file))


def _inspect_stored(listing: Listing, index: int) -> Inspection:
    """A frame of a store, whose masks and priors were checked when it was made."""
    try:
        frame = listing.decode(index)
    except UnreadableFrame:
        return Inspection(complaints=("image unreadable",))
    except ConfigError as error:
        return Inspection(complaints=(str(error),))
    masked, faults = frame.mask is not None, tuple(_faults(frame.image, None))
    objects, same = float(frame.mask.mean()) if masked else None, _digest(frame.image, listing.files[index])
    return Inspection(frame.image.shape[:2], masked, objects, faults, same)


def _faults(image: UInt8[np.ndarray, "H W 3"], path: Path | None) -> list[str]:
    found = picture_faults.fault(image, path)
    return [f"image is {found}"] if found else []


def _digest(image: UInt8[np.ndarray, "H W 3"], file: FrameFile) -> bytes:
    """Empty for a part of a file: triplets hold the same frame several times."""
    return picture_faults.digest(image) if file.box == frames.WHOLE else b""


def _try(decode: Callable, complaints: list[str], complaint: str, *arguments: Any) -> np.ndarray | None:
    try:
        return decode(*arguments)
    except UnreadableFrame:
        complaints.append(complaint)
    except ConfigError as error:
        complaints.append(str(error))
    return None


def _images(seen: dict[FrameFile, Inspection], data: DataConfig, report: Report) -> None:
    by_complaint: dict[str, list[str]] = {}
    for file, one in seen.items():
        for complaint in one.complaints:
            path = file.mask if complaint.startswith("mask") else file.prior if complaint.startswith("prior") else file.image
            by_complaint.setdefault(complaint, []).append(path)
    report.problems += [f"{complaint}: {_name(paths)}" for complaint, paths in by_complaint.items()]
    report.statistics["complaints"] = {complaint: len(paths) for complaint, paths in by_complaint.items()}
    if "image unreadable" in by_complaint:
        report.notes.append(
            f"training skips unreadable frames, up to --config.data.max_unreadable={data.max_unreadable} per split"
        )
    sizes: dict[str, Counter] = {}
    for file, one in seen.items():
        if one.size:
            sizes.setdefault(str(Path(file.image).parent), Counter())[one.size] += 1
    for folder, counts in sizes.items():
        if len(counts) > 1:
            report.problems.append(f"{folder} holds images of several sizes: {_sizes(counts)}")
    total = sum(sizes.values(), Counter())
    report.statistics["sizes"] = {f"{width}x{height}": count for (height, width), count in total.most_common()}
    if len(total) > 1:
        report.notes.append(f"folders differ in the size of their images: {_sizes(total)}")
    small = [size for size in total if size[0] < data.height or size[1] < data.width]
    if small:
        report.notes.append(f"images smaller than the training size {data.width}x{data.height} are enlarged")


def _repeated(seen: dict[FrameFile, Inspection], report: Report) -> None:
    """Frames that equal another one of their folder, apart from those that show nothing."""
    shown: dict[tuple[Path, bytes], str] = {}
    usual = [(file.image, one.digest) for file, one in seen.items() if one.digest and not one.complaints]
    again = list(dict.fromkeys(name for name, same in usual if shown.setdefault((Path(name).parent, same), name) != name))
    if again:
        (report.problems if len(again) > MANY_REPEATED * len(seen) else report.notes).append(
            f"images that equal another one of their folder, so nothing moves between them: {_name(again)}"
        )


def _misfits(known: dict[str, Listing], report: Report) -> None:
    """Masks that did not fit when a store was made, which its frames no longer show."""
    misfits = sorted({text for listing in known.values() for text in listing.misfits})
    if misfits:
        report.problems.append(f"{OTHER_MASK}: {_name(misfits)}")
        report.statistics["complaints"][OTHER_MASK] = len(misfits)


def _sizes(counts: Counter) -> str:
    return ", ".join(f"{width}x{height} ({count})" for (height, width), count in counts.most_common(NAMED))


def _name(paths: list[str]) -> str:
    more = f" and {len(paths) - NAMED} more" if len(paths) > NAMED else ""
    return f"{len(paths)}, {', '.join(paths[:NAMED])}{more}"


def _masks(seen: dict[FrameFile, Inspection], needed: bool, report: Report) -> None:
    """``needed``: training uses the masks; otherwise only evaluation does."""
    without = [file.image for file, one in seen.items() if not one.masked]
    shares = [one.objects for one in seen.values() if one.objects is not None]
    report.statistics["frames without mask file"] = len(without)
    if not shares:
        (report.problems if needed else report.notes).append(
            "no frame has a readable mask: make masks with scripts/make_masks.py, or train without: "
            "--config.data.masks=none --config.domd.enabled=False --config.cost_volume.occlusion=none"
        )
        return
    report.statistics["object pixels"] = {
        "mean": float(np.mean(shares)), "largest": float(np.max(shares)), "frames without": float(np.mean(np.array(shares) == 0)),
    }  # fmt: skip
    if without:
        report.notes.append(f"no mask file, hence no objects: {_name(without)}")
    if max(shares) == 0:
        report.problems.append("no mask has an object: check --config.data.mask_format")
    elif np.mean(shares) > 0.6:
        report.problems.append(f"masks cover {np.mean(shares):.0%} of the images: check --config.data.mask_format")


def _samples(split: str, listing: Listing, data: DataConfig, report: Report) -> None:
    _neighbours(split, listing, data.frame_step, report)
    twice = [name for name, count in Counter(listing.names).items() if count > 1]
    if twice:
        report.notes.append(f"{split}: listed more than once: {_name(twice)}")
    if data.priors == "files" and split == "train":
        targets = [listing.files[index] for index in listing.triplets[:, TARGET]]
        bare = [file.image for file in targets if not file.prior]
        report.statistics["training frames without prior"] = len(bare)
        if bare:
            report.problems.append(
                f"no prior depth (make it with scripts/make_prior_depth.py, or set --config.data.priors=none): {_name(bare)}"
            )


def _neighbours(split: str, listing: Listing, step: int, report: Report) -> None:
    """Samples without a neighbour: from ``frame_step`` 2 on training leaves them out, evaluation never does."""
    lacking, total = listing.triplets == MISSING, len(listing.names)
    partial, first = int(lacking.any(axis=1).sum()), int(lacking[:, PREVIOUS].sum())
    if split == "train" and partial and step == 1:
        report.notes.append(f"{split}: {partial} of {total} samples lack a neighbour, as at the ends of drives")
    elif split == "train" and partial:
        reason = f"there is no frame --config.data.frame_step={step} before or after them, as at the ends of drives"
        (report.notes if partial < total else report.problems).append(
            f"{split}: {partial} of {total} samples are left out of training: {reason}"
        )
    elif first and step > 1:
        report.notes.append(f"{split}: {first} of {total} samples have no frame {step} before them to match with")


def _cameras(split: str, listing: Listing, seen: dict[FrameFile, Inspection], data: DataConfig, report: Report) -> None:
    """Checks field of view, pixel aspect ratio and principal point of every distinct camera."""
    cameras: dict[tuple, list[int]] = {}
    for index, K in enumerate(listing.K):
        cameras.setdefault(tuple(np.round(K[[0, 1, 0, 1], [0, 1, 2, 2]], 3).tolist()), []).append(index)
    views = []
    for (fx, fy, cx, cy), samples in cameras.items():
        where = f"{split}: the camera of {listing.names[samples[0]]} and {len(samples) - 1} more samples"
        fov = math.degrees(2 * math.atan(data.width / 2 / fx))
        views.append(fov)
        if not FIELD_OF_VIEW[0] <= fov <= FIELD_OF_VIEW[1]:
            report.problems.append(f"{where} has a horizontal field of view of {fov:.0f} degrees")
        if abs(cx / data.width - 0.5) > 0.25 or abs(cy / data.height - 0.5) > 0.3:
            place = f"{cx / data.width:.0%} of the width, {cy / data.height:.0%} of the height"
            report.problems.append(f"{where} has its principal point at {place}")
        file = listing.files[listing.triplets[samples[0], TARGET]]
        size = seen[file].size if file in seen else None
        if size is not None and data.intrinsics != "nominal":
            ratio = (fy * size[0] / data.height) / (fx * size[1] / data.width)
            if not 0.9 < ratio < 1.1:
                report.notes.append(f"{where} has pixels {ratio:.2f} times as wide as high, which is unusual")
    report.statistics.setdefault("fields of view", {})[split] = [round(float(v), 1) for v in sorted(set(views))][:20]


def _truth(split: str, listing: Listing, config: Config, report: Report) -> None:
    indices = np.unique(np.linspace(0, len(listing.names) - 1, min(TRUTHS, len(listing.names))).round().astype(int))
    present = 0
    for index in indices:
        try:
            truth = listing.ground_truth(int(index), config.eval.ground_truth)
        except (ConfigError, UnreadableFrame, ValueError, KeyError) as error:
            report.problems.append(f"{split}: the ground truth of {listing.names[index]} is damaged: {error}")
            continue
        present += truth is not None and bool((truth.depth > 0).any())
    report.statistics.setdefault("ground truth", {})[split] = {"looked for": len(indices), "found": present}
    if present < len(indices):
        report.notes.append(
            f"{split}: ground truth ({config.eval.ground_truth}) for {present} of {len(indices)} samples checked; "
            "evaluation needs it, training does not"
        )


def _triplet(listing: Listing) -> UInt8[np.ndarray, "rows width 3"] | None:
    """A complete sample from the middle: three frames, their alignment, mask and prior; None if there is none."""
    complete = np.flatnonzero((listing.triplets >= 0).all(axis=1))
    if not complete.size:
        return None
    index = complete[complete.size // 2]
    try:
        triplet_frames = [listing.decode(position) for position in listing.triplets[index].tolist()]
    except (UnreadableFrame, ConfigError):
        return None  # reported already
    if len({frame.image.shape for frame in triplet_frames}) > 1:
        return None
    tiles = triplet.tiles(*(frame.image for frame in triplet_frames), listing.names[index])
    return grid(tiles + _beside(triplet_frames[TARGET]), columns=2)


def _beside(frame: DecodedFrame) -> list[UInt8[np.ndarray, "_ _ 3"]]:
    """Tiles of a frame's tinted mask and of its prior."""
    shown = triplet.shown(frame.image)
    tiles, size = [], shown.shape[:2]
    if frame.mask is not None:
        mask = frames.resize_mask(frame.mask, *size)
        tinted = np.where(mask[..., None], shown // 2 + np.array([127, 105, 20], np.uint8), shown)
        tiles.append(label(tinted, "potentially dynamic objects"))
    if frame.prior is not None:
        prior = frames.resize_prior(frame.prior, *size)
        depth = np.divide(1.0, prior, out=np.zeros(size), where=prior > 0)
        tiles.append(label(colorize_depth(depth), "prior depth"))
    return tiles
