"""KITTI's published splits by name: from the published lists if present, otherwise from rules and tables.

A list is expected at ``{split_dir or ROOT/splits}/eigen_zhou/train_files.txt``, as in the public repositories, or there without
the folder ``eigen_zhou``. Its set is compared with the published one: missing frames, or another division into train and val,
cause a warning. So do frames that do not belong to the split, but in a folder of its name they are refused.

Without a list, the set is derived by a rule. The published "val" is a random tenth and cannot be derived; val is a tenth by
:func:`in_val` (both cameras of an instant on the same side), the rest is train, with a warning. The sets of "test" are exact;
their published order, which depth files of other programs depend on, is in the lists only.
"""

import hashlib
import logging
from collections.abc import Callable, Iterable
from pathlib import Path

from dd_jax.config import ConfigError, DataConfig
from dd_jax.data.kitti.split_tables import EIGEN_TEST, EIGEN_TRAIN, KNOWN, ODOMETRY_TEST, ODOMETRY_TRAIN, EigenTest, EigenTrain
from dd_jax.data.splits import list_digest, read_kitti, split_file, split_folder

log = logging.getLogger(__name__)

Entry = tuple[str, int, int]  # folder (raw: date/drive_sync, odometry: number of the sequence), frame, camera

LEFT, RIGHT = 2, 3

LISTS = {
    "eigen_zhou": ("eigen_zhou", ("eigen/test_files.txt",)),
    "eigen_full": ("eigen_full", ("eigen/test_files.txt",)),
    "benchmark": ("benchmark", ("eigen_benchmark/test_files.txt",)),
    "odom": ("odom", ("odom/test_files_09.txt", "odom/test_files_10.txt")),
}
"""Value of ``data.split`` -> folder of its train and val lists, and its test lists."""

COPY = "copy it from the splits folder of the public Monodepth2 or ManyDepth repository"


def read(config: DataConfig, part: str, exists: Callable[[str, int, int], bool] | None = None) -> tuple[list[Entry], str]:
    """The frames of "train", "val" or "test" of ``config.split``, and their source for messages.

    Args:
      exists: if given, frames of a rule of which it is False are left out, with a warning; those of a list never.

    Raises:
      ConfigError: the split needs a list that is absent, or the list is damaged or of another split.
    """
    if not config.split:
        path = split_file(config, part)
        return read_kitti(path), str(path)
    if config.split not in LISTS:
        raise ConfigError(f"--config.data.split={config.split!r} is not one of {', '.join(map(repr, ('', *LISTS)))}")
    if config.split == "benchmark" and part == "train":
        log.warning("data.split=benchmark trains on drives of the Eigen test split: do not report Eigen metrics of this run")
    folder, tests = LISTS[config.split]
    lists = tests if part == "test" else (f"{folder}/{part}_files.txt",)
    found = [(name, _find(config, name)) for name in lists]
    entries = [entry for name, path in found for entry in (_by_rule(config, name) if path is None else _checked(path, name))]
    if exists is not None and all(path is None for _, path in found):
        entries = _existing(entries, exists, config)
    return entries, " and ".join(name if path is None else str(path) for name, path in found)


def lines(entries: Iterable[Entry]) -> list[str]:
    """The entries as lines of a split file, frames as plain integers."""
    return [f"{folder} {frame} {'lr'[camera - LEFT]}" for folder, frame, camera in entries]


def digest(entries: Iterable[Entry]) -> str:
    """SHA-256 of the set of lines, as in ``split_tables.KNOWN``."""
    return list_digest(lines(entries))


def in_val(drive: str, frame: int) -> bool:
    """This library's pseudo-random choice of one frame in ten."""
    return int(hashlib.sha1(f"{drive} {frame}".encode()).hexdigest()[:8], 16) % 10 == 0


def eigen_test() -> list[Entry]:
    """The 697 test frames of Eigen et al. (2014), left camera."""
    return [(_folder(drive), frame, LEFT) for drive in EIGEN_TEST for frame in _test_frames(drive)]


def eigen_benchmark() -> list[Entry]:
    """The 652 of them with improved ground truth."""
    return [
        (_folder(drive), frame, LEFT) for drive in EIGEN_TEST for frame in _test_frames(drive) if frame not in numbers(drive.bare)
    ]


def eigen_zhou() -> list[Entry]:
    """Train and val of Zhou et al. (2017): frames with both neighbours, without static frames."""
    return _both_cameras((_folder(d), sorted({*range(1, d.length - 1)} - {*numbers(d.static)})) for d in EIGEN_TRAIN)


def eigen_full() -> list[Entry]:
    """Train and val of the full Eigen split: every frame of the training drives."""
    return _both_cameras((_folder(drive), range(drive.length)) for drive in EIGEN_TRAIN)


