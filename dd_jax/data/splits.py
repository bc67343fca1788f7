"""Which frames belong to a split: the field's list files."""

from pathlib import Path

from dd_jax.config import ConfigError, DataConfig

SIDES = {"l": 2, "r": 3, "2": 2, "3": 3}
"""KITTI's colour cameras, by the letters and digits in use."""


def split_file(config: DataConfig, split: str) -> Path:
    """``{split_dir or ROOT/splits}/{split}_files.txt``.

    Raises:
      ConfigError: the root is not a folder.
    """
    root = Path(config.root)
    if not root.is_dir():
        raise ConfigError(f"--config.data.root={config.root!r} is not a folder")
    return (Path(config.split_dir) if config.split_dir else root / "splits") / f"{split}_files.txt"


def read_lines(path: Path) -> list[tuple[int, list[str]]]:
    """(line number, words) of every line that is not blank.

    Raises:
      ConfigError: no such file, or no line in it.
    """
    if not path.is_file():
        raise ConfigError(f"the split file {path} does not exist: put it there, or name its folder with --config.data.split_dir")
    lines = [(number, line.split()) for number, line in enumerate(path.read_text().splitlines(), start=1)]
    lines = [line for line in lines if line[1]]
    if not lines:
        raise ConfigError(f"the split file {path} is empty: list frames in it, or choose another --config.data.split_dir")
    return lines


def read_kitti(path: Path) -> list[tuple[str, int, int]]:
    """(folder, frame, camera) from lines ``date/drive_sync FRAME l|r`` (also 2, 3).

    Raises:
      ConfigError: no such file, no lines, or a line that reads otherwise.
    """
    entries = []
    for number, words in read_lines(path):
        if len(words) != 3 or not words[1].isdigit() or words[2] not in SIDES:
            raise ConfigError(f"{path}:{number}: expected 'date/drive_sync FRAME l|r', found {' '.join(words)!r}")
        entries.append((words[0], int(words[1]), SIDES[words[2]]))
    return entries


def read_cityscapes(path: Path) -> list[tuple[str, str, int]]:
    """(city, sequence, frame) from lines ``CITY CITY_SSSSSS_FFFFFF``; the sequence keeps its zeros.

    Raises:
      ConfigError: no such file, no lines, or a line that reads otherwise.
    """
    entries = []
    for number, words in read_lines(path):
        parts = words[-1].split("_")
        if len(words) != 2 or len(parts) != 3 or parts[0] != words[0] or not parts[1].isdigit() or not parts[2].isdigit():
            raise ConfigError(f"{path}:{number}: expected 'CITY CITY_SSSSSS_FFFFFF', found {' '.join(words)!r}")
        entries.append((parts[0], parts[1], int(parts[2])))
    return entries


def refuse_absent(absent: list[str], total: int, path: Path) -> None:
    """Raises ConfigError if target images of the split file ``path`` are absent, naming the first."""
    if absent:
        raise ConfigError(
            f"{len(absent)} of {total} target images of {path} do not exist, the first is {absent[0]}: "
            "check --config.data.root and the split"
        )
