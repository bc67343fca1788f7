"""Depth predicted by any other program, read from files for evaluation.

Either a folder with one file per sample of a split, ``.npy`` (float, two-dimensional) or 16-bit grey PNG, or one ``.npy`` with
all samples (n, h, w), as Monodepth2 and its successors save. Values are depth or disparity (= 1 / depth); PNGs store them times
256. A map may have any size; it covers the image that our networks see (of Cityscapes test images the upper 768 rows).

Files are named after the frame, ``munich_000000_000019.npy`` or ``2011_09_26_drive_0002_sync_69_l.npy`` (the line of the split
file with ``_`` for spaces, without folders), or after the position in the split, ``0000.npy``, ``000000.npy`` or
``0000000000.npy``.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32

from dd_jax.config import ConfigError, EvalConfig
from dd_jax.data import published_order
from dd_jax.data.frames import GroundTruth, UnreadableFrame, load_array, same_proportions
from dd_jax.data.kitti.raw import read_annotated
from dd_jax.evaluation import crops, metrics

KINDS = ("depth", "disparity")
SUFFIXES = (".npy", ".png")
WIDTHS = (4, 6, 10)
"""Digits of a position in a file name."""

ENOUGH, OPPOSITE = 100, -0.5
"""Fewest pixels with ground truth for a correlation; mean correlation below which depth and disparity are mixed up."""

InverseDepth = Callable[[int], Float32[np.ndarray, "h w"]]
"""1 / depth of a sample of the split, in the unit of the predictor."""


def open_predictions(place: str | Path, names: Sequence[str], kind: str, out_of_order: str = "") -> InverseDepth:
    """Predictions of the samples ``names`` (``TripletSource.name``) in ``place``; a map is read and checked on access.

    Args:
      place: the folder, or the file with all samples.
      kind: type of the values, one of :data:`KINDS`.
      out_of_order: as in ``TripletSource``: not empty if samples cannot be identified by position.

    Raises:
      ConfigError: ``place`` does not exist, a sample has no file or two, the number of predictions differs from that of the
        samples, or predictions by position of samples that are out of order; raised by the returned function: values that
        are not finite and positive, or a file that is not a map.
    """
    if kind not in KINDS:
        raise ConfigError(f"--predictions_are={kind} is not one of {', '.join(KINDS)}")
    place = Path(place)
    if place.is_file():
        stack = _load(place)
        if stack.ndim < 3 or len(stack) != len(names):
            raise ConfigError(
                f"{place} has shape {list(stack.shape)}, but one map for each of the {len(names)} samples is needed"
            )
        published_order.refuse_other(out_of_order, f"{place} has no names: it", f"give a folder of files like {_example(names)}")
        return lambda index: _checked(stack[index], kind, f"{place}, sample {index} ({names[index]})")
    files = _match(place, names, out_of_order)
    return lambda index: _checked(_read(files[index]), kind, str(files[index]))


def _match(folder: Path, names: Sequence[str], out_of_order: str) -> list[Path]:
    """The file of each sample, by the naming scheme that matches most files."""
    if not folder.is_dir():
        raise ConfigError(f"--predictions={folder} is neither a folder nor a .npy file")
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in SUFFIXES:
            found.setdefault(path.stem, []).append(path)
    if not found:
        raise ConfigError(f"{folder} has no {' or '.join(SUFFIXES)} files: give the folder of the predictions")

    by_frame, by_position = _naming_schemes(names)
    stems = max(by_frame + by_position, key=lambda scheme: sum(stem in found for stem in scheme))  # the first of equal ones
    missing = [stem for stem in stems if stem not in found]
    if missing:
        raise ConfigError(
            f"{folder} lacks the predictions of {len(missing)} of {len(names)} samples, the first is {missing[0]}.npy or .png; "
            f"files must be named like {' or '.join(f'{scheme[0]}.npy' for scheme in by_frame + by_position[1:2])}"
        )
    if stems in by_position and len(found) != len(names):
        raise ConfigError(
            f"{folder} has {len(found)} predictions for the {len(names)} samples of the split: files numbered by position must "
            "be as many as the samples of the split"
        )
    if stems in by_position:
        named = f"name the files by frame, like {_example(names)}"
        published_order.refuse_other(out_of_order, f"{folder} holds files by number, {stems[0]} and so on: it", named)
    twice = next((stem for stem in stems if len(found[stem]) > 1), None)
    if twice is not None:
        raise ConfigError(f"{folder} has two predictions of one sample, {' and '.join(p.name for p in found[twice])}: remove one")
    return [found[stem][0] for stem in stems]


def _naming_schemes(names: Sequence[str]) -> tuple[list[list[str]], list[list[str]]]:
    """File stems of all samples, for each naming scheme: by frame, if those names are unique, and by position."""
    by_line = ["_".join(name.split("/")[-1].split()) for name in names]
    by_image = [name.split()[-1].split("/")[-1] for name in names]  # for lines that start with a folder
    by_frame = [scheme for scheme in (by_image, by_line) if len(set(scheme)) == len(names)]
    return by_frame, [[f"{index:0{width}d}" for index in range(len(names))] for width in WIDTHS]


def _example(names: Sequence[str]) -> str:
    return f"{_naming_schemes(names)[0][0][0]}.npy"


def _read(path: Path) -> np.ndarray:
    if path.suffix.lower() == ".npy":
        return _load(path)
    return read_annotated(path, "write 256 x the values in 16 bits there, or the values themselves into an .npy")


def _load(path: Path) -> np.ndarray:
    """A memory-mapped array; never unpickled."""
    try:
        return load_array(path)
    except UnreadableFrame as error:
        raise ConfigError(f"{path} is not a complete array of numbers: objects are not unpickled, archives not opened") from error


def _checked(values: np.ndarray, kind: str, where: str) -> Float32[np.ndarray, "h w"]:
    """Inverse depth from the values of a file."""
    if values.dtype.kind not in "fiu":
        raise ConfigError(f"{where} has {values.dtype} values, not numbers")
    with np.errstate(over="ignore"):
        values = np.asarray(values).squeeze().astype(np.float32)
    if values.ndim != 2:
        raise ConfigError(f"{where} has shape {list(values.shape)}, not that of a map (h, w)")
    smallest = np.finfo(np.float32).tiny  # whose inverse is finite
    for problem, wrong in (("NaN or infinite", ~np.isfinite(values)), ("zero or negative", values < smallest)):
        if wrong.any():
            v, u = np.argwhere(wrong)[0]
            raise ConfigError(
                f"{where}: {wrong.sum():,} of {wrong.size:,} values are {problem}, the first in row {v}, column {u}; "
                f"a {kind} is needed at every pixel"
            )
    return 1 / values if kind == "depth" else values


def check_view(
    inverse_depth: Float[np.ndarray, "h w"], truth: Float[np.ndarray, "H W"], where: str, trained: tuple[int, int]
) -> None:
    """Checks that a map shows the same part of the image as the ground truth.

    Args:
      trained: (height, width) of ``config.data``; a network may see the whole image at other proportions.

    Raises:
      ConfigError: it has the size of a crop in use, the same width but another height, or other proportions.
    """
    (height, width), (rows, columns) = inverse_depth.shape, truth.shape
    sizes = f"the prediction for {where} has {height} x {width} pixels, its ground truth {rows} x {columns}"
    found = crops.named(inverse_depth.shape, truth.shape)
    if found:
        places = [f"[{v.start}:{v.stop}, {u.start}:{u.stop}] ({name})" for name, (v, u) in found.items()]
        raise ConfigError(
            f"{sizes}, which is the size of a crop: write each map to its place in a map of the whole image, "
            f"{' or '.join(places)}, any positive number elsewhere, and score only what lies inside (--crop)"
        )
    if width == columns and height != rows:
        raise ConfigError(f"{sizes}: both must show the same part of the image")
    if not any(same_proportions(inverse_depth.shape, other) for other in (truth.shape, trained)):
        raise ConfigError(
            f"{sizes}, other proportions: predict the whole image; if a network saw all of it at other proportions, say so by "
            "--config.data.height and --config.data.width"
        )


def check_kind(
    predictions: InverseDepth,
    truth_of: Callable[[int], GroundTruth | None],
    samples: Sequence[int],
    kind: str,
    config: EvalConfig,
) -> None:
    """Checks for a few samples that predicted and true depth rise together, in logarithms.

    Raises:
      ConfigError: one falls where the other rises, so that the maps are the other one of :data:`KINDS`.
    """
    found = []
    for index in samples:
        truth = truth_of(index)
        valid = np.zeros(()) if truth is None else metrics.valid_pixels(truth.depth, config)
        if valid.sum() >= ENOUGH:
            predicted = metrics.depth_at(predictions(index), valid.shape, config)[valid]
            pair = np.log(predicted), np.log(truth.depth[valid])
            if min(map(np.ptp, pair)) > 0:
                found.append(np.corrcoef(*pair)[0, 1])
    if found and np.mean(found) < OPPOSITE:
        other = KINDS[1 - KINDS.index(kind)]
        raise ConfigError(
            f"--predictions_are={kind} is wrong: the predicted depth falls where the true depth rises (correlation "
            f"{np.mean(found):.2f} over {len(found)} images): set --predictions_are={other}"
        )
