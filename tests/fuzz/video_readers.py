"""Readers of videos, which PyAV decodes."""

from pathlib import Path

import made_videos
import numpy as np
from reader import Reader, finite

from dd_jax.data import video_camera, video_reader

FORMATS = {
    "mp4": {"codec": "libx264", "g": "4", "bf": "2"},
    "webm": {"codec": "libvpx"},
    "avi": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
    "ts": {"codec": "libx264", "g": "3"},
}


def _seeds(path: Path) -> list[bytes]:
    made_videos.write(path, made_videos.views(6), **FORMATS[path.suffix[1:]])
    return [path.read_bytes()]


def _frames(path: Path) -> tuple[video_reader.Survey, list[np.ndarray | None]]:
    survey = video_reader.survey(path, slice(None))
    return survey, list(video_reader.read(path, survey.numbers, lambda place: True))


def _is_video(found: tuple[video_reader.Survey, list[np.ndarray | None]]) -> None:
    survey, images = found
    finite(survey.rate, survey.seconds or 0)
    assert survey.rate > 0 and min(survey.size) > 0 and len(images) <= len(survey.numbers)
    assert all(image.dtype == np.uint8 and image.shape == (*survey.size, 3) for image in images)


def _is_guess(found: tuple) -> None:
    finite(found[0])


VIDEOS = {f"video, {suffix}": Reader(f"drive.{suffix}", _seeds, _frames, _is_video, dear=True) for suffix in FORMATS} | {
    "metadata of a video": Reader("drive.mp4", _seeds, lambda path: video_camera.guess(path, 80, 48), _is_guess, dear=True)
}
