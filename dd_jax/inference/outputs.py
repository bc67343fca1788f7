"""Output files of predicted frames: files per frame, and files of all frames together.

Threads draw, encode and write. Files are written atomically; existing ones are kept.
"""

import contextlib
import dataclasses
import io
import os
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from dd_jax.config import ConfigError
from dd_jax.inference import pointcloud, trajectory, viewer
from dd_jax.inference.api import full_size
from dd_jax.inference.inputs import Source
from dd_jax.inference.metric_scale import Prediction
from dd_jax.inference.trajectory import Trajectory
from dd_jax.inference.video_writer import SideBySideVideo
from dd_jax.report import colorize_depth
from dd_jax.runtime import files
from dd_jax.runtime.pipeline import Workers

PER_FRAME = {"npy": "depth/{}.npy", "png16": "depth_png16/{}.png", "colour": "colour/{}.png", "ply": "clouds/{}.ply"}
"""Format -> path of a frame's file."""

OF_ALL = {
    "mp4": ["side_by_side.mp4"],
    "trajectory": ["trajectory_kitti.txt", "trajectory_tum.txt"],
    "viewer": ["viewer.html"],
}
"""Format -> files of all frames together, written at the end."""

FORMATS = (*PER_FRAME, *OF_ALL)

MAX_VIEWED = 100
"""Frames in the viewer, evenly spaced: a page of more would be slow to open."""


@dataclasses.dataclass(frozen=True)
class OutputFrame:
    """All that the files of one frame need."""

    name: str
    image: UInt8[np.ndarray, "H W 3"] | None  # None if no file needs it
    prediction: Prediction
    factor: float  # on the depth
    limits: tuple[float, float]  # of the colours: farthest and nearest inverse depth, in the networks' unit


