"""Depth of images, videos and drives as files: the job of ``scripts/predict.py``.

The device never waits: a thread decodes frames ahead, the result of a batch is fetched after the next batch was sent, and other
threads draw, encode and write. The network outputs for each frame are kept in ``OUT/.predictions``: a job that was interrupted,
or is repeated with more formats, predicts only what is missing.

An interrupted job leaves the same files, bit for bit, as one that ran through (same machine, ``batch_size`` and input): batches
are composed by position in the source, and one that was not completed is predicted again as a whole. Rounding depends on the
composition of a batch.
"""

import dataclasses
import io
import itertools
import json
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from tqdm import tqdm

from dd_jax.config import ConfigError
from dd_jax.data import arrays
from dd_jax.data.picture_faults import PictureLog
from dd_jax.inference import preprocess
from dd_jax.inference.api import Model, check_batch_size
from dd_jax.inference.inputs import Image, Source
from dd_jax.inference.metric_scale import Prediction, Scale, Scaler, scaled
from dd_jax.inference.outputs import OF_ALL, OutputFrame, PredictionWriter
from dd_jax.report.pictures import depth_limits
from dd_jax.runtime import files
from dd_jax.runtime.pipeline import Workers, one_behind, read_ahead
from dd_jax.types import Batch

SETTINGS, RECORDS, INPUT = "predict.json", ".predictions", "input"

SMOOTHING = 0.1
"""Weight of a frame's own colour limits in their moving average, without which a video would flicker."""

Read = tuple[Image | None, preprocess.NetworkInput | None, Prediction | None]
"""A frame as read, resized for the networks, and its prediction of an earlier run; None where not needed or not known."""

Sample = tuple[Image | None, Batch | None, Prediction | None]
"""A frame as read, its batch of one sample where its batch is to be predicted, and its prediction of an earlier run."""


@dataclasses.dataclass(frozen=True)
class Summary:
    """What a job did."""

    places: list[str]  # what is in the folder, with ``*`` for the names of the frames
    frames: int  # of the source, as far as they could be read
    predicted: int  # by the networks in this run
    frames_per_second: float  # from the second batch on, since the first one compiles; 0 if there is none
    faults: list[str]  # sentences about the pictures that were read: blank, dark or repeated ones


def predict(
    model: Model,
    source: Source,
    out: Path,
    *,
    formats: Sequence[str] = ("npy", "colour"),
    scale: Scale = 1.0,
    network: str = "auto",
    mask_of: Callable[[int], np.ndarray | None] = lambda place: None,
    farthest: float = np.inf,
    batch_size: int = 1,
    settings: Mapping[str, Any] | None = None,
    progress: bool = True,
) -> Summary:
    """Writes the depth of every frame to ``out``; existing files are kept.

    Args:
      formats: "npy" float32, "png16" 256 x depth, "colour" near is bright, "ply" coloured points, "mp4" the frames beside their
        depth, "trajectory" the camera trajectory in KITTI's and TUM's formats, "viewer" an interactive page of point clouds.
      scale: see ``Model.predict``; 1 keeps the networks' unit.
      network: "auto" | "teacher".
      mask_of: potentially dynamic objects of a frame, by its position.
      farthest: points beyond this depth are left out of point clouds.
      batch_size: frames predicted at once.
      settings: what else the files depend on (inputs, scale, masks), for ``predict.json``.

    Raises:
      ConfigError: a frame that cannot be read or has another size, an ``out`` that cannot be written, or one that holds files
        of another model, camera or ``settings``. Files written so far stay.
    """
    step = model.config.data.frame_step
    writer = PredictionWriter(out, source, formats, farthest, "" if scale == 1 else "m", step)
    if network not in ("auto", "teacher"):
        raise ConfigError(f"network={network!r} is not available here: choose 'auto' or 'teacher'")
    check_batch_size(batch_size)
    scaler, K = Scaler(scale, model.config.eval, step), model.camera(source.K, source.size, network, scale)
    about = {
        "model": model.digest, "K": source.K.tolist(), "size": list(source.size), "rate": source.rate, "network": network,
        "farthest": farthest if np.isfinite(farthest) else None, **(settings or {}),
        INPUT: [f"{name} {stamp}" for name, stamp in zip(source.names, source.stamps, strict=True)],
    }  # fmt: skip
    try:
        check_output_folder(out, json.loads(json.dumps(about)), step if model.config.cost_volume.future_frame else 0)
        if writer.complete:
            return Summary(writer.places, len(source.names), 0, 0.0, [])
        records, pictures, count = Records(out / RECORDS, source.names, batch_size), PictureLog(), 0
        bar = tqdm(total=len(source.names), unit="frame", disable=None if progress else True)
        with bar, Workers(1) as keeper, writer:
            predicted = predictions(model, source, K, records, keeper, writer.needs, mask_of, network, batch_size, pictures)
            for count, frame in enumerate(frames_of(source, scaled(predicted, scaler, K)), start=1):
                writer.add(count - 1, frame)
                bar.update()
            if not count:
                raise ConfigError(f"{source.where(0)} and all frames after it cannot be read: the file is cut off or damaged")
    except OSError as error:
        place = error.filename or out
        raise ConfigError(f"{place} cannot be written ({error.strerror or error}); files written so far stay") from error
    return Summary(writer.places, count, records.made, records.rate, pictures.sentences())


