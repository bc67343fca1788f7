"""Files of the Hugging Face hub by address: ``hf://owner/name``, or ``hf://owner/name@revision``; extra ``hub``."""

import re
from collections.abc import Sequence
from pathlib import Path

from dd_jax.config import ConfigError

ADDRESS = re.compile(r"hf:/{1,2}(?P<name>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?")


def is_address(place: str | Path) -> bool:
    """Whether this means a repository of the hub and no folder."""
    return str(place).startswith("hf:/")


def fetch(address: str | Path, needed: Sequence[str], wanted: Sequence[str] = ()) -> Path:
    """Local folder with files of a repository: downloaded once, then from the cache, and from there alone when offline.

    Where the cache is and whether there is a network is the hub's own business (``HF_HOME``, ``HF_HUB_OFFLINE``).

    Args:
      needed: names of files that must be there.
      wanted: of others, taken where they are there.

    Raises:
      ConfigError: no address, no package ``huggingface_hub``, no such repository or revision within reach, or a file is missing.
    """
    found = ADDRESS.fullmatch(str(address))
    if found is None:
        raise ConfigError(f"{address} is no address of the hub: write hf://owner/name, or hf://owner/name@revision")
    try:
        from huggingface_hub import errors, snapshot_download
    except ImportError as error:
        raise ConfigError(f"{address} needs the package huggingface_hub: pip install 'dd_jax[hub]'") from error
    try:
        folder = snapshot_download(found["name"], revision=found["revision"], allow_patterns=[*needed, *wanted])
    except errors.LocalEntryNotFoundError as error:
        raise ConfigError(
            f"{address} is not complete in the cache, and the hub is out of reach or HF_HUB_OFFLINE is set: "
            "load it once with a network, or name a folder"
        ) from error
    except Exception as error:  # the package hands on whatever its HTTP library raises
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".:")
        raise ConfigError(f"{address} cannot be had ({reason}): check the name and the revision, or name a folder") from error
    missing = [name for name in needed if not (Path(folder) / name).is_file()]
    if missing:
        raise ConfigError(f"{address} has no {' and no '.join(missing)}: it is another kind of repository")
    return Path(folder)
