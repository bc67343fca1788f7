"""The order of frames by their file names: by time where the names are time stamps, otherwise by the numbers in them."""

import datetime
import logging
import re
from collections.abc import Iterable, Sequence
from decimal import Decimal
from pathlib import Path

from dd_jax.runtime.files import natural_key

log = logging.getLogger(__name__)

SECONDS = re.compile(r"(?<![\d.])(\d{9,10}\.\d+)(?![\d.])")
"""Unix time with a fraction, as in TUM's RGB-D data: 1341846313.592026."""

UNITS = re.compile(r"(?<![\d.])(\d{13}|\d{16}|\d{19})(?![\d.])")
"""Unix time in milliseconds, microseconds (EuRoC: nanoseconds)."""

DATE = re.compile(
    r"(?<!\d)(?:((?:19|20)\d\d)(\d\d)(\d\d)[-_T ]?(\d\d)(\d\d)(\d\d)"
    r"|((?:19|20)\d\d)[-_.](\d\d)[-_.](\d\d)[-_. T]+(\d\d)[-_.:h](\d\d)[-_.:m](\d\d))"
    r"(?:[.,](\d+)|[-_](\d{3}|\d{6}|\d{9}))?(?!\d)"
)
"""Year, month, day, hour, minute, second and a fraction: 2024-01-02T10-11-12.5, 20240102_101112_500."""

DATE_YEAR_LAST = re.compile(
    r"(?<!\d)(\d\d)[-_.](\d\d)[-_.]((?:19|20)\d\d)[-_. T]*(\d\d)[-_.:h]?(\d\d)[-_.:m]?(\d\d)(?:[.,](\d+))?(?!\d)"
)
"""The same as 02-01-2024_10-11-12; which of the first two is the day, the names do not say."""

NUMBER = re.compile(r"\d+")
WITH_POINT = re.compile(r"(?<![\d.])(\d+)\.(\d+)(?![\d.])")


def in_order(names: Iterable[str], where: Path | str) -> list[str]:
    """File names in the order of their frames; warns if it is a guess. ``where`` names the folder in messages."""
    names = sorted(names, key=natural_key)
    stems = [Path(name).stem for name in names]
    stamps = stamps_of(stems)
    if stamps is not None:
        return [names[place] for place in sorted(range(len(names)), key=stamps.__getitem__)]
    doubt = _doubt(stems)
    if doubt:
        log.warning(
            "the order of the frames in %s is a guess, %s ... %s: %s; if it is wrong, give them names that differ in one number",
            where, names[0], names[-1], doubt,
        )  # fmt: skip
    return names


def stamps_of(stems: Sequence[str]) -> list[Decimal] | None:
    """The time in seconds that each file name (without suffix) states; None unless all do, and agree in the rest."""
    for pattern, read in ((SECONDS, _seconds), (DATE, _date), (UNITS, _units)):
        found = [pattern.search(stem) for stem in stems]
        if not all(found) or len({(stem[: one.start()], stem[one.end() :]) for stem, one in zip(stems, found)}) > 1:
            continue
        try:
            return [read(one) for one in found]
        except ValueError:  # no such date
            continue
    return None


def _seconds(found: re.Match) -> Decimal:
    return Decimal(found[1])


def _units(found: re.Match) -> Decimal:
    return Decimal(found[1]) / 10 ** (len(found[1]) - 10)


def _date(found: re.Match) -> Decimal:
    *words, fraction, digits = found.groups()
    time = datetime.datetime(*(int(word) for word in words if word is not None), tzinfo=datetime.UTC)
    return Decimal(int(time.timestamp())) + Decimal(f"0.{fraction or digits or 0}")


def _doubt(stems: Sequence[str]) -> str:
    """Why the order of these names is not certain; "" if it is."""
    if len({NUMBER.sub("0", stem) for stem in stems}) > 1:
        return "the names differ in more than numbers"
    dates = [DATE_YEAR_LAST.search(stem) for stem in stems]
    if all(dates) and len({one.group(1, 2, 3) for one in dates}) > 1:
        return "the year of the dates comes last, so they are not in the order of time"
    fractions = [[len(fraction) for _, fraction in WITH_POINT.findall(stem)] for stem in stems]
    if any(lengths != fractions[0] for lengths in fractions):
        return "the numbers after the point have different lengths and were taken as whole numbers, so that .9 precedes .10"
    return ""
