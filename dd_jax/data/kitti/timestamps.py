"""KITTI's time stamps: ``timestamps.txt`` beside the images of a drive, ``times.txt`` of an odometry sequence."""

import datetime
import itertools
import logging
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

log = logging.getLogger(__name__)

LATEST = 10**12
"""Seconds; far beyond all calendars."""

RATE = 10
"""Frames per second of KITTI's cameras, nearly."""


def seconds_of(path: Path, names: Sequence[str]) -> list[Decimal] | None:
    """The time in seconds of frames, by the lines of a file; ``names`` are those of the frames in order, without suffix.

    Frame n has line n; a file with a line per frame also fits a part of a drive whose first frames are absent. If the file is
    absent or does not fit, a warning says so, and the frame's number and :data:`RATE` give the time; None for other names.
    """
    if not all(map(str.isdecimal, names)):
        return None
    numbers = [int(name) for name in names]
    try:
        return _fitting([_seconds(line) for line in path.read_text().splitlines() if line.strip()], numbers)
    except FileNotFoundError:
        reason = "does not exist"
    except (OSError, ValueError, ArithmeticError) as error:
        reason = f"does not fit the frames ({error})"
    log.warning("%s %s: %d frames per second are assumed, give --rate if it was another", path, reason, RATE)
    return [Decimal(number) / RATE for number in numbers]


def _fitting(times: list[Decimal], numbers: list[int]) -> list[Decimal]:
    if max(numbers) >= len(times) != len(numbers):
        raise ValueError(f"it has {len(times)} lines, but there is a frame {max(numbers)}")
    chosen = times if max(numbers) >= len(times) else [times[number] for number in numbers]
    for number, (earlier, later) in zip(numbers, itertools.pairwise(chosen)):
        if later <= earlier:
            raise ValueError(f"the time after frame {number} does not increase")
    return chosen


def _seconds(line: str) -> Decimal:
    """Of ``2011-09-26 13:02:25.964389445``, or of a number."""
    day, clock = 0, f"0:0:{line.strip()}"
    if ":" in line:
        date, clock = line.split()
        day = datetime.date.fromisoformat(date).toordinal()
    hours, minutes, seconds = clock.split(":")
    found = 3600 * (24 * Decimal(day) + int(hours)) + 60 * int(minutes) + Decimal(seconds)
    if not abs(found) < LATEST:
        raise ValueError(f"{found:.3e} seconds are no time")
    return found
