"""Ground truth of a whole split in one ``.npz``, so that evaluation needs no laser scans.

* This library's format: ``names`` (lines of the split) and a plain float array ``depth_000000``, ... for each.
* Monodepth2's ``gt_depths.npz``: one array ``data`` in the order of the list. With images of several sizes it is an array of
  objects, which needs unpickling, and unpickling runs any code in the file. So it requires ``data.allow_pickle``.
"""

import contextlib
import functools
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Float32
from PIL import Image
from tqdm import tqdm

from dd_jax.config import ConfigError, DataConfig
from dd_jax.data import arrays, published_order
from dd_jax.data.frames import Listing, same_proportions

Depth = Float32[np.ndarray, "H W"]


def export(listing: Listing, kind: str, out: Path, objects: bool = False) -> int:
    """Writes the ground truth of a split to ``out`` and returns the number of frames.

    ``objects`` writes Monodepth2's format, for other programs. The file appears only when complete; its bytes depend on the
    depths only.

    Raises:
      ConfigError: no frame has ground truth; for Monodepth2's format, a frame has none or the order is not the published one;
        or ``out`` cannot be written.
    """
    if objects:
        published_order.refuse_other(listing.out_of_order, "a file with --objects", "leave out --objects")
    depths, missing, written = [], [], []
    partial = out.with_name(f".{out.name}.partial")
    try:
        partial.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED, allowZip64=True) as archive:
            for index, name in enumerate(tqdm(listing.names, desc=out.name, unit="frame", disable=None)):
                depth = listing.measured(index, kind)
                if depth is None:
                    missing.append(name)
                elif objects:
                    depths.append(depth)
                else:
                    _write(archive, f"depth_{len(written):06d}", depth)
                    written.append(name)
            if missing and (objects or not written):
                raise ConfigError(
                    f"{len(missing)} of {len(listing.names)} frames below {listing.root} have no {kind} ground truth, the first "
                    f"is {missing[0]!r}: unpack it, or choose another kind"
                )
            if objects:
                data = np.empty(len(depths), object)
                for index, depth in enumerate(depths):  # a single assignment would stack images of equal size
                    data[index] = depth
                _write(archive, "data", data)
            else:
                _write(archive, "names", np.array(written))
        partial.replace(out)
    except OSError as error:
        raise ConfigError(f"{out} cannot be written ({error.strerror or error}): name another file with --out") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()
    return len(listing.names) - len(missing)


def of_split(config: DataConfig, part: str, names: list[str], out_of_order: str) -> Callable[[int], Depth | None]:
    """Depth by position in ``names`` from ``config.ground_truth_file``; None if the file has none.

    A file without names is for "test" only, in the order of its list; ``out_of_order`` as in ``Listing``.

    Raises:
      ConfigError: the file is absent, damaged, pickled without permission, of another split, or of another order.
    """
    if not config.ground_truth_file:
        return lambda index: None
    path = Path(config.ground_truth_file)
    members = _members(path)
    if "names" in members:
        known = {str(name): index for index, name in enumerate(_load(path, "names").reshape(-1))}
        if part == "test" and not any(name in known for name in names):
            raise ConfigError(f"{path} has none of the {len(names)} test frames, like {names[0]!r}: export that split's")
        return lambda index: _depth(path, f"depth_{known[names[index]]:06d}") if names[index] in known else None
    if "data" not in members:
        raise ConfigError(f"{path} contains neither names nor data: write it with scripts/export_ground_truth.py")
    if part != "test":
        return lambda index: None
    published_order.refuse_other(out_of_order, f"{path} has no names: it", "write one with scripts/export_ground_truth.py")
    shape, dtype = members["data"]
    if dtype.hasobject and not config.allow_pickle:
        raise ConfigError(
            f"{path} holds pickled objects, and reading them runs any code in the file: set "
            "--config.data.allow_pickle=True if you trust it, or write a plain one with scripts/export_ground_truth.py"
        )
    if shape[:1] != (len(names),):
        raise ConfigError(
            f"{path} has depths of {shape[0] if shape else 0} frames, in the order of a list of as many, but the test split has "
            f"{len(names)}: put that list into --config.data.split_dir"
        )
    data = functools.cache(lambda: _load(path, "data", dtype.hasobject))
    return lambda index: _sound(data()[index], path, f"data[{index}]")


def checked_view(depth: Depth, image: Path) -> Depth:
    """``depth``, if it shows the whole of its image; images may have been resized, and unreadable ones are reported elsewhere.

    Raises:
      ConfigError: it has other proportions, or it is smaller and not to scale, as KITTI's benchmark crop of 352 x 1216 is.
    """
    try:
        with Image.open(image) as file:
            size = file.height, file.width
    except OSError:
        return depth
    (rows, columns), (height, width) = depth.shape, size
    to_scale = abs(rows * width / (columns * height) - 1) < 0.01
    if not same_proportions(depth.shape, size) or (rows < height and columns < width and not to_scale):
        raise ConfigError(
            f"the ground truth of {image} has {rows} x {columns} pixels and its image {height} x {width}: it shows another part "
            "of it; take depth of the whole image, 0 where it is unknown"
        )
    return depth


def _write(archive: zipfile.ZipFile, name: str, array: np.ndarray) -> None:
    member = zipfile.ZipInfo(f"{name}.npy")  # with a fixed date
    member.compress_type = archive.compression
    with archive.open(member, "w", force_zip64=True) as file:
        np.lib.format.write_array(file, array, allow_pickle=array.dtype.hasobject)


def _members(path: Path) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Names of the arrays in a file; for ``names`` and ``data`` also shape and type, read from their heads only."""
    if not path.is_file():
        raise ConfigError(f"--config.data.ground_truth_file={os.fspath(path)!r} does not exist")
    try:
        with zipfile.ZipFile(path) as archive:
            members = {name.removesuffix(".npy"): ((), np.dtype(float)) for name in archive.namelist()}
            for name in {"names", "data"} & {*members}:
                with archive.open(f"{name}.npy") as file:
                    members[name] = arrays.head(file)
    except Exception as error:  # damaged, encrypted, or compressed by an unknown method
        raise _damaged(path) from error
    return members


def _load(path: Path, name: str, allow_pickle: bool = False) -> np.ndarray:
    try:
        if allow_pickle:  # with the user's leave, see data.allow_pickle
            with np.load(path, allow_pickle=True) as members:
                return members[name]
        with zipfile.ZipFile(path) as archive:
            return arrays.load_member(archive, name)
    except Exception as error:  # unpickling raises anything
        raise _damaged(path, name) from error


def _depth(path: Path, name: str) -> Depth:
    return _sound(_load(path, name), path, name)


def _sound(depth: np.ndarray, path: Path, name: str) -> Depth:
    depth = np.asarray(depth)
    if depth.ndim == 2 and depth.size and depth.dtype.kind in "fiu":
        with np.errstate(over="ignore", invalid="ignore"):
            depth = depth.astype(np.float32)
        if np.isfinite(depth).all():
            return depth
    raise ConfigError(f"{path}: {name} is not a map of finite depths: write it again with scripts/export_ground_truth.py")


def _damaged(path: Path, name: str = "") -> ConfigError:
    where = f" ({name})" if name else ""
    return ConfigError(f"{path} is damaged or not an .npz file{where}: write it again with scripts/export_ground_truth.py")
