"""Depth of pictures, videos and drives as files: the job of ``scripts/predict.py``.

The device never waits: frames are decoded ahead in a thread, a frame's result is fetched once the next frame is on its way, and
other threads draw, encode and write. What the networks said about each frame is kept in ``OUT/.predictions``, so that a command
that was interrupted, or is given again with further formats, asks them only about the rest; the files are the same either way.
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
from dd_jax.inference import preprocess, trajectory
from dd_jax.inference.api import Model, check_batch_size
from dd_jax.inference.inputs import Picture, Source
from dd_jax.inference.metric_scale import Prediction, Scale, Scaler, scaled
from dd_jax.inference.outputs import OF_ALL, Frame, PredictionWriter
from dd_jax.report.pictures import depth_limits
from dd_jax.runtime import files
from dd_jax.runtime.pipeline import Workers, in_groups, one_behind, read_ahead
from dd_jax.types import Batch

SETTINGS, RECORDS, INPUT = "predict.json", ".predictions", "input"

CALM = 0.1
"""Share of a frame's own colour limits in those it is drawn with; the rest is those before it, or a film would flicker."""

Asked = tuple[Picture | None, preprocess.View | None, Prediction | None]
"""A frame as read: as it is, for the networks, and what they said of it in an earlier run; None where not needed or known."""


@dataclasses.dataclass(frozen=True)
class Summary:
    """What a job did."""

    places: list[str]  # what is in the folder, with ``*`` for the names of the frames
    frames: int  # of the source, as far as they could be read
    predicted: int  # that the networks were asked about
    missing: int  # at the end, that a video announces and that cannot be read
    frames_per_second: float  # from the second batch on, for the first one is compiled; 0 where there is none


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
    """Writes the depth of every frame to ``out``; files that are there already are kept.

    Args:
      formats: "npy" float32, "png16" 256 x depth, "colour" near is bright, "ply" coloured points, "mp4" the frames beside their
        depth, "trajectory" the way of the camera in KITTI's and TUM's formats, "viewer" a page to turn the points.
      scale: see ``Model.predict``; 1 leaves the networks' unit.
      network: "auto" | "teacher".
      mask_of: potentially dynamic objects of a frame, by its position.
      farthest: points beyond this depth are left out of point clouds.
      batch_size: frames that the networks see at once.
      settings: what else decides about the files (inputs, scale, masks), for ``predict.json``.

    Raises:
      ConfigError: a frame that cannot be read or has another size, an ``out`` that cannot be written, or one that holds files
        of another model, camera or ``settings``. What is written so far stays.
    """
    writer = PredictionWriter(out, source, formats, farthest, "" if scale == 1 else "m")
    if network not in ("auto", "teacher"):
        raise ConfigError(f"network={network!r} is neither 'auto' nor 'teacher'")
    check_batch_size(batch_size)
    scaler, K = Scaler(scale, model.config.eval), model.camera(source.K, source.size, network, scale)
    about = {
        "model": model.digest, "K": source.K.tolist(), "size": list(source.size), "rate": source.rate, "network": network,
        "farthest": farthest if np.isfinite(farthest) else None, **(settings or {}),
        INPUT: [f"{name} {stamp}" for name, stamp in zip(source.names, source.stamps, strict=True)],
    }  # fmt: skip
    try:
        claim(out, json.loads(json.dumps(about)), model.config.cost_volume.future_frame)
        if writer.complete:
            return Summary(writer.places, len(source.names), 0, 0, 0.0)
        records, count = Records(out / RECORDS, source.names), 0
        bar = tqdm(total=len(source.names), unit="frame", disable=None if progress else True)
        with bar, Workers(1) as keeper, writer:
            said = predictions(model, source, K, records, keeper, writer.needs, mask_of, network, batch_size)
            for count, frame in enumerate(frames_of(source, scaled(said, scaler, K)), start=1):
                writer.add(count - 1, frame)
                bar.update()
            if not count:
                raise ConfigError(f"{source.where(0)} cannot be read, nor what comes after it: it is cut off or damaged there")
    except OSError as error:
        place = error.filename or out
        raise ConfigError(f"{place} cannot be written ({error.strerror or error}); what is written so far stays") from error
    return Summary(writer.places, count, records.made, len(source.names) - count, records.rate)


