"""Extracts the frames of a driving video into a folder that ``--config.data.source=folder`` reads.

``video.json`` beside the images holds the settings, ``frames.csv`` the outcome of each frame. An interrupted extraction reads
both and continues after the last line.
"""

import contextlib
import csv
import dataclasses
import io
import json
import math
from pathlib import Path
from typing import TextIO

import cv2
from tqdm import tqdm

from dd_jax.config import ConfigError
from dd_jax.data import picture_faults, video_camera, video_reader
from dd_jax.data.video_camera import Image, Intrinsics
from dd_jax.prepare import motion
from dd_jax.runtime import files

MIN_MOTION = 0.001
"""Share of the width; with a smaller median motion of corners, a frame has no usable parallax."""

SETTINGS, JOURNAL = "video.json", "frames.csv"
KEPT, STATIC, REPEATED, BLANK = "kept", "static", "repeated", "blank"
UNREADABLE, RESIZED, DELETED = "unreadable", "resized", "deleted"
OUTCOMES = (KEPT, STATIC, REPEATED, BLANK, UNREADABLE, RESIZED)
"""In a journal."""

FOUND = {"rate": float, "width": int, "height": int, "camera": str, "reported": str, "missing": int}
"""Fields of "found" in the ``video.json`` of a finished extraction."""

ROUNDING = 1e-6
"""Seconds by which a time stamp may miss --start or --end."""

REMEDY = "remove the folder to extract the frames again, or choose another --out"


@dataclasses.dataclass(frozen=True)
class Row:
    """Outcome for one frame, and its difference from the last one kept (see :mod:`dd_jax.prepare.motion`)."""

    frame: int  # number in the video, from 0
    outcome: str
    """kept, or why not: static (little camera motion), repeated (equals the last one kept), blank (a single colour), unreadable,
    resized (another size than the first frame), deleted."""
    motion: float = math.nan
    parallax: float = math.nan
    sharpness: float = math.nan
    seconds: float = math.nan  # since the first frame of the video
    brightest: float = math.nan  # largest value of a pixel, to 255


@dataclasses.dataclass(frozen=True)
class Prepared:
    """Outcome for a video."""

    folder: Path
    rows: list[Row]
    rate: float  # frames per second of the video
    every: int
    width: int
    height: int
    camera: str  # a sentence about a guessed camera, else ""
    missing: int  # announced frames at the end that cannot be read
    reported: str = ""  # a sentence about the errors that the decoder reported

    def count(self, outcome: str) -> int:
        """Number of frames with this outcome."""
        return sum(row.outcome == outcome for row in self.rows)

    @property
    def kept(self) -> int:
        """Number of frames written and still present."""
        return self.count(KEPT)

    @property
    def static(self) -> int:
        """Number of frames left out because the camera hardly moved since the last one kept."""
        return self.count(STATIC)


def prepare(
    video: Path,
    out: Path,
    *,
    fov: float | None = None,
    intrinsics: Intrinsics | None = None,
    guess: bool = False,
    distortion: tuple[float, ...] = (),
    every: int = 1,
    start: float = 0.0,
    end: float = math.inf,
    min_motion: float = MIN_MOTION,
    suffix: str = "jpg",
) -> Prepared:
    """Writes ``OUT/frames/NAME/%06d.jpg`` and ``OUT/frames/NAME/intrinsics.json``; NAME is the video's.

    Takes every ``every``-th frame between ``start`` and ``end`` (seconds) and leaves out those in which the camera hardly
    moved since the last one kept. Several videos may share an ``out``: each becomes a clip. An interrupted extraction is
    continued with the same final files, a finished one is not repeated.

    Args:
      fov: horizontal field of view in degrees; or give ``intrinsics`` in pixels of the video, or ``guess``.
      distortion: k1, k2, p1, p2[, k3] by which the images are undistorted; the written intrinsics are those afterwards.

    Raises:
      ConfigError: the video cannot be read, the camera is invalid, or the clip's folder holds other files.
    """
    if (fov is not None) + (intrinsics is not None) + guess != 1:
        raise ConfigError(
            "give the camera as --intrinsics=fx,fy,cx,cy (in pixels of the video), as --fov (horizontal, in degrees), or --guess"
        )
    if distortion and (intrinsics is None or len(distortion) not in (4, 5)):
        raise ConfigError("--distortion=k1,k2,p1,p2[,k3] needs a calibrated camera: give --intrinsics=fx,fy,cx,cy with it")
    if every < 1 or not 0 <= start < end:
        raise ConfigError(f"--every={every} must be at least 1, and 0 <= --start={start:g} < --end={end:g} seconds")
    video_reader.opened(video).close()
    settings = {
        "video": video.name, "bytes": video.stat().st_size, "every": every, "start": start,
        "end": None if math.isinf(end) else end, "min_motion": min_motion, "suffix": suffix, "fov": fov,
        "intrinsics": intrinsics and list(intrinsics), "guess": guess, "distortion": list(distortion),
    }  # fmt: skip
    folder = out / "frames" / video.stem
    known = _known(folder, settings)
    if known is None:
        try:
            with contextlib.closing(_Extractor(video, folder, settings)) as extractor:
                known = _extract(video, extractor)
            files.replace(folder / SETTINGS, json.dumps(known) + "\n")
        except OSError as error:
            raise ConfigError(f"{folder} cannot be written ({error.strerror or error}): make room and run it again") from error
    there = {path.name for path in folder.iterdir()}
    rows = [
        dataclasses.replace(row, outcome=DELETED) if row.outcome == KEPT and f"{row.frame:06d}.{suffix}" not in there else row
        for row in read_journal(folder)
    ]
    return Prepared(folder, rows, every=every, **known["found"])


