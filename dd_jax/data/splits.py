"""Readers of split list files in the formats of Monodepth2 and ManyDepth."""

import hashlib
import logging
import re
from collections.abc import Hashable, Iterable
from pathlib import Path
from typing import TypeVar

from dd_jax.config import ConfigError, DataConfig

log = logging.getLogger(__name__)

SIDES = {"l": 2, "r": 3, "2": 2, "3": 3}
"""KITTI's colour cameras by the letters and digits used in lists."""

FRAME = re.compile(r"[0-9]{1,10}")

T = TypeVar("T", bound=Hashable)


def split_folder(config: DataConfig) -> Path:
    """``split_dir``, or ROOT/splits.

    Raises:
      ConfigError: the root is not a folder.
    """
    root = Path(config.root)
    if not root.is_dir():
        raise ConfigError(f"--config.data.root={config.root!r} is not a folder")
    return Path(config.split_dir) if config.split_dir else root / "splits"


def split_file(config: DataConfig, split: str) -> Path:
    """``{split_dir or ROOT/splits}/{split}_files.txt``; raises as :func:`split_folder`."""
    return split_folder(config) / f"{split}_files.txt"


def read_lines(path: Path) -> list[tuple[int, list[str]]]:
    """(line number, words) of every non-blank line.

    Raises:
      ConfigError: the file is absent, not text, or empty.
    """
    if not path.is_file():
        raise ConfigError(f"the split file {path} does not exist: put it there, or name its folder with --config.data.split_dir")
    try:
        text = path.read_text("utf-8-sig")  # some editors begin a file with a byte order mark
    except UnicodeDecodeError as error:
        raise ConfigError(f"the split file {path} is not text: list one frame per line in it") from error
    lines = [(number, line.split()) for number, line in enumerate(text.splitlines(), start=1)]
    lines = [line for line in lines if line[1]]
    if not lines:
        raise ConfigError(f"the split file {path} is empty: list frames in it, or choose another --config.data.split_dir")
    return lines


def read_kitti(path: Path) -> list[tuple[str, int, int]]:
    """(folder, frame, camera) from lines ``date/drive_sync FRAME l|r`` (also 2, 3).

    Raises:
      ConfigError: the file is absent or empty, or a line has another format or names a folder outside the data set.
    """
    entries = []
    for number, words in read_lines(path):
        if len(words) != 3 or not FRAME.fullmatch(words[1]) or words[2] not in SIDES:
            raise ConfigError(f"{path}:{number}: expected 'date/drive_sync FRAME l|r', found {' '.join(words)!r}")
        refuse_outside(words[0], f"{path}:{number}")
        entries.append((number, (words[0], int(words[1]), SIDES[words[2]])))
    return keep_once(entries, path)


def read_cityscapes(path: Path) -> list[tuple[str, str, int]]:
    """(city, sequence, frame) from lines ``CITY CITY_SSSSSS_FFFFFF``; the sequence keeps its zeros.

    Raises:
      ConfigError: the file is absent or empty, or a line has another format or names a folder outside the data set.
    """
    entries = []
    for number, words in read_lines(path):
        parts = words[-1].split("_")
        numbers = len(parts) == 3 and all(FRAME.fullmatch(part) for part in parts[1:])
        if len(words) != 2 or not numbers or parts[0] != words[0]:
            raise ConfigError(f"{path}:{number}: expected 'CITY CITY_SSSSSS_FFFFFF', found {' '.join(words)!r}")
        refuse_outside(words[0], f"{path}:{number}")
        entries.append((number, (parts[0], parts[1], int(parts[2]))))
    return keep_once(entries, path)


def list_digest(lines: Iterable[str], ordered: bool = False) -> str:
    """SHA-256 of a list's lines, each ended by a newline; unique and sorted unless ``ordered``."""
    lines = lines if ordered else sorted(set(lines))
    return hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()


def refuse_outside(folder: str, where: str) -> None:
    """Raises ConfigError unless ``folder`` is a plain relative path; the message begins with ``where``."""
    if "\\" in folder or "\0" in folder or any(part in ("", ".", "..") for part in folder.split("/")):
        raise ConfigError(
            f"{where}: {folder!r} is not a folder of the data set: name one below --config.data.root, without '..' and "
            "without a slash at either end"
        )


def keep_once(numbered: list[tuple[int, T]], path: Path) -> list[T]:
    """Unique entries of (line number, entry) in order; warns about repeated lines."""
    first: dict[T, int] = {}
    repeated = [(number, first[entry]) for number, entry in numbered if first.setdefault(entry, number) != number]
    if repeated:
        log.warning(
            "%s: %d lines are repetitions, the first is line %d, equal to line %d: each frame is used once; delete them",
            path, len(repeated), *repeated[0],
        )  # fmt: skip
    return list(first)


def refuse_absent(absent: list[str], total: int, source: Path | str) -> None:
    """Raises ConfigError if target images of the split (or split file) ``source`` are absent; names the first."""
    if absent:
        raise ConfigError(
            f"{len(absent)} of {total} target images of {source} do not exist, the first is {absent[0]}: "
            "check --config.data.root and the split"
        )
