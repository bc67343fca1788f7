"""Damaged frames are named, changes of size are refused, and colours and orientation are right."""

import re
import struct
from pathlib import Path

import av
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
    """Overwrites the data of these frames with zeros."""
    data = bytearray(path.read_bytes())
    chunks = [found.start() + 8 for found in re.finditer(rb"00dc....\xff\xd8", data, re.DOTALL)]
    assert len(chunks) == 12
    for place in places:
        count = int.from_bytes(data[chunks[place] - 4 : chunks[place]], "little")
        data[chunks[place] : chunks[place] + count] = bytes(count)
    path.write_bytes(data)


def read(path, numbers=ALL, wanted=lambda place: True):
    return list(video_reader.read(path, numbers, wanted))


def survey(path, chosen=slice(None)):
    return video_reader.survey(path, chosen)


def test_damaged_frame_is_named_and_others_are_read(clip):
    whole = read(clip)
    spoil(clip, 4, 5)
    frames = video_reader.read(clip, ALL, lambda place: True)
    np.testing.assert_array_equal([next(frames) for _ in range(4)], whole[:4])
    with pytest.raises(ConfigError, match=r"frame 4 of .*clip.avi cannot be decoded: leave .* --frames=:4 or --frames=5:$"):
        next(frames)
    np.testing.assert_array_equal(read(clip, range(4)), whole[:4])
    np.testing.assert_array_equal(read(clip, range(6, 12)), whole[6:])
    np.testing.assert_array_equal(read(clip, range(0, 12, 3)), whole[::3])
    with pytest.raises(ConfigError, match="frame 5 of"):
        read(clip, range(5, 6))
    assert survey(clip, slice(5)).numbers == range(5) and survey(clip, slice(4, 6)).numbers == range(4, 6)
    with pytest.raises(ConfigError, match="frame 4 of"):  # also if its pixels are not wanted
        read(clip, wanted=lambda place: False)


def test_damaged_first_frame(clip):
    whole = read(clip)
    spoil(clip, 0)
    assert survey(clip).size == (48, 80)
    np.testing.assert_array_equal(read(clip, range(1, 12)), whole[1:])
    with pytest.raises(ConfigError, match=r"frame 0 of .*clip.avi cannot be decoded: leave it out with --frames=1:"):
        read(clip)


def test_only_damaged_frames(clip):
    spoil(clip, *ALL)
    assert read(clip) == []
    with pytest.raises(ConfigError, match=r"clip.avi has no readable frame \(MJPEG.*\): convert it to H.264 .*, or give another"):
        survey(clip)


def test_damage_at_the_end_ends_the_video(clip):
    spoil(clip, 10, 11)
    found = survey(clip)
    assert found.numbers == range(10) and len(read(clip)) == 10
    assert found.findings[-1].endswith("clip.avi ends 2 frames before its announced length: it is cut off or damaged there")


def jpegs(*pictures):
    return [cv2.imencode(".jpg", picture)[1].tobytes() for picture in pictures]


def test_unannounced_length_counts_damaged_frames(tmp_path):
    path, parts = tmp_path / "clip.mjpeg", jpegs(*FRAMES)
    parts[3] = parts[3][:20] + bytes(len(parts[3]) - 20)
    path.write_bytes(b"".join(parts))
    assert survey(path).numbers == ALL
    with pytest.raises(ConfigError, match=r"frame 3 of .*clip.mjpeg cannot be decoded"):
        read(path)


def test_changing_frame_size_raises(tmp_path):
    path, small = tmp_path / "clip.mjpeg", [cv2.resize(frame, (64, 32)) for frame in FRAMES[6:]]
    path.write_bytes(b"".join(jpegs(*FRAMES[:6], *small)))
    assert len(read(path, range(6))) == 6
    message = r"frame 6 of .*clip.mjpeg has 64 x 32 pixels, the first one 80 x 48: all frames need the same size"
    for numbers in (ALL, range(6, 12)):
        with pytest.raises(ConfigError, match=message):
            read(path, numbers)


def test_inconvertible_frame_raises(clip, monkeypatch):
    """A frame that is decoded, but whose pixel format has no conversion to RGB."""
    frames = video_reader.read(clip, ALL, lambda place: True)
    with monkeypatch.context() as patch:
        whole = [next(frames), next(frames)]
        patch.setattr(video_reader, "pixels", lambda frame: None)
        with pytest.raises(ConfigError, match=r"frame 2 of .*clip.avi cannot be decoded: leave it out"):
            next(frames)
    np.testing.assert_array_equal(whole, read(clip, range(2)))


def encode(path, codec, rotation=0, **options):
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10, options=options, width=80, height=48, pix_fmt="yuv420p")
        if rotation:
            stream.set_display_rotation(rotation)
        for frame in FRAMES:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv", "clip.ts", "clip.avi"])
def test_agrees_with_opencv(tmp_path, name):
    path = encode(tmp_path / name, "mpeg4")
    capture = cv2.VideoCapture(str(path))
    frames = read(path)
    assert len(frames) == len(survey(path).numbers) == 12 and video_reader.rate(path) == capture.get(cv2.CAP_PROP_FPS) == 10
    for frame in frames:
        expected = cv2.cvtColor(capture.read()[1], cv2.COLOR_BGR2RGB).astype(int)
        assert np.abs(frame - expected).mean() < 0.5


@pytest.mark.parametrize("rotation", [90, 180, -90])
def test_rotated_video_is_upright(tmp_path, rotation):
    """The display matrix of the container applies, as phones write it when held upright."""
    plain, turned = encode(tmp_path / "plain.mp4", "mpeg4"), encode(tmp_path / "turned.mp4", "mpeg4", rotation)
    np.testing.assert_array_equal(read(turned), np.rot90(read(plain), rotation // 90, axes=(1, 2)))
    assert survey(turned).size == ((48, 80) if rotation == 180 else (80, 48))


@pytest.mark.parametrize(("frame", "later"), [(3, 4), (5, 6)])
def test_damaged_b_frame_keeps_its_number(tmp_path, frame, later):
    """Packets are stored in decoding order; a lost one is named by its place in presentation order."""
    path = encode(tmp_path / "clip.mp4", "libx264", bf="2", g="12", sc_threshold="0", preset="ultrafast")
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        step = 1 / (10 * stream.time_base)
        places = {round(packet.pts / step): (packet.pos, packet.size) for packet in container.demux(stream) if packet.size}
    assert list(places) != sorted(places)
    start, count = places[frame]
    data = bytearray(path.read_bytes())
    data[start : start + count] = bytes(count)
    path.write_bytes(data)
    with pytest.raises(ConfigError, match=f"frame {frame} of .*clip.mp4 cannot be decoded"):
        read(path)
    assert [number for number, shown in enumerate(video_reader.decoded(path)) if shown.frame is None] == [frame]


def test_relative_path_with_colon(clip, monkeypatch):
    monkeypatch.chdir(clip.parent)
    clip.rename("10:30.avi")
    assert survey(Path("10:30.avi")).numbers == ALL


def test_implausible_rate_is_replaced(clip):
    data = clip.read_bytes()
    place = data.index(b"strh") + 28  # dwScale and dwRate of the stream
    clip.write_bytes(data[:place] + struct.pack("<II", 1, 5000) + data[place + 8 :])
    assert video_reader.rate(clip) == 25