def read_journal(folder: Path) -> list[Row]:
    """The rows of a clip's ``frames.csv``, without an incomplete last line of a killed process.

    Raises:
      ConfigError: a complete line is invalid.
    """
    path = folder / JOURNAL
    try:
        text = path.read_text(errors="replace") if path.is_file() else ""
        whole = text[: text.rfind("\n") + 1]
        rows = [
            Row(
                int(row["frame"]),
                row["outcome"],
                *(float(row[name]) for name in ("motion", "parallax", "sharpness")),
                *(float(row.get(name, math.nan)) for name in ("seconds", "brightest")),  # files of earlier versions lack them
            )
            for row in csv.DictReader(io.StringIO(whole), strict=True)
        ]
        if not all(row.frame >= 0 and row.outcome in OUTCOMES for row in rows):
            raise ValueError("an unknown outcome")
        return rows
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise ConfigError(f"{path} is damaged ({error!r}): {REMEDY}") from error


def _known(folder: Path, settings: dict) -> dict | None:
    """Content of the ``video.json`` of a finished extraction; None if it is unfinished.

    Raises:
      ConfigError: the folder holds other files, or frames extracted with other settings.
    """
    if not folder.is_dir() or all(path.name.endswith(files.PARTIAL) for path in folder.iterdir()):
        return None
    try:
        known = files.read_json(folder / SETTINGS)
        differing = [f"{name} {known.get(name)} instead of {value}" for name, value in settings.items() if known[name] != value]
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise ConfigError(f"{folder} already holds other files than extracted frames: {REMEDY}") from error
    if differing:
        raise ConfigError(f"{folder} holds frames extracted with other settings ({', '.join(differing)}): {REMEDY}")
    if "found" not in known:
        return None
    found = known["found"]
    if isinstance(found, dict):
        found.setdefault("reported", "")  # files of earlier versions lack it
    if not isinstance(found, dict) or {name: type(value) for name, value in found.items()} != FOUND:
        raise ConfigError(f"{folder / SETTINGS} is damaged, 'found' must hold {', '.join(FOUND)}: {REMEDY}")
    return known


def _extract(video: Path, extractor: "_Extractor") -> dict:
    """Decides about every selected frame that the journal does not hold yet; returns the finished ``video.json``."""
    settings = extractor.settings
    rate, announced = video_reader.rate(video), video_reader.announced(video)
    first, last = settings["start"] - ROUNDING, (math.inf if settings["end"] is None else settings["end"]) - ROUNDING
    missing, waiting = 0, []  # ``waiting``: frames that cannot be decoded, until a later one can; at the end they are missing
    total = announced if math.isinf(last) else min(announced, math.ceil(last * rate))
    with (
        video_reader.reports() as lines,
        tqdm(total=total or None, desc=video.name, unit="frame", disable=None) as progress,
    ):
        for number, (frame, seconds) in enumerate(video_reader.decoded(video)):
            waiting.append((number, seconds))
            if frame is None:
                continue
            if seconds >= last:
                break
            for place, time in waiting:
                progress.update()
                if time >= first and place % settings["every"] == 0 and extractor.wants(place):
                    whole = place == number and not frame.is_corrupt
                    extractor.add(place, time, video_reader.pixels(frame) if whole else None)
            waiting.clear()
        else:
            missing = len(waiting) + video_reader.missing(video)
    if extractor.before is None:
        interval = f"--start={first + ROUNDING:g} and --end={last + ROUNDING:g} seconds"
        what = "no frame with more than a single colour" if extractor.blank else "no readable frame"
        raise ConfigError(f"{video.name} has {what} between {interval}: look at it in a player, or give another interval")
    found = {"rate": rate, "width": extractor.size[0], "height": extractor.size[1], "camera": extractor.camera_note}
    found |= {"missing": missing, "reported": " ".join(video_reader.reported(video, lines))}
    return settings | {"found": found}