class PredictionWriter:
    """Writes the files of one job; a context manager that exits when all are written.

    Args:
      out: output folder.
      source: names, size, rate and camera of the frames.
      formats: of :data:`FORMATS`.
      farthest: points beyond this depth are left out of point clouds.
      unit: of the depth, "m" or "".
      frame_step: distance in frames to the previous frame of a prediction.

    Raises:
      ConfigError: no format, an unknown one, or ``farthest`` is not positive; in use, a file that cannot be written.
    """

    def __init__(
        self, out: Path, source: Source, formats: Sequence[str], farthest: float = np.inf, unit: str = "", frame_step: int = 1
    ):
        unknown = [name for name in formats if name not in FORMATS]
        if unknown:
            raise ConfigError(f"{unknown[0]!r} is not one of the formats {', '.join(FORMATS)}")
        if not formats:
            raise ConfigError(f"--save names no format: choose from {', '.join(FORMATS)}")
        if not farthest > 0:
            raise ConfigError(f"--cloud-depth={farthest:g} must be positive: farther points are left out")
        self._out, self._source, self._farthest, self._unit = out, source, farthest, unit
        self._formats = list(dict.fromkeys(formats))
        self._of_all = [name for name in OF_ALL if name in formats and not all((out / path).is_file() for path in OF_ALL[name])]
        count = len(source.names)
        spread = np.linspace(0, count - 1, min(count, MAX_VIEWED)).round().astype(int)
        self._step = (count - 1) / max(len(spread) - 1, 1)  # of the viewer's frames
        self._viewed = set(spread.tolist()) if "viewer" in self._of_all else set()
        self._viewer_frames: dict[int, dict] = {}
        self._trajectory = Trajectory(frame_step)
        self._video = SideBySideVideo(out / OF_ALL["mp4"][0], source.rate) if "mp4" in self._of_all else None

    @property
    def places(self) -> list[str]:
        """Files in the folder at the end; ``*`` stands for the names of the frames."""
        return [path for name in self._formats for path in ([PER_FRAME[name].format("*")] if name in PER_FRAME else OF_ALL[name])]

    @property
    def complete(self) -> bool:
        """Whether every file exists."""
        return not self._of_all and not any(map(self._missing, self._source.names))

    def needs(self, place: int) -> bool:
        """Whether a missing file needs the image of a frame."""
        return self._video is not None or place in self._viewed or bool(self._missing(self._source.names[place]))

    def add(self, place: int, frame: OutputFrame) -> None:
        """Adds the next frame; returns before its files are written."""
        self._trajectory.add(frame.prediction, frame.factor)
        if frame.image is None:
            return
        written = self._writers.submit(self._write, place, frame)
        if self._video is not None:
            self._video_thread.submit(_add_to_video, self._video, frame.image, written)

    def __enter__(self) -> "PredictionWriter":
        with contextlib.ExitStack() as stack:
            self._video_thread = stack.enter_context(Workers(1))  # the frames of a video have an order
            self._writers = stack.enter_context(Workers(os.cpu_count() or 1))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type | None, *rest: object) -> None:
        try:
            self._stack.__exit__(kind, *rest)
            if kind is None:
                self._finish()
        finally:
            if self._video is not None:
                self._video.abandon()  # if it is not complete

    def _missing(self, name: str) -> list[str]:
        """Formats whose file of this frame is missing."""
        return [kind for kind in PER_FRAME if kind in self._formats and not self._file(kind, name).is_file()]

    def _file(self, kind: str, name: str) -> Path:
        return self._out / PER_FRAME[kind].format(name)

    def _write(self, place: int, frame: OutputFrame) -> UInt8[np.ndarray, "H W 3"] | None:
        """Writes the files of one frame; returns the coloured depth if a video needs it."""
        missing = self._missing(frame.name)
        relative = full_size(frame.prediction, frame.image.shape[:2], 1.0)
        depth = relative * np.float32(frame.factor)
        coloured = colorize_depth(relative, frame.limits) if "colour" in missing or self._video is not None else None
        for kind in missing:
            match kind:
                case "npy":
                    data = npy(depth)
                case "png16":
                    data = png(np.clip(np.rint(depth * 256), 1, 65535).astype(np.uint16))
                case "colour":
                    data = png(coloured[..., ::-1])
                case _:
                    data = pointcloud.ply(frame.image, depth, self._source.K, self._farthest)
            files.replace(self._file(kind, frame.name), data)
        if place in self._viewed:
            self._viewer_frames[place] = viewer.encode_frame(frame.name, frame.image, depth)
        return coloured

    def _finish(self) -> None:
        """Writes the files of all frames."""
        poses = self._trajectory.poses
        if "trajectory" in self._of_all:
            places, seconds = range(len(poses)), self._source.seconds
            times = [place / self._source.rate if seconds is None else seconds[place] - seconds[0] for place in places]
            texts = trajectory.kitti(poses), trajectory.tum(poses, times)
            for name, text in zip(OF_ALL["trajectory"], texts, strict=True):
                files.replace(self._out / name, text)
        if self._viewer_frames:
            places = sorted(self._viewer_frames)
            shown, their_poses = [self._viewer_frames[place] for place in places], [poses[place] for place in places]
            title = f"{self._source.title}: {len(shown)} frames"
            rate = self._source.rate / max(self._step, 1)
            html = viewer.page(title, shown, their_poses, self._source.K, self._source.size, self._unit, rate)
            files.replace(self._out / OF_ALL["viewer"][0], html)
        if self._video is not None:
            self._video.close()


def npy(array: Float32[np.ndarray, "H W"]) -> bytes:
    """Content of an ``.npy`` file."""
    data = io.BytesIO()
    np.save(data, array)
    return data.getvalue()


def png(image: np.ndarray) -> bytes:
    """Content of a PNG file; channels in OpenCV's order, BGR."""
    return cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 2])[1].tobytes()


def _add_to_video(video: SideBySideVideo, image: UInt8[np.ndarray, "H W 3"], drawn: Future) -> None:
    video.add(image, drawn.result())