def predictions(
    model: Model,
    source: Source,
    K: Float[np.ndarray, "3 3"],
    records: "Records",
    keeper: Workers,
    needs_picture: Callable[[int], bool],
    mask_of: Callable[[int], np.ndarray | None],
    network: str,
    batch_size: int,
) -> Iterator[tuple[Picture | None, Prediction]]:
    """What the networks say about each frame, now or in an earlier run, and its picture where it is needed."""
    future = model.config.cost_volume.future_frame

    def seen(place: int) -> bool:
        """Whether a network looks at this frame."""
        lookers = (place, place + 1, place - 1) if future else (place, place + 1)
        return any(0 <= looker < len(source.names) and not records.known[looker] for looker in lookers)

    def read() -> Iterator[Asked]:
        for place, picture in enumerate(source.read(lambda place: seen(place) or needs_picture(place))):
            view, where = None, source.where(place)
            if picture is not None:
                preprocess.check_size(picture.shape[:2], source.size, where)
            if seen(place):
                view = preprocess.view(picture, mask_of(place), model.config.data, where)
            yield picture, view, records.read(place)

    def asked() -> Iterator[tuple[Picture | None, Batch | Prediction]]:
        for before, now, after in preprocess.neighbours(read_ahead(read()), future):
            picture, view, known = now
            if known is None:
                previous, following = (None if other is None else other[1] for other in (before, after))
                known = preprocess.assemble(previous, view, following, K, model.config)
            yield picture, known

    def started() -> Iterator[tuple[list, Any]]:
        for group in in_groups(asked(), batch_size):
            samples = [asks for _, asks in group if isinstance(asks, Batch)]
            yield group, model.start(preprocess.together(samples, batch_size)) if samples else None

    place = itertools.count()
    for group, begun in one_behind(started()):
        made = iter(() if begun is None else model.finish(begun, network))
        records.count(sum(isinstance(asks, Batch) for _, asks in group))
        for picture, answer in group:
            here = next(place)
            if isinstance(answer, Batch):
                answer = next(made)
                keeper.submit(records.write, here, answer)
            yield picture, answer


def frames_of(source: Source, predicted: Iterator[tuple[Picture | None, Prediction, float]]) -> Iterator[Frame]:
    """Frames with what carries over from one to the next: the pose and the limits of the colours."""
    pose, limits = None, None
    for name, (picture, prediction, factor) in zip(source.names, predicted, strict=False):  # a video may end early
        pose = trajectory.follow(pose, prediction, factor)
        own = np.array(depth_limits(1 / prediction.inverse_depth[::2, ::2]))
        limits = own if limits is None else limits + CALM * (own - limits)
        yield Frame(name, picture, prediction, factor, (float(limits[0]), float(limits[1])), pose)


class Records:
    """What the networks said about each frame, in files of their own."""

    def __init__(self, folder: Path, names: Sequence[str]):
        self._files = [folder / f"{name}.npz" for name in names]
        self.known = [path.is_file() for path in self._files]
        self.made = self._first = 0
        self._began = self._now = 0.0

    def read(self, place: int) -> Prediction | None:
        """None where the networks have to be asked.

        Raises:
          ConfigError: a damaged file.
        """
        if not self.known[place]:
            return None
        try:
            with np.load(io.BytesIO(self._files[place].read_bytes()), allow_pickle=False) as arrays:
                pose = arrays.get("pose")
                return Prediction(arrays["inverse_depth"], pose, str(arrays["network"]))
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise ConfigError(f"{self._files[place]} is damaged: delete it, then run this again") from error

    def write(self, place: int, prediction: Prediction) -> None:
        """Keeps one for a later run."""
        data, pose = io.BytesIO(), prediction.T_previous_from_target
        poses = {} if pose is None else {"pose": pose}
        np.savez(data, inverse_depth=prediction.inverse_depth, network=np.array(prediction.network), **poses)
        files.replace(self._files[place], data.getvalue())

    def count(self, number: int) -> None:
        """So many more were made in this run."""
        if not number:
            return
        self.made += number
        self._now = time.perf_counter()
        if not self._first:
            self._first, self._began = number, self._now

    @property
    def rate(self) -> float:
        """Predictions a second, from the second batch on."""
        return (self.made - self._first) / (self._now - self._began) if self.made > self._first else 0.0


def claim(out: Path, about: dict[str, Any], future: bool) -> None:
    """Makes the folder, or checks that what it holds was made with the same settings.

    The input may have changed behind the last frame of which something is written; one more back where ``future`` says that
    frames are matched with the one after them.

    Raises:
      ConfigError: it holds files of another origin.
    """
    path, remedy = out / SETTINGS, "remove it, or choose another --out"
    if not path.is_file():
        if out.is_dir() and any(not entry.name.endswith(files.PARTIAL) for entry in out.iterdir()):
            raise ConfigError(f"{out} holds files already that no prediction left there: {remedy}")
        files.replace(path, json.dumps(about, indent=2) + "\n")
        return
    try:
        known = dict(json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{path} cannot be read, so nobody knows what {out} holds: {remedy}") from error
    differing = [name for name in {**about, **known} if known.get(name) != about.get(name)]
    if differing == [INPUT]:
        if not _only_ahead(out, known.get(INPUT), about[INPUT], future):
            raise ConfigError(f"the input differs from that of {out}, whose files would not belong together: {remedy}")
        files.replace(path, json.dumps(about, indent=2) + "\n")
    elif differing:
        raise ConfigError(f"{out} holds depth that was predicted otherwise ({', '.join(differing)} differ): {remedy}")


def _only_ahead(out: Path, known: Any, now: list[str], future: bool) -> bool:
    """Whether the input differs from the known one only where nothing is written yet, as when a damaged frame was replaced."""
    if not isinstance(known, list) or any((out / place).exists() for places in OF_ALL.values() for place in places):
        return False
    same = next((place for place, (a, b) in enumerate(zip(known, now)) if a != b), min(len(known), len(now)))
    written = {path.stem for path in out.glob("*/*")}
    return not any(entry.rpartition(" ")[0] in written for entry in known[max(same - future, 0) :])