def predictions(
    model: Model,
    source: Source,
    K: Float[np.ndarray, "3 3"],
    records: "Records",
    keeper: Workers,
    needs_image: Callable[[int], bool],
    mask_of: Callable[[int], np.ndarray | None],
    network: str,
    batch_size: int,
    pictures: PictureLog,
) -> Iterator[tuple[Image | None, Prediction]]:
    """The prediction of each frame, made now or in an earlier run, and its image where it is needed.

    After an error the frames of complete batches still come; those of the batch with the error do not.
    """
    future, step = model.config.cost_volume.future_frame, model.config.data.frame_step

    def is_input(place: int) -> bool:
        """Whether a frame that is predicted now reads this one."""
        readers = (place, place + step, place - step) if future else (place, place + step)
        return any(0 <= reader < len(source.names) and not records.complete(reader) for reader in readers)

    def read() -> Iterator[Read]:
        for place, image in enumerate(source.read(lambda place: is_input(place) or needs_image(place))):
            resized, where = None, source.where(place)
            if image is not None:
                preprocess.check_size(image.shape[:2], source.size, where)
                pictures.add(where, image, source.files and source.files[place])
            if is_input(place):
                resized = preprocess.to_network_size(image, mask_of(place), model.config.data, where)
            yield image, resized, records.read(place)

    def samples() -> Iterator[Sample]:
        for place, (before, now, after) in enumerate(preprocess.neighbours(read_ahead(read()), future, step)):
            image, resized, known = now
            sample = None
            if not records.complete(place):
                previous, following = (None if other is None else other[1] for other in (before, after))
                sample = preprocess.assemble(previous, resized, following, K, model.config)
            yield image, sample, known

    def started() -> Iterator[tuple[list[Sample], Any]]:
        items = samples()
        while group := list(itertools.islice(items, batch_size)):  # an error drops the incomplete batch
            batch = [sample for _, sample, _ in group if sample is not None]
            yield group, model.start(preprocess.stack_samples(batch, batch_size)) if batch else None

    place = itertools.count()
    for group, begun in one_behind(started()):
        made = itertools.repeat(None) if begun is None else model.finish(begun, network)
        records.count(0 if begun is None else len(group))
        for (image, _, known), prediction in zip(group, made):
            here = next(place)
            if known is None:
                keeper.submit(records.write, here, prediction)
            yield image, prediction if known is None else known


def frames_of(source: Source, predicted: Iterator[tuple[Image | None, Prediction, float]]) -> Iterator[OutputFrame]:
    """Frames with their colour limits, which depend on those before them."""
    limits = None
    for name, (image, prediction, factor) in zip(source.names, predicted, strict=False):  # a video may end early
        own = np.array(depth_limits(1 / prediction.inverse_depth[::2, ::2]))
        limits = own if limits is None else limits + SMOOTHING * (own - limits)
        yield OutputFrame(name, image, prediction, factor, (float(limits[0]), float(limits[1])))


