"""Videos as cameras and programs write them: number of frames, times, fields and damage are what decoding shows."""

import av
import made_videos
import numpy as np
import pytest

from dd_jax.config import ConfigError
from dd_jax.data import video_reader

PICTURES = made_videos.views(40)
ALL = slice(None)


def read(path):
    return np.stack(list(video_reader.read(path, video_reader.survey(path, ALL).numbers, lambda place: True)))


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv", "clip.ts", "clip.avi", "clip.webm"])
def test_number_of_frames_and_rate_of_whole_files(tmp_path, name):
    codec = {"webm": "libvpx", "avi": "mpeg4"}.get(name.rpartition(".")[2], "libx264")
    found = video_reader.survey(made_videos.write(tmp_path / name, PICTURES[:12], codec), ALL)
    assert (found.numbers, found.rate, found.findings) == (range(12), 10.0, [])
    assert found.seconds is None or found.seconds == pytest.approx(np.arange(12) / 10)


def test_hidden_frames_do_not_count(tmp_path):
    """A part copied out of a video: the frames before it are stored for the decoder, and announced, but not shown."""

    def earlier(number, packet):
        packet.pts, packet.dts = (stamp - 8 * packet.duration for stamp in (packet.pts, packet.dts))
        return packet

    whole = made_videos.write(tmp_path / "whole.mp4", PICTURES[:20], g="20", bf="2")
    part = made_videos.remuxed(tmp_path / "part.mp4", whole, earlier)
    assert video_reader.announced(part) == 20
    found = video_reader.survey(part, ALL)
    assert (found.numbers, found.findings) == (range(12), [])
    assert video_reader.survey(part, slice(-5, None)).numbers == range(7, 12)
    np.testing.assert_array_equal(read(part), read(whole)[8:])


def test_dropped_frames_are_no_damage(tmp_path):
    """An AVI announces the frames that its recorder dropped."""
    whole = made_videos.write(tmp_path / "whole.avi", PICTURES[:20], "mjpeg", pix_fmt="yuvj420p", strict="-1")
    part = made_videos.remuxed(
        tmp_path / "part.avi", whole, lambda number, packet: packet if number not in (5, 6, 7, 12) else None
    )
    found = video_reader.survey(part, ALL)
    assert found.numbers == range(16) and "varies" in found.findings[0] and len(found.findings) == 1
    assert found.seconds[4:7] == pytest.approx([0.4, 0.8, 0.9])


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv"])
def test_times_are_those_of_the_container(tmp_path, name):
    seconds = [place / 10 + 60 * (place >= 5) for place in range(12)]
    path = made_videos.write(tmp_path / name, PICTURES[:12], seconds=seconds)
    found = video_reader.survey(path, ALL)
    assert found.seconds == pytest.approx(seconds) and found.rate == pytest.approx(10)
    assert "varies: the frames are 0.1 s apart, but 60.1 s before frame 000005: their time stamps are used" in found.findings[0]
    some = video_reader.survey(path, slice(1, 10, 2))
    assert some.seconds == pytest.approx(seconds[1:10:2]) and some.rate == pytest.approx(5)
    assert video_reader.survey(path, slice(0, 5)).findings == []


def test_stamps_that_start_late_or_jump_back(tmp_path):
    """Files recorded one after the other and joined: each begins at its own time."""
    clock = video_reader._Clock(rate=10.0, tick=1e-3)
    stamps = [7.0, 7.1, 7.2, None, 3.0, 3.1, 3.5]
    assert [clock(stamp) for stamp in stamps] == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.9])


def test_rounded_stamps_are_regular():
    clock = video_reader._Clock(rate=30.0, tick=1e-3)
    assert [clock(round(place / 30, 3)) for place in range(300)] == [place / 30 for place in range(300)]


def test_interlaced_frames_become_whole_pictures(tmp_path):
    path = made_videos.write(tmp_path / "clip.mp4", made_videos.interlaced(PICTURES), **{"x264-params": "bff=1"}, crf="10")
    with av.open(str(path)) as container:
        assert all(frame.interlaced_frame for frame in container.decode(video=0))
    frames = read(path)
    assert len(frames) == 20 and np.abs(frames.astype(int) - PICTURES[::2]).mean() < 2
    assert np.abs(made_videos.interlaced(PICTURES).astype(int) - PICTURES[::2]).mean() > 10
    part = list(video_reader.read(path, range(5, 9), lambda place: True))
    np.testing.assert_array_equal(part, frames[5:9])


def test_whole_pictures_marked_as_interlaced_are_not_changed(tmp_path):
    path = made_videos.write(tmp_path / "clip.mp4", PICTURES, **{"x264-params": "bff=1"})
    with av.open(str(path)) as container:
        stored = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    np.testing.assert_array_equal(read(path), stored)


def test_filled_frames_and_reports_of_the_decoder_are_named(tmp_path):
    path = made_videos.write(tmp_path / "clip.mp4", made_videos.views(12, step=1), g="1", bf="0")
    with av.open(str(path)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    data, (start, size) = bytearray(path.read_bytes()), packets[4]
    data[start + size // 2 : start + size] = bytes(size - size // 2)
    path.write_bytes(data)
    found = video_reader.survey(path, ALL)
    assert found.numbers == range(12)
    assert found.findings[0].startswith(f"FFmpeg reports errors in {path}: ")
    assert found.findings[1].startswith(f"1 frames of {path} are damaged, the first is 000004: the decoder filled the gaps")


def test_truncated_file_is_named(tmp_path):
    path = made_videos.write(tmp_path / "clip.avi", PICTURES, "mjpeg", pix_fmt="yuvj420p", strict="-1")
    with av.open(str(path)) as container:
        place = [packet.pos for packet in container.demux(video=0) if packet.size][25]
    path.write_bytes(path.read_bytes()[:place])
    found = video_reader.survey(path, ALL)
    assert found.numbers == range(25)
    assert found.findings[-1] == f"{path} ends 15 frames before its announced length: it is cut off or damaged there"
    assert video_reader.survey(path, slice(0, 10)).findings == []


def test_file_without_its_end_is_named_by_the_decoder(tmp_path):
    """As cameras leave an MP4 when they lose power: its index was to be written last."""
    path = made_videos.write(tmp_path / "clip.mp4", PICTURES[:12])
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ConfigError, match=r"clip.mp4 can be read neither .* give another file \(FFmpeg: moov atom not found\)"):
        video_reader.survey(path, ALL)


def test_codec_without_decoder_is_named(tmp_path):
    path = made_videos.write(tmp_path / "clip.mp4", PICTURES[:3])
    path.write_bytes(path.read_bytes().replace(b"avc1", b"zzzz"))
    with pytest.raises(
        ConfigError, match=r"clip.mp4 .* cannot be decoded here \(.*zzzz.*\): convert it to H.264 \(ffmpeg -i clip.mp4"
    ):
        video_reader.survey(path, ALL)


def test_av1_is_decoded(tmp_path):
    path = made_videos.write(tmp_path / "clip.mp4", PICTURES[:4], "libsvtav1", preset="12")
    assert np.abs(read(path).astype(int) - PICTURES[:4]).mean() < 6
