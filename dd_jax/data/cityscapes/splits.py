"""Cityscapes' splits: from published list files, or by rule without them.

By rule, train and val together are all frames of the 18 official training cities with both neighbours (the union of ManyDepth's
lists); about one in ten, chosen by a digest of its name, is val. The test set is the 1,525 annotated test frames.
"""

import hashlib
import logging
from collections.abc import Iterable
from pathlib import Path

from dd_jax.config import ConfigError
from dd_jax.data.cityscapes.files import Entry
from dd_jax.data.splits import list_digest, read_cityscapes

log = logging.getLogger(__name__)

VAL_SHARE = 10

UNION = (77_352, "716aa8ae5394b5e97c0229579c852df9daf571ccc766e12a541577a40702852c")
"""Count and digest of the union of ManyDepth's cityscapes_preprocessed lists, which the rule must reproduce."""

CITIES = {
    *("aachen", "bochum", "bremen", "cologne", "darmstadt", "dusseldorf", "erfurt", "hamburg", "hanover", "jena", "krefeld"),
    *("monchengladbach", "strasbourg", "stuttgart", "tubingen", "ulm", "weimar", "zurich"),
}
"""The official training cities."""

PUBLISHED = {
    69_731: ("c936a0efa3b825d9c30558031074f9339979994402d79cf7a885b16e5fdcd622", "ManyDepth's train list"),
    7_621: ("2eed814c5f6af84dda7b6c6daaa0df165aa8744e39ad15b0934c7e03c17fd184", "ManyDepth's val list"),
    52_619: ("385d35d27502f31b113fa416924ef50c3eba250a0e2d8ff870abd5d20319fdce", "DynamicDepth's train list"),
    5_716: ("9907650bcb39696706a23ba1553f4b32385554efa7037b84e18c2cb7c2d48398", "DynamicDepth's val list"),
    1_525: ("6bea022f5cd40b6e380768d539fc5140a2ef10a04859ab0b243dfa6d25d890f3", "the test list"),
}
"""Number of lines of the public lists -> digest of their set, and their name."""

TEST_ORDER = "e70c04ba9d091d11"
"""Start of the digest of the public test list in order, which numbers the published ``gt_depths``."""


def line(entry: Entry) -> str:
    """``CITY CITY_SSSSSS_FFFFFF``."""
    city, sequence, number = entry
    return f"{city} {city}_{sequence}_{number:06d}"


def digest(entries: Iterable[Entry], ordered: bool = False) -> str:
    """SHA-256 of the lines, unique and sorted unless ``ordered``."""
    return list_digest(map(line, entries), ordered)


def in_val(entry: Entry) -> bool:
    """Whether the rule puts a frame into val: a tenth of all frames, independent of the others."""
    city, sequence, number = entry
    drawn = hashlib.sha1(f"{city}_{sequence} {number}".encode(), usedforsecurity=False).hexdigest()[:8]
    return int(drawn, 16) % VAL_SHARE == 0


def draw(entries: list[Entry], split: str, frame_step: int = 1) -> list[Entry]:
    """The "train" or "val" part of all triplets; warns if these are not those of the complete data set, known for step 1."""
    if frame_step == 1 and {city for city, _, _ in entries} == CITIES and (len(entries), digest(entries)) != UNION:
        log.warning(
            "the 18 training cities give %d triplets, but the complete data set would give %d: frames are missing or "
            "surplus, so results are only roughly comparable with published ones",
            len(entries),
            UNION[0],
        )
    return [entry for entry in entries if in_val(entry) == (split == "val")]


def read_list(path: Path) -> list[Entry]:
    """The entries of a list file, in its order.

    Raises:
      ConfigError: the file is absent or empty, or a line has another format.
    """
    entries = read_cityscapes(path)
    odd = next((city for city, _, _ in entries if not city.isalnum()), None)
    if odd is not None:
        raise ConfigError(f"{path}: {odd!r} is not a city: lines must be 'CITY CITY_SSSSSS_FFFFFF'")
    known, name = PUBLISHED.get(len(entries), ("", ""))
    if known and digest(entries) != known:
        log.warning("%s has as many lines as %s but other frames: download it again if it should be that list", path, name)
    return entries
