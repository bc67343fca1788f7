"""Makes a synthetic data set: presets, splits, worker processes, resuming."""

import concurrent.futures
import dataclasses
import json
import multiprocessing
import os
import pathlib

import cv2
import tqdm

from dd_jax.config import ConfigError
from dd_jax.data.synthetic import calibration
from dd_jax.data.synthetic.ego import MANEUVERS
from dd_jax.data.synthetic.writer import VERSION, Recipe, is_complete, write_drive
from dd_jax.runtime.files import read_json

SPLITS = ("train", "val", "test")
_FIRST_NUMBER = {"train": 9001, "val": 9501, "test": 9801}  # drive numbers that KITTI does not use
_INFO = "synthetic.json"


@dataclasses.dataclass(frozen=True)
class Preset:
    """Size of a data set; ``velodyne`` are the splits with laser scans (0.5 MB per frame)."""

    drives: tuple[int, int, int]  # train, val, test
    frames: int
    height: int
    width: int
    velodyne: tuple[str, ...] = SPLITS


PRESETS = {
    "tiny": Preset((2, 1, 1), 12, 96, 320),
    "demo": Preset((12, 2, 4), 40, 128, 416, ("val", "test")),
    "small": Preset((25, 5, 10), 60, 128, 416, ("val", "test")),
    "large": Preset((120, 10, 20), 40, 128, 416, ("val", "test")),
    "full": Preset((20, 3, 4), 100, *calibration.NATIVE),
}


def recipes(preset: str, seed: int = 0, height: int | None = None, width: int | None = None) -> list[Recipe]:
    """The drives of a data set, train first.

    Raises:
      ConfigError: unknown preset, or images too small to show a street.
    """
    if preset not in PRESETS:
        raise ConfigError(f"--preset {preset!r} is unknown; choose one of {', '.join(PRESETS)}")
    size = PRESETS[preset]
    height, width = height or size.height, width or size.width
    if height < 32 or width < 64:
        raise ConfigError(f"--height {height} --width {width} is too small to show a street: use at least 32 x 64")
    drives = []
    for number, (split, count) in enumerate(zip(SPLITS, size.drives, strict=True)):
        for i in range(count):
            drives.append(Recipe(
                name=f"{_FIRST_NUMBER[split] + i:04d}", split=split, maneuver=MANEUVERS[(i + 2 * number) % len(MANEUVERS)],
                frames=size.frames, height=height, width=width, velodyne=split in size.velodyne, seed=(seed, number, i),
            ))  # fmt: skip
    return drives


def make(
    root: str | os.PathLike, preset: str = "small", seed: int = 0, workers: int = 2,
    height: int | None = None, width: int | None = None, progress: bool = True,
) -> dict:  # fmt: skip
    """Writes the data set to ``root`` unless it exists already; completes an interrupted one.

    The files depend on preset, seed and size only, not on ``workers``. Returns the content of ``synthetic.json``:
    the settings of the set and the statistics of every drive.

    Raises:
      ConfigError: ``root`` holds other data, or the preset or size is invalid.
    """
    root = pathlib.Path(root)
    drives = recipes(preset, seed, height, width)
    identity = {
        "preset": preset, "seed": seed, "height": drives[0].height, "width": drives[0].width, "version": VERSION,
    }  # fmt: skip
    known = _read_info(root)
    if known is not None and {k: known.get(k) for k in identity} != identity:
        raise ConfigError(f"{root} holds another synthetic data set ({_describe(known)}); choose another folder or delete it")
    if known is None and (root / calibration.DATE).exists():
        raise ConfigError(f"{root} holds data that are not synthetic; choose another folder")
    if known is not None and known.get("complete") and all(is_complete(root, drive) for drive in drives):
        return known
    (root / calibration.DATE).mkdir(parents=True, exist_ok=True)
    _replace(root / _INFO, json.dumps({**identity, "complete": False}))
    for name, text in calibration.files(drives[0].height, drives[0].width).items():
        _replace(root / calibration.DATE / name, text)
    _write_all(root, [drive for drive in drives if not is_complete(root, drive)], workers, progress)
    for split in SPLITS:
        lines = [f"{d.folder} {t} l\n" for d in drives if d.split == split for t in range(1, d.frames - 1)]
        (root / "splits").mkdir(exist_ok=True)
        _replace(root / "splits" / f"{split}_files.txt", "".join(lines))
    statistics = {d.name: read_json(root / d.folder / "drive.json")["statistics"] for d in drives}
    info = {**identity, "complete": True, "drives": statistics}
    _replace(root / _INFO, json.dumps(info, indent=1))
    return info


def _write_all(root: pathlib.Path, drives: list[Recipe], workers: int, progress: bool) -> None:
    bar = tqdm.tqdm(total=sum(d.frames for d in drives), unit="frame", desc="synthetic drives", disable=not progress)
    with bar:
        if workers <= 1 or len(drives) <= 1:
            for drive in drives:
                write_drive(root, drive)
                bar.update(drive.frames)
            return
        context = multiprocessing.get_context("spawn")
        workers = min(workers, len(drives))
        with concurrent.futures.ProcessPoolExecutor(workers, mp_context=context, initializer=_one_thread) as pool:
            jobs = {pool.submit(write_drive, root, drive): drive for drive in drives}
            for job in concurrent.futures.as_completed(jobs):
                job.result()
                bar.update(jobs[job].frames)


def _one_thread() -> None:
    cv2.setNumThreads(1)  # there is a process per core already


def _read_info(root: pathlib.Path) -> dict | None:
    try:
        info = read_json(root / _INFO)
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ConfigError(f"{root / _INFO} is not readable ({error}); delete the folder and start again") from error
    if not isinstance(info, dict):
        raise ConfigError(f"{root / _INFO} is not the note of rendered drives; delete the folder and start again")
    return info


def _describe(info: dict) -> str:
    return ", ".join(f"{k} {info.get(k)}" for k in ("preset", "seed", "height", "width", "version"))


def _replace(path: pathlib.Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text)
    partial.replace(path)
