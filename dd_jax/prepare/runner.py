"""Runs a network over the images of a data set and writes its outputs beside them."""

import dataclasses
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Shaped, UInt8
from tqdm import tqdm

from dd_jax.config import ConfigError
from dd_jax.data import frames
from dd_jax.data.folder import SUFFIXES, is_image
from dd_jax.runtime import files
from dd_jax.runtime.command_line import Parser, positive

Images = UInt8[np.ndarray, "b h w 3"]


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of output: its folder in a ``folder`` data set, and its word in the file names of the other data sets."""

    plural: str
    word: str


CITYSCAPES = "leftImg8bit_sequence"
MASKS, PRIORS = Kind("masks", "mask"), Kind("priors", "prior")


@dataclasses.dataclass(frozen=True)
class Job:
    """An image and its output file."""

    image: Path
    result: Path


@dataclasses.dataclass
class Done:
    """Outcome of the jobs."""

    written: int = 0
    present: int = 0  # existed already
    unreadable: list[Path] = dataclasses.field(default_factory=list)
    empty: list[Path] = dataclasses.field(default_factory=list)  # without a usable network output


def jobs_of_data_set(root: Path, kind: Kind) -> list[Job]:
    """A job for every image of a ``folder`` data set, KITTI (raw or odometry) or Cityscapes' sequences.

    Raises:
      ConfigError: the folder is none of these, or holds no image.
    """
    if (root / "frames").is_dir():
        jobs = jobs_of_folder(root / "frames", root / kind.plural)
    elif (root / CITYSCAPES).is_dir():
        found = jobs_of_folder(root / CITYSCAPES, root / f"{kind.word}_sequence")
        jobs = [Job(job.image, job.result.with_name(job.result.name.replace("leftImg8bit", kind.word))) for job in found]
    else:
        drives = [*sorted(root.glob("*/*_sync/image_0[23]/data")), *sorted(root.glob("sequences/*/image_[23]"))]
        pairs = ((drive, Path(str(drive.relative_to(root)).replace("image_", f"{kind.word}_"))) for drive in drives)
        jobs = [job for images, results in pairs for job in jobs_of_folder(images, root / results)]
    if not jobs:
        raise ConfigError(
            f"{root} holds no images in frames/, DATE/DRIVE_sync/image_02/data, sequences/00/image_2 or {CITYSCAPES}: "
            "check --root, or name any folder of images with --images and one for the results with --out"
        )
    return jobs


def jobs_of_folder(images: Path, results: Path) -> list[Job]:
    """A job for every image below ``images`` (following links); the result has the same name below ``results``, as PNG."""
    paths = (path for path in files.below(images) if is_image(path.name))
    ordered = sorted(paths, key=lambda path: [files.natural_key(part) for part in path.relative_to(images).parts])
    return [Job(path, (results / path.relative_to(images)).with_suffix(".png")) for path in ordered]


def add_flags(parser: Parser, kind: Kind, model: str) -> None:
    """Adds the flags common to masks and priors; ``model`` is the default network."""
    parser.add_argument("--root", type=Path, help="folder of the data set")
    parser.add_argument("--images", type=Path, help="instead of --root: any folder of images, searched recursively")
    parser.add_argument("--out", type=Path, help=f"with --images: folder for the {kind.plural}, named as the images")
    parser.add_argument("--model", default=model, help="name on the Hugging Face hub, or folder; default: %(default)s")
    parser.add_argument("--batch_size", type=positive, default=4)
    parser.add_argument("--device", default="", help="cuda, cuda:1, cpu, ...; default: a GPU if available")


def jobs_of_flags(root: Path | None, images: Path | None, out: Path | None, kind: Kind) -> tuple[list[Job], Path]:
    """The jobs of a script's flags, and the path of the note about their origin.

    Raises:
      ConfigError: not exactly one of ``root`` and (``images``, ``out``), or no images.
    """
    if (root is None) == (images is None) or (images is None) != (out is None):
        raise ConfigError("give either --root (a data set), or --images (any folder of images) and --out (one for the results)")
    if root is not None:
        return jobs_of_data_set(root, kind), root / f"{kind.plural}.json"
    jobs = jobs_of_folder(images, out)
    if not jobs:
        raise ConfigError(f"--images={images} holds no {', '.join(SUFFIXES)} images")
    return jobs, out / f"{kind.plural}.json"


def note_origin(note: Path, origin: dict) -> None:
    """Writes the settings that produce the files, so that an interrupted run is not continued with others.

    Raises:
      ConfigError: the note of an earlier run has other settings.
    """
    try:
        known = files.read_json(note) if note.is_file() else origin
    except ValueError:
        known = None
    if known != origin:
        raise ConfigError(f"{note} records other settings ({known}): use the same, or remove it and the files")
    files.replace(note, json.dumps(origin, indent=1) + "\n")


def run(
    jobs: Sequence[Job], predict: Callable[[Images], list[Shaped[np.ndarray, "h w"] | None]], batch_size: int, what: str
) -> Done:
    """Writes the files of all jobs that do not exist yet; skips unreadable images.

    Args:
      predict: maps images of one size to a uint8 or uint16 image of that size each; None = no usable output.

    Raises:
      ConfigError: a file cannot be written.
    """
    done = Done()
    todo = [job for job in jobs if not (job.result.is_file() or job.result.with_suffix(".npy").is_file())]
    done.present = len(jobs) - len(todo)
    with tqdm(total=len(jobs), initial=done.present, desc=what, unit="frame", disable=None) as progress:
        for batch in _batches(todo, batch_size, done):
            for (job, _), result in zip(batch, predict(np.stack([image for _, image in batch])), strict=True):
                if result is None:
                    done.empty.append(job.image)
                    continue
                _write(job.result, result)
                done.written += 1
            progress.update(done.present + done.written + len(done.empty) + len(done.unreadable) - progress.n)
    return done


def _batches(todo: Sequence[Job], batch_size: int, done: Done) -> Iterator[list[tuple[Job, UInt8[np.ndarray, "h w 3"]]]]:
    """Batches of at most ``batch_size`` decoded images of one size."""
    with ThreadPoolExecutor(2) as threads:
        for start in range(0, len(todo), batch_size):
            chunk = todo[start : start + batch_size]
            decoded = list(zip(chunk, threads.map(_decode, chunk)))
            done.unreadable += [job.image for job, image in decoded if image is None]
            readable = [(job, image) for job, image in decoded if image is not None]
            for _, group in itertools.groupby(readable, key=lambda pair: pair[1].shape):
                yield list(group)


def _write(path: Path, image: Shaped[np.ndarray, "h w"]) -> None:
    try:
        files.replace(path, cv2.imencode(".png", image)[1].tobytes())
    except OSError as error:
        raise ConfigError(f"{path} cannot be written ({error.strerror or error}): make room and run it again") from error


def _decode(job: Job) -> UInt8[np.ndarray, "h w 3"] | None:
    try:
        return frames.decode_whole_image(job.image)
    except frames.UnreadableFrame:
        return None


def summary(done: Done, what: str) -> str:
    """Summary in one line."""
    text = f"{done.written} {what} written, {done.present} there already"
    for paths, reason in ((done.unreadable, "could not be read"), (done.empty, "gave no usable output")):
        if paths:
            more = f" and {len(paths) - 5} more" if len(paths) > 5 else ""
            text += f"; {len(paths)} images {reason}: {', '.join(map(str, paths[:5]))}{more}"
    return text