class _Extractor:
    """Decides which frames to keep, in order; writes those, then a line of the journal for each frame."""

    def __init__(self, video: Path, folder: Path, settings: dict):
        self.video, self.folder, self.settings = video, folder, settings
        rows = read_journal(folder)
        self._done = rows[-1].frame if rows else -1
        self._last_kept = next((row.frame for row in reversed(rows) if row.outcome == KEPT), -1)
        self._text = _csv([[field.name for field in dataclasses.fields(Row)], *(dataclasses.astuple(row) for row in rows)])
        self.before: motion.Grey | None = None  # the last frame kept
        self.blank, self.size, self.camera_note = 0, (0, 0), ""
        self._journal: TextIO | None = None  # opened at the first image
        self._straighten = lambda image: image

    def close(self) -> None:
        """Closes the journal."""
        if self._journal is not None:
            self._journal.close()

    def wants(self, number: int) -> bool:
        """Whether the frame is new, or the one that the next new frame is compared with."""
        return number > self._done or number == self._last_kept

    def add(self, number: int, seconds: float, image: Image | None) -> None:
        """Processes a frame; None = cannot be decoded, or not completely."""
        known, row = number <= self._done, Row(number, UNREADABLE, seconds=seconds)
        if image is None:
            self._note(row)
            return
        row = dataclasses.replace(row, brightest=float(picture_faults.brightest(image)))
        if picture_faults.is_blank(image):
            self.blank += 1
            self._note(dataclasses.replace(row, outcome=BLANK))
            return
        if self.before is None:
            self._begin(image.shape[1], image.shape[0])
        if (image.shape[1], image.shape[0]) != self.size:
            self._note(dataclasses.replace(row, outcome=RESIZED))
            return
        image = self._straighten(image)
        grey = motion.shrink(image)
        if known:
            self.before = grey
            return
        if self.settings["min_motion"] > 0 and self.before is not None and picture_faults.equal(self.before, grey):
            self._note(dataclasses.replace(row, outcome=REPEATED))
            return
        between = motion.Difference(math.nan, math.nan) if self.before is None else motion.compare(self.before, grey)
        static = between.motion < self.settings["min_motion"]
        if not static:
            self._write(number, image)
            self.before = grey
        outcome, sharpness = STATIC if static else KEPT, motion.sharpness(grey)
        self._note(
            dataclasses.replace(row, outcome=outcome, motion=between.motion, parallax=between.parallax, sharpness=sharpness)
        )

    def _begin(self, width: int, height: int) -> None:
        """Sets up camera and files at the first image, which gives the image size and comes after all checks."""
        settings, self.size = self.settings, (width, height)
        if settings["guess"]:
            camera, self.camera_note = video_camera.guess(self.video, width, height)
        elif settings["fov"] is not None:
            camera = video_camera.from_fov(settings["fov"], width, height)
        else:
            camera = tuple(settings["intrinsics"])
            video_camera.describe(camera, width, height, "--intrinsics")
        if settings["distortion"]:
            camera, self._straighten = video_camera.undistortion(camera, tuple(settings["distortion"]), width, height)
        content = video_camera.describe(camera, width, height, "--distortion" if settings["distortion"] else "--fov")
        files.replace(self.folder / SETTINGS, json.dumps(settings) + "\n")
        files.replace(self.folder / "intrinsics.json", json.dumps(content) + "\n")
        files.replace(self.folder / JOURNAL, self._text)  # without an incomplete last line
        self._journal = (self.folder / JOURNAL).open("a")

    def _write(self, number: int, image: Image) -> None:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
        encoded, data = cv2.imencode(f".{self.settings['suffix']}", image, [cv2.IMWRITE_JPEG_QUALITY, 95])
        if not encoded:
            raise ConfigError(f"frame {number} cannot be written as {self.settings['suffix']}")
        files.replace(self.folder / f"{number:06d}.{self.settings['suffix']}", data.tobytes())

    def _note(self, row: Row) -> None:
        line = _csv([dataclasses.astuple(row)])
        if self._journal is None:
            self._text += line
        else:
            self._journal.write(line)
            self._journal.flush()


def _csv(rows: list) -> str:
    cells = ([f"{cell:.9g}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows)
    return "".join(f"{','.join(row)}\n" for row in cells)
