"""Files that are named as frames: object masks, ground truth, speeds. They are optional, but never silently absent."""

import logging
from collections.abc import Sequence
from pathlib import Path

from dd_jax.config import ConfigError

log = logging.getLogger(__name__)


def require_names(folder: Path, names: Sequence[str], suffixes: Sequence[str], kind: str, flag: str, otherwise: str) -> None:
    """Checks that files in ``folder`` have the names of frames; warns if some frames have none.

    Args:
      names: of the frames, without suffix.
      kind: of the files in messages, in the plural.
      flag: the flag or setting that can be left out.
      otherwise: what happens to a frame without a file, the end of a sentence.

    Raises:
      ConfigError: no frame has a file.
    """
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    found = {path.stem for path in files if path.suffix in suffixes}
    missing = [name for name in names if name not in found]
    needed = " or ".join(f"{names[0]}{suffix}" for suffix in suffixes)
    if len(missing) == len(names):
        what = (
            f"none of the {len(files)} {kind} in {folder} has a frame's name: the first is {files[0].name}, and " if files else ""
        )
        raise ConfigError(
            f"{what or f'{folder} has no {kind}: '}the first frame needs {needed}: name them so, or leave out {flag}"
        )
    if missing:
        log.warning(
            "%d of %d frames have no file in %s, the first is %s: %s", len(missing), len(names), folder, missing[0], otherwise
        )