class Records:
    """The prediction of each frame, one file per frame."""

    def __init__(self, folder: Path, names: Sequence[str], batch_size: int):
        self._files, self._batch_size = [folder / f"{name}.npz" for name in names], batch_size
        self._known = [path.is_file() for path in self._files]
        self.made = self._first = 0
        self._began = self._now = 0.0

    def complete(self, place: int) -> bool:
        """Whether an earlier run predicted every frame in this frame's batch."""
        first = place - place % self._batch_size
        return all(self._known[first : first + self._batch_size])

    def read(self, place: int) -> Prediction | None:
        """None where no earlier run predicted this frame.

        Raises:
          ConfigError: a damaged file.
        """
        if not self._known[place]:
            return None
        try:
            with zipfile.ZipFile(self._files[place]) as archive:
                inverse_depth, network = (arrays.load_member(archive, name) for name in ("inverse_depth", "network"))
                pose = arrays.load_member(archive, "pose") if "pose.npy" in archive.namelist() else None
            sound = inverse_depth.ndim == 2 and (pose is None or pose.shape == (4, 4)) and str(network) in ("student", "teacher")
            floats = [array for array in (inverse_depth, pose) if array is not None]
            if not sound or any(array.dtype != np.float32 or not np.isfinite(array).all() for array in floats):
                raise arrays.DamagedArray(self._files[place].name)
        except Exception as error:  # of damaged archives
            raise ConfigError(f"{self._files[place]} is damaged: delete it, then run this again") from error
        return Prediction(inverse_depth, pose, str(network))

    def write(self, place: int, prediction: Prediction) -> None:
        """Saves one for a later run."""
        data, pose = io.BytesIO(), prediction.T_previous_from_target
        poses = {} if pose is None else {"pose": pose}
        np.savez(data, inverse_depth=prediction.inverse_depth, network=np.array(prediction.network), **poses)
        files.replace(self._files[place], data.getvalue())

    def count(self, number: int) -> None:
        """Adds to the number of frames predicted in this run."""
        if not number:
            return
        self.made += number
        self._now = time.perf_counter()
        if not self._first:
            self._first, self._began = number, self._now

    @property
    def rate(self) -> float:
        """Predictions per second, from the second batch on."""
        return (self.made - self._first) / (self._now - self._began) if self.made > self._first else 0.0


def check_output_folder(out: Path, about: dict[str, Any], ahead: int) -> None:
    """Creates the folder, or checks that its files were made with the same settings.

    The input may have changed after the last frame of which a file exists, and after the frame that it was matched with, which
    is ``ahead`` frames later; 0 for models that match with earlier frames only.

    Raises:
      ConfigError: its files have another origin.
    """
    path, remedy = out / SETTINGS, "remove it, or choose another --out"
    if not path.is_file():
        if out.is_dir() and any(not entry.name.endswith(files.PARTIAL) for entry in out.iterdir()):
            raise ConfigError(f"{out} already holds files that were not written by a prediction: {remedy}")
        files.replace(path, json.dumps(about, indent=2) + "\n")
        return
    try:
        known = dict(files.read_json(path))
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{path} cannot be read, so the settings of the files in {out} are unknown: {remedy}") from error
    differing = [name for name in {**about, **known} if known.get(name) != about.get(name)]
    if differing == [INPUT]:
        if not _changed_after_last_file(out, known.get(INPUT), about[INPUT], ahead):
            raise ConfigError(f"{out} holds files of another input: {remedy}")
        files.replace(path, json.dumps(about, indent=2) + "\n")
    elif differing:
        raise ConfigError(f"{out} holds depth predicted with other settings ({', '.join(differing)} differ): {remedy}")


def _changed_after_last_file(out: Path, known: Any, now: list[str], ahead: int) -> bool:
    """Whether the input differs from the known one only where no file exists yet, as when a damaged frame was replaced."""
    named = isinstance(known, list) and all(isinstance(entry, str) for entry in known)
    if not named or any((out / place).exists() for places in OF_ALL.values() for place in places):
        return False
    same = next((place for place, (a, b) in enumerate(zip(known, now)) if a != b), min(len(known), len(now)))
    written = {path.stem for path in out.glob("*/*")}
    return not any(entry.rpartition(" ")[0] in written for entry in known[max(same - ahead, 0) :])
