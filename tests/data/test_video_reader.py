"""Of a video that is damaged or changes, every frame is read or the command says which one is not."""

import re

import cv2
import numpy as np
import pytest
import tiny

from dd_jax.config import ConfigError
from dd_jax.data import video_reader

FRAMES = tiny.frames(12, height=48, width=80)
ALL = range(12)


@pytest.fixture
def clip(tmp_path):
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 12.0, (80, 48))
    for frame in FRAMES:
        writer.write(np.ascontiguousarray(frame[..., ::-1]))
    writer.release()
    return path


def spoil(path, *places):
    """Puts zeros in place of the pictures of these frames."""
    data = bytearray(path.read_bytes())
    chunks = [found.start() + 8 for found in re.finditer(rb"00dc....\xff\xd8", data, re.DOTALL)]
    assert len(chunks) == 12
    for place in places:
        count = int.from_bytes(data[chunks[place] - 4 : chunks[place]], "little")
        data[chunks[place] : chunks[place] + count] = bytes(count)
    path.write_bytes(data)


def read(path, numbers=ALL, count=12, wanted=lambda place: True):
    return list(video_reader.read(path, numbers, count, wanted))


def test_a_damaged_frame_is_named_and_what_lies_around_it_is_read(clip):
    whole = read(clip)
    spoil(clip, 4, 5)
    frames = video_reader.read(clip, ALL, 12, lambda place: True)
    np.testing.assert_array_equal([next(frames) for _ in range(4)], whole[:4])
    with pytest.raises(ConfigError, match=r"frame 4 of .*clip.avi cannot be decoded: leave .* --frames=:4 or --frames=5:$"):
        next(frames)
    np.testing.assert_array_equal(read(clip, range(4)), whole[:4])
    np.testing.assert_array_equal(read(clip, range(6, 12)), whole[6:])
    np.testing.assert_array_equal(read(clip, range(0, 12, 3)), whole[::3])
    with pytest.raises(ConfigError, match="frame 5 of"):
        read(clip, range(5, 6))
    with pytest.raises(ConfigError, match="frame 4 of"):  # also where nobody wants to see it
        read(clip, wanted=lambda place: False)


def test_a_damaged_first_frame(clip):
    whole = read(clip)
    spoil(clip, 0)
    assert video_reader.size(clip, 12) == (48, 80)
    np.testing.assert_array_equal(read(clip, range(1, 12)), whole[1:])
    with pytest.raises(ConfigError, match=r"frame 0 of .*clip.avi cannot be decoded: leave it out with --frames=1:"):
        read(clip)


def test_nothing_but_damage(clip):
    spoil(clip, *ALL)
    assert read(clip) == []
    with pytest.raises(ConfigError, match=r"clip.avi has no readable frame"):
        video_reader.size(clip, 12)


def test_damage_at_the_end_is_an_end(clip):
    spoil(clip, 10, 11)
    assert video_reader.length(clip) == 12 and len(read(clip)) == 10


def jpegs(*pictures):
    return [cv2.imencode(".jpg", picture)[1].tobytes() for picture in pictures]


def test_a_video_without_a_length_is_counted_over_what_is_damaged(tmp_path):
    path, parts = tmp_path / "clip.mjpeg", jpegs(*FRAMES)
    parts[3] = parts[3][:20] + bytes(len(parts[3]) - 20)
    path.write_bytes(b"".join(parts))
    assert video_reader.length(path) == 12
    with pytest.raises(ConfigError, match=r"frame 3 of .*clip.mjpeg cannot be decoded"):
        read(path)


def test_a_video_of_changing_size_is_refused(tmp_path):
    path, small = tmp_path / "clip.mjpeg", [cv2.resize(frame, (64, 32)) for frame in FRAMES[6:]]
    path.write_bytes(b"".join(jpegs(*FRAMES[:6], *small)))
    assert len(read(path, range(6))) == 6
    message = r"frame 6 of .*clip.mjpeg has 64 x 32 pixels, the first one 80 x 48: frames that belong together have one size"
    for numbers in (ALL, range(6, 12)):
        with pytest.raises(ConfigError, match=message):
            read(path, numbers)


def test_a_frame_that_is_there_and_cannot_be_converted_is_named(clip, monkeypatch):
    real = cv2.VideoCapture

    class Capture:
        def __init__(self, *arguments):
            self._inner, self._count = real(*arguments), 0

        def grab(self):
            self._count += 1
            return self._inner.grab()

        def retrieve(self):
            return (False, None) if self._count == 3 else self._inner.retrieve()

        def __getattr__(self, name):
            return getattr(self._inner, name)

    frames = video_reader.read(clip, ALL, 12, lambda place: True)
    monkeypatch.setattr(cv2, "VideoCapture", Capture)
    monkeypatch.setattr(video_reader, "_coded_sizes", lambda path: iter([None] * 12))
    assert next(frames) is not None and next(frames) is not None
    with pytest.raises(ConfigError, match=r"frame 2 of .*clip.avi cannot be decoded: leave it out"):
        next(frames)
