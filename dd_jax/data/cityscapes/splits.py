"""Which Cityscapes frames train, validate and test: from the field's list files, or by rule without them.

By rule, train and val are every frame of the 18 official training cities that has both neighbours (ManyDepth's lists
together), and about one in ten, drawn by a digest of its name, is val. The test set is the 1,525 annotated test frames.
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
"""Count and digest of ManyDepth's cityscapes_preprocessed lists, train and val together: what the rule must give."""

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
"""Lines of the public lists -> digest of their set, and what they are called."""

TEST_ORDER = "e70c04ba9d091d11"
"""Start of the digest of the public test list as it is ordered, which numbers the published ``gt_depths``."""


def line(entry: Entry) -> str:
    """``CITY CITY_SSSSSS_FFFFFF``."""
    city, sequence, number = entry
    return f"{city} {city}_{sequence}_{number:06d}"


def digest(entries: Iterable[Entry], ordered: bool = False) -> str:
    """SHA-256 of the lines, one each and sorted unless ``ordered``."""
    return list_digest(map(line, entries), ordered)


def in_val(entry: Entry) -> bool:
    """Whether the rule puts a frame into val: a tenth of all, whatever else is there."""
    city, sequence, number = entry
    drawn = hashlib.sha1(f"{city}_{sequence} {number}".encode(), usedforsecurity=False).hexdigest()[:8]
    return int(drawn, 16) % VAL_SHARE == 0


def draw(entries: list[Entry], split: str) -> list[Entry]:
    """The "train" or "val" part of all triplets; says so if these are not those of the complete data set."""
    if {city for city, _, _ in entries} == CITIES and (len(entries), digest(entries)) != UNION:
        log.warning(
            "the 18 training cities give %d triplets, and the complete data set would give %d: some frames are missing or "
            "there are too many, so that results compare with published ones only roughly",
            len(entries),
            UNION[0],
        )
    return [entry for entry in entries if in_val(entry) == (split == "val")]


def read_list(path: Path) -> list[Entry]:
    """The entries of a list file, in its order.

    Raises:
      ConfigError: no such file, no lines, or a line that reads otherwise.
    """
    entries = read_cityscapes(path)
    odd = next((city for city, _, _ in entries if not city.isalnum()), None)
    if odd is not None:
        raise ConfigError(f"{path}: {odd!r} is no city: lines read 'CITY CITY_SSSSSS_FFFFFF'")
    known, name = PUBLISHED.get(len(entries), ("", ""))
    if known and digest(entries) != known:
        log.warning("%s has as many lines as %s but other frames: fetch it again if it is meant to be that", path, name)
    return entries
