"""Files of the Hugging Face hub by address, ``hf://owner/name`` or ``hf://owner/name@revision``; needs the extra ``hub``."""

import re
from collections.abc import Sequence
from pathlib import Path

from dd_jax.config import ConfigError

ADDRESS = re.compile(r"hf:/{1,2}(?P<name>\w[\w.-]*/\w[\w.-]*)(@(?P<revision>(?!.*\.\.)\w[\w./-]*))?")
"""Each name begins with a letter or digit, so that none is a way to another folder of the cache."""


def is_address(place: str | Path) -> bool:
    """Whether this is the address of a repository, not a folder."""
    return str(place).startswith("hf:/")


def fetch(address: str | Path, needed: Sequence[str], wanted: Sequence[str] = ()) -> Path:
    """Local folder with files of a repository: downloaded once, then read from the cache, also offline.

    ``huggingface_hub`` itself reads ``HF_HOME`` (place of the cache) and ``HF_HUB_OFFLINE``.

    Args:
      needed: names of required files.
      wanted: names of optional files.

    Raises:
      ConfigError: not an address, no package ``huggingface_hub``, no such repository or revision, or a missing file.
    """
    found = ADDRESS.fullmatch(str(address))
    if found is None:
        raise ConfigError(f"{address} is not an address of the hub: write hf://owner/name, or hf://owner/name@revision")
    try:
        from huggingface_hub import errors, snapshot_download
    except ImportError as error:
        raise ConfigError(f"{address} needs the package huggingface_hub: pip install -e '.[hub]'") from error
    try:
        folder = snapshot_download(found["name"], revision=found["revision"], allow_patterns=[*needed, *wanted])
    except errors.LocalEntryNotFoundError as error:
        raise ConfigError(
            f"{address} is not complete in the cache, and the hub is not reachable or HF_HUB_OFFLINE is set: "
            "load it once with a network, or name a folder"
        ) from error
    except Exception as error:  # the package passes on errors of its HTTP library
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".:")
        raise ConfigError(f"{address} cannot be downloaded ({reason}): check name and revision, or name a folder") from error
    missing = [name for name in needed if not (Path(folder) / name).is_file()]
    if missing:
        raise ConfigError(f"{address} has no {' and no '.join(missing)}: give the address of a repository with these files")
    return Path(folder)
