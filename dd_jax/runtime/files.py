"""Files and folders: atomic writes, cached listings, recursive walks, natural order."""

import contextlib
import errno
import functools
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PARTIAL = ".partial"

Found = tuple[str, tuple[int, int]] | None  # path below the root and stamp (size, time); None if no file exists


def replace(path: Path, data: bytes | str) -> None:
    """Writes to a temporary name and renames it, so that a killed process leaves no partial file; creates the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}{PARTIAL}")
    partial.write_bytes(data.encode() if isinstance(data, str) else data)
    partial.replace(path)


def read_json(path: Path) -> Any:
    """Content of a JSON file.

    Raises:
      OSError: it cannot be read.
      ValueError: it is not JSON.
    """
    return parse_json(path.read_bytes())


def parse_json(text: bytes | str) -> Any:
    """The value of a JSON document.

    Raises:
      ValueError: it is not JSON in UTF-8, has half a surrogate pair, which no file name or message can contain, or is nested too
        deeply for Python's parser, which raises RecursionError.
    """
    try:
        text = text.decode("utf-8-sig") if isinstance(text, bytes) else text
        value = json.loads(text)
        if "\\ud" in text.lower():
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError as error:
        raise ValueError("its brackets are nested too deeply") from error
    except UnicodeError as error:  # whose representation contains the whole document
        raise ValueError("it is not text") from error
    return value


class Folders:
    """Names, sizes and times of the files below a root; each folder is read once, a missing folder is empty."""

    def __init__(self, root: Path):
        self.root = root
        self.stamps = functools.cache(self._stamps)

    def _stamps(self, folder: str) -> dict[str, tuple[int, int]]:
        try:
            with os.scandir(self.root / folder) as entries:
                stats = ((entry.name, entry.stat()) for entry in entries if _is_file(entry))
                return {name: (stat.st_size, stat.st_mtime_ns) for name, stat in stats}
        except (FileNotFoundError, NotADirectoryError):
            return {}

    def find(self, folder: str, *names: str) -> Found:
        """Path below the root and stamp of the first of ``names`` that exists in ``folder``."""
        stamps = self.stamps(folder)
        return next(((f"{folder}/{name}", stamps[name]) for name in names if name in stamps), None)


def _is_file(entry: os.DirEntry) -> bool:
    """False for broken links and links to themselves, for which ``entry.is_file`` raises."""
    try:
        return entry.is_file()
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        return False


def below(folder: Path, above: frozenset[Path] = frozenset()) -> Iterator[Path]:
    """All files below a folder, recursively, in the order of their names; none if the folder does not exist.

    Links to folders are followed, except to the folders ``above``, which would be a cycle; unreadable folders such as
    ``lost+found`` are skipped.
    """
    real, inside = folder.resolve(), []
    if real not in above:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
            inside = sorted(folder.iterdir())
    for path in inside:
        if path.is_dir():
            yield from below(path, above | {real})
        elif path.is_file():
            yield path


def stamp_of(path: Path) -> tuple[int, int]:
    """Size and modification time of a file; zeros if it does not exist."""
    try:
        stat = path.stat()
    except OSError:
        return 0, 0
    return stat.st_size, stat.st_mtime_ns


def natural_key(name: str) -> list[tuple[int, str]]:
    """Sort key under which ``f10`` follows ``f9``."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]