def odometry() -> list[Entry]:
    """Train and val of the odometry split: sequences 00 to 08 without the first and the last two frames."""
    return _both_cameras((str(number), range(2, length - 2)) for number, length in enumerate(ODOMETRY_TRAIN))


def odometry_test(number: int) -> list[Entry]:
    """First frames of all pairs of sequence 9 or 10, left camera."""
    return [(str(number), frame, LEFT) for frame in range(ODOMETRY_TEST[number])]


def numbers(text: str, step: int = 1) -> list[int]:
    """The numbers in ``"3 10-14"``: ranges with this step, ends included."""
    ranges = (word.partition("-") for word in text.split())
    return [number for first, _, last in ranges for number in range(int(first), int(last or first) + 1, step)]


def _folder(drive: EigenTest | EigenTrain) -> str:
    return f"{drive.date}/{drive.date}_drive_{drive.number:04d}_sync"


def _test_frames(drive: EigenTest) -> list[int]:
    skipped = numbers(drive.skipped)
    return [frame for frame in numbers(drive.frames, drive.step) if frame not in skipped]


def _both_cameras(drives: Iterable[tuple[str, Iterable[int]]]) -> list[Entry]:
    return [(folder, frame, camera) for folder, frames in drives for frame in frames for camera in (LEFT, RIGHT)]


def _whole(name: str) -> list[Entry] | None:
    """The set of the published list ``name`` (test), or of train and val together; None if unknown."""
    match name.split("/"):
        case "eigen", _:
            return eigen_test()
        case "eigen_benchmark", _:
            return eigen_benchmark()
        case "eigen_zhou", _:
            return eigen_zhou()
        case "eigen_full", _:
            return eigen_full()
        case "odom", "test_files_09.txt":
            return odometry_test(9)
        case "odom", "test_files_10.txt":
            return odometry_test(10)
        case "odom", _:
            return odometry()
    return None


def _existing(entries: list[Entry], exists: Callable[[str, int, int], bool], config: DataConfig) -> list[Entry]:
    """The entries that exist; all if none does, so that the caller names what is absent."""
    found = [entry for entry in entries if exists(*entry)]
    if 0 < len(found) < len(entries):
        log.warning("%s: %d of the %d published frames are below %s", config.split, len(found), len(entries), config.root)
    return found or entries


def _find(config: DataConfig, name: str) -> Path | None:
    base = split_folder(config)
    return next((path for path in (base / name, base / Path(name).name) if path.is_file()), None)


def _checked(path: Path, name: str) -> list[Entry]:
    """The entries of the list ``path``, checked against the published ``name``."""
    entries, known, whole = read_kitti(path), KNOWN[name], _whole(name)
    if name.startswith("odom/"):
        entries = [(folder.lstrip("0") or "0", frame, camera) for folder, frame, camera in entries]
    found = digest(entries)
    if found == known.digest:
        return entries
    foreign = [] if whole is None else sorted({*entries} - {*whole})
    if foreign:
        problem = (
            f"{path}: {len(foreign)} of {len(entries)} frames do not belong to the split of {name}, the first is "
            f"{lines(foreign)[0]!r}: {COPY}, or set --config.data.split='' to use your own lists"
        )
        numbered = all(folder.isdigit() for folder, _, _ in foreign)  # sequences of the odometry
        if path.parent.name == name.split("/")[0] or numbered != name.startswith("odom/"):
            raise ConfigError(problem)
        log.warning(problem)
        return entries
    log.warning(
        "%s has %d frames with the digest %.8s, but the published %s has %d with %.8s: for comparable metrics, %s",
        path, len(entries), found, name, known.lines, known.digest, COPY,
    )  # fmt: skip
    return entries


def _by_rule(config: DataConfig, name: str) -> list[Entry]:
    """The entries of an absent list."""
    whole, base = _whole(name), split_folder(config)
    if "/test" in name:
        return whole
    part, other = ("train", "val") if "/train" in name else ("val", "train")
    sibling = _find(config, name.replace(part, other))
    if whole is None or sibling is not None or config.split_dir:
        there = f", but {sibling} does" if sibling is not None else ""
        raise ConfigError(
            f"the split file {base / name} does not exist{there}: how {config.split} is divided into train and val can't be "
            f"derived, so {COPY}" + ("" if whole is None else ", or leave out both files and --config.data.split_dir")
        )
    log.warning(
        "%s: train and val together are the published frames, but divided differently, since the division can't be derived: "
        "for the published one put %s there",
        config.split, base / name,
    )  # fmt: skip
    return [entry for entry in whole if in_val(entry[0].split("/")[-1], entry[1]) == (part == "val")]
