import json
import math
import runpy
import subprocess
import sys
from pathlib import Path

import av
import cv2
import made_videos
import numpy as np
import pytest

from dd_jax.config import ConfigError, DataConfig
from dd_jax.data import video_camera
from dd_jax.data.loader import open_split
from dd_jax.prepare import video, video_report

SCRIPT = Path(__file__).parents[2] / "scripts/prepare_video.py"


@pytest.fixture
def clip(tmp_path, picture):
    """A view sliding over a wide image: moving for 10 frames, static for 8, moving for 6. A block moves in all frames."""

    def write(name="drive.avi", height=96, width=160):
        path = tmp_path / name
        wide = picture(0, height, width * 2)
        noise = np.random.default_rng(1).integers(0, 256, (height // 4, width // 2), dtype=np.uint8)
        wide = wide // 2 + cv2.resize(noise, (width * 2, height))[..., None] // 2
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (width, height))
        assert writer.isOpened()
        offset = 0
        for frame in range(24):
            view = wide[:, offset : offset + width].copy()
            view[40:60, frame * 5 : frame * 5 + 20] = (0, 0, 255)
            writer.write(view)
            offset += 0 if 9 <= frame < 17 else 3
        writer.release()
        return path

    return write


CAMERA = (150.0, 150.0, 80.0, 48.0)


def names(folder):
    return sorted(path.stem for path in folder.iterdir() if path.suffix in (".jpg", ".png"))


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_static_frames_left_out(clip, tmp_path):
    result = video.prepare(clip(), tmp_path / "out", fov=60.0)
    assert names(result.folder) == [f"{frame:06d}" for frame in [*range(10), *range(18, 24)]]
    assert (result.kept, result.static) == (16, 8)


def test_output_is_trainable(clip, tmp_path):
    video.prepare(clip(), tmp_path / "out", fov=60.0)
    video.prepare(clip("second.avi"), tmp_path / "out", intrinsics=(100.0, 101.0, 80.0, 48.0))
    source = open_split(DataConfig(source="folder", root=str(tmp_path / "out"), height=96, width=160), "train")
    focal = 80 / math.tan(math.radians(30))
    np.testing.assert_allclose(source[0].K, [[focal, 0, 79.5], [0, focal, 47.5], [0, 0, 1]], rtol=1e-5)
    np.testing.assert_allclose(source[len(source) - 1].K, [[100, 0, 80], [0, 101, 48], [0, 0, 1]], rtol=1e-5)
    assert source.name(0) == "drive 000001" and source[0].exists.all()


def test_every_start_and_end_select_frames(clip, tmp_path):
    result = video.prepare(clip(), tmp_path / "out", fov=60.0, every=2, start=0.4, end=2.0, min_motion=0.0, suffix="png")
    assert names(result.folder) == [f"{frame:06d}" for frame in range(4, 20, 2)] and result.static == 0
    assert (result.folder / "000004.png").is_file()


def test_unreadable_input_raises(clip, tmp_path):
    (tmp_path / "text.mp4").write_text("no video")
    for name in ("text.mp4", "absent.mp4"):
        with pytest.raises(ConfigError, match=f"{name} can be read neither as .* nor as a video"):
            video.prepare(tmp_path / name, tmp_path / "out", fov=60.0)
    path = clip()
    with pytest.raises(ConfigError, match=r"--fov=200"):
        video.prepare(path, tmp_path / "out", fov=200.0)
    with pytest.raises(ConfigError, match=r"--intrinsics.*cx=200.*160 x 96"):
        video.prepare(path, tmp_path / "out", intrinsics=(100.0, 100.0, 200.0, 48.0))
    with pytest.raises(ConfigError, match=r"--intrinsics: .* likely those of a picture of about 120 x 72: give all four"):
        video.prepare(path, tmp_path / "out", intrinsics=(100.0, 100.0, 59.5, 35.5))
    for camera in ({}, {"fov": 60.0, "guess": True}):
        with pytest.raises(ConfigError, match=r"give the camera as --intrinsics.*--fov.*--guess"):
            video.prepare(path, tmp_path / "out", **camera)
    for camera in ({"fov": 60.0, "distortion": (0.1, 0.0, 0.0, 0.0)}, {"intrinsics": CAMERA, "distortion": (0.1,)}):
        with pytest.raises(ConfigError, match=r"--distortion=k1,k2,p1,p2\[,k3\] needs a calibrated camera"):
            video.prepare(path, tmp_path / "out", **camera)
    with pytest.raises(ConfigError, match=r"no readable frame between --start=9"):
        video.prepare(path, tmp_path / "out", fov=60.0, start=9.0)
    with pytest.raises(ConfigError, match=r"--every=0"):
        video.prepare(path, tmp_path / "out", fov=60.0, every=0)
    assert not (tmp_path / "out").exists()


def test_foreign_files_and_other_settings_raise(clip, tmp_path):
    path = clip()
    video.prepare(path, tmp_path / "out", fov=60.0)
    with pytest.raises(ConfigError, match=r"drive holds frames extracted with other settings \(every 1 instead of 2\): remove"):
        video.prepare(path, tmp_path / "out", fov=60.0, every=2)
    (tmp_path / "out/frames/drive/video.json").unlink()
    with pytest.raises(ConfigError, match=r"drive already holds other files than extracted frames: remove the folder"):
        video.prepare(path, tmp_path / "out", fov=60.0)


def test_finished_extraction_not_repeated(clip, tmp_path, monkeypatch):
    path = clip()
    first = video.prepare(path, tmp_path / "out", fov=60.0)
    before = contents(first.folder)
    monkeypatch.setattr(video, "_extract", None)  # fails if called
    assert repr(video.prepare(path, tmp_path / "out", fov=60.0)) == repr(first)  # NaN equals nothing
    assert contents(first.folder) == before


def test_deleted_frames_not_counted_as_kept(clip, tmp_path):
    path = clip()
    folder = video.prepare(path, tmp_path / "out", fov=60.0).folder
    for frame in (3, 4):
        (folder / f"{frame:06d}.jpg").unlink()
    result = video.prepare(path, tmp_path / "out", fov=60.0)
    assert (result.kept, result.static, result.count(video.DELETED)) == (14, 8, 2)
    assert [row.frame for row in result.rows if row.outcome == video.DELETED] == [3, 4]


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("frames.csv", "garbage\n1,2\n", r"frames.csv is damaged \(KeyError\('frame'\)\): remove the folder to extract"),
        ("frames.csv", "frame,outcome,motion,parallax,sharpness\n1,kept\n", r"frames.csv is damaged \(TypeError"),
        ("frames.csv", "frame,outcome,motion,parallax,sharpness\n1,kept,a,b,c\n", r"frames.csv is damaged \(ValueError"),
        ("found", {"rate": 1.0}, r"video.json is damaged, 'found' must hold rate, .*, missing: remove the folder to extract"),
        ("found", None, r"video.json is damaged, 'found' must hold rate"),
        ("found", {"rate": 1.0, "width": "w", "height": 9, "camera": "", "missing": 0}, r"video.json is damaged"),
    ],
)
def test_damaged_notes_named(clip, tmp_path, name, content, complaint):
    path = clip()
    folder = video.prepare(path, tmp_path / "out", fov=60.0).folder
    if name == "found":
        settings = json.loads((folder / "video.json").read_text())
        (folder / "video.json").write_text(json.dumps(settings | {"found": content}))
    else:
        (folder / name).write_text(content)
    with pytest.raises(ConfigError, match=complaint):
        video.prepare(path, tmp_path / "out", fov=60.0)


@pytest.mark.parametrize("killed_at", [0, 1, 7, 12, 40, 43])
def test_killed_extraction_resumes_identically(clip, tmp_path, monkeypatch, killed_at):
    """Killed at the n-th write: settings, camera, journal, then an image and a line for each frame."""
    path, options = clip(), {"intrinsics": CAMERA, "distortion": (-0.1, 0.0, 0.0, 0.0)}
    whole = video.prepare(path, tmp_path / "whole", **options)
    written = []

    def mortal(function):
        def call(*arguments):
            written.append(arguments)
            if len(written) > killed_at:
                raise KeyboardInterrupt
            return function(*arguments)

        return call

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(video.files, "replace", mortal(video.files.replace))
        patch.setattr(video._Extractor, "_note", mortal(video._Extractor._note))
        video.prepare(path, tmp_path / "parts", **options)
    journal = tmp_path / "parts/frames/drive/frames.csv"
    if journal.is_file():
        with journal.open("a") as file:
            file.write("23,ke")  # an incomplete line
    parts = video.prepare(path, tmp_path / "parts", **options)
    assert contents(parts.folder) == contents(whole.folder)
    assert repr(parts.rows) == repr(whole.rows)


def test_damaged_and_resized_frames_are_counted_and_left_out(clip, tmp_path, monkeypatch):
    capture, path = cv2.VideoCapture(str(clip())), tmp_path / "clip.mjpeg"
    images = [capture.read()[1] for _ in range(9)]
    images[6] = images[6][:48, :80]
    parts = [cv2.imencode(".jpg", image)[1].tobytes() for image in images]
    for place in (0, 4):
        parts[place] = parts[place][:20] + bytes(len(parts[place]) - 20)
    path.write_bytes(b"".join(parts))
    monkeypatch.setattr(video.video_reader, "missing", lambda _: 15)
    result = video.prepare(path, tmp_path / "out", fov=60.0)
    assert names(result.folder) == [f"{frame:06d}" for frame in (1, 2, 3, 5, 7, 8)]
    assert (result.count(video.UNREADABLE), result.count(video.RESIZED), result.missing) == (2, 1, 15)
    sizes = {cv2.imread(str(file)).shape for file in result.folder.glob("*.jpg")}
    assert sizes == {(96, 160, 3)} and (result.width, result.height) == (160, 96)
    assert len(open_split(DataConfig(source="folder", root=str(tmp_path / "out"), height=96, width=160), "train"))


def test_colours_of_written_frames(clip, tmp_path):
    path = clip()
    result = video.prepare(path, tmp_path / "out", fov=60.0, suffix="png")
    assert np.abs(cv2.imread(str(result.folder / "000000.png")).astype(int) - cv2.VideoCapture(str(path)).read()[1]).mean() < 0.5


def test_truncated_video(clip, tmp_path):
    path = clip()
    data = path.read_bytes()
    starts = [place for place in range(len(data) - 1) if data[place : place + 2] == b"\xff\xd8"]
    path.write_bytes(data[: starts[7] + 50])
    result = video.prepare(path, tmp_path / "out", fov=60.0)
    assert result.kept == 7 and result.missing == 17


def test_damage_in_the_middle(clip, tmp_path):
    path = clip()
    data = bytearray(path.read_bytes())
    starts = [place for place in range(len(data) - 1) if data[place : place + 2] == b"\xff\xd8"]
    for place in (0, 7, 8):
        count = int.from_bytes(data[starts[place] - 4 : starts[place]], "little")
        data[starts[place] : starts[place] + count] = bytes(count)
    path.write_bytes(data)
    result = video.prepare(path, tmp_path / "out", fov=60.0)
    assert [row.frame for row in result.rows if row.outcome == video.UNREADABLE] == [0, 7, 8]
    assert (len(result.rows), result.missing) == (len(starts), 0) and result.kept > 9


def test_start_and_end_are_times_of_the_container(tmp_path):
    """Ten frames in a second, then two in a second: the file states a mean rate of four."""
    seconds = [place / 10 if place < 10 else place / 2 - 4 for place in range(18)]
    path = made_videos.write(tmp_path / "clip.mkv", made_videos.views(18), seconds=seconds)
    result = video.prepare(path, tmp_path / "out", fov=60.0, start=0.5, end=2.5)
    assert names(result.folder) == [f"{frame:06d}" for frame in range(5, 13)]
    assert [row.seconds for row in result.rows] == pytest.approx(seconds[5:13])
    (line,) = (line for line in video_report.sentences(result) if line.startswith("frame rate"))
    assert "varies, every frame taken, so neighbours are 0.1 s apart, but 0.5 s before 000011" in line


def test_blank_dark_and_repeated_frames_are_named(tmp_path):
    shown = made_videos.views(12)
    shown[0], shown[4], shown[7] = 0, 120, shown[6]
    path = made_videos.write(tmp_path / "clip.mkv", shown, "ffv1")
    result = video.prepare(path, tmp_path / "out", fov=60.0)
    assert [row.frame for row in result.rows if row.outcome == video.BLANK] == [0, 4]
    assert [row.frame for row in result.rows if row.outcome == video.REPEATED] == [7]
    text = "\n".join(video_report.sentences(result))
    assert "blank: 2 frames have a single colour and are left out, the first is 000000" in text
    assert "repeated: 1 frames equal the one before" in text and "brightness" not in text
    dark = video.prepare(made_videos.write(tmp_path / "dark.mkv", shown // 8, "ffv1"), tmp_path / "out", fov=60.0)
    text = "\n".join(video_report.sentences(dark))
    assert "brightness: 9 frames are dark, without a pixel of 64 of 255, the first is 000001" in text
    path = made_videos.write(tmp_path / "black.mkv", 0 * shown, "ffv1")
    with pytest.raises(
        ConfigError, match=r"black.mkv has no frame with more than a single colour between --start=0 and --end=inf"
    ):
        video.prepare(path, tmp_path / "out", fov=60.0)


def test_frames_that_the_decoder_fills_are_left_out(tmp_path):
    path = made_videos.write(tmp_path / "clip.mp4", made_videos.views(12, step=1), g="1", bf="0")
    with av.open(str(path)) as container:
        start, size = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size][4]
    data = bytearray(path.read_bytes())
    data[start + size // 2 : start + size] = bytes(size - size // 2)
    path.write_bytes(data)
    result = video.prepare(path, tmp_path / "out", fov=60.0, min_motion=0.0)
    assert [row.frame for row in result.rows if row.outcome == video.UNREADABLE] == [4] and not result.missing
    (line,) = (line for line in video_report.sentences(result) if line.startswith("decoder"))
    assert line.startswith(f"decoder: FFmpeg reports errors in {path}: ")
    again = video.prepare(path, tmp_path / "out", fov=60.0, min_motion=0.0)
    assert video_report.sentences(again) == video_report.sentences(result)


def test_notes_of_earlier_versions_are_read(clip, tmp_path):
    """They have no time stamps and no reports of the decoder."""
    path = clip()
    folder = video.prepare(path, tmp_path / "out", fov=60.0).folder
    settings = json.loads((folder / "video.json").read_text())
    del settings["found"]["reported"]
    (folder / "video.json").write_text(json.dumps(settings))
    lines = [line.split(",")[:5] for line in (folder / "frames.csv").read_text().splitlines()]
    (folder / "frames.csv").write_text("".join(f"{','.join(cells)}\n" for cells in lines))
    result = video.prepare(path, tmp_path / "out", fov=60.0)
    assert result.kept == 16 and result.reported == "" and math.isnan(result.rows[3].seconds)
    assert any(
        "10 per second, every frame taken, so neighbours are 0.1 s apart" in line for line in video_report.sentences(result)
    )


def test_undistorted_frames_have_new_intrinsics(clip, tmp_path):
    result = video.prepare(clip(), tmp_path / "out", intrinsics=CAMERA, distortion=(-0.2, 0.02, 0.0, 0.0))
    camera = json.loads((result.folder / "intrinsics.json").read_text())
    expected, _ = video_camera.undistortion(CAMERA, (-0.2, 0.02, 0.0, 0.0), 160, 96)
    assert tuple(camera[key] for key in ("fx", "fy", "cx", "cy")) == expected != CAMERA


def test_guessed_camera_reported(clip, tmp_path):
    result = video.prepare(clip(), tmp_path / "out", guess=True)
    camera = json.loads((result.folder / "intrinsics.json").read_text())
    assert camera["fx"] == pytest.approx(80 / math.tan(math.radians(30)))
    assert "60 degrees" in result.camera


def test_full_disk_raises(clip, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(video.files, "replace", full)
    with pytest.raises(ConfigError, match=r"drive cannot be written \(No space left on device\): make room and run it again"):
        video.prepare(clip(), tmp_path / "out", fov=60.0)


def test_script_report(clip, tmp_path, capsys):
    main = runpy.run_path(str(SCRIPT))["main"]
    main([str(clip()), "--out", str(tmp_path / "out"), "--intrinsics=100,101,80,48", "--every", "3"])
    out = capsys.readouterr().out
    assert "6 kept of 8 checked, 2 left out" in out and "every 3rd frame taken" in out
    picture = cv2.imread(str(tmp_path / "out/check_drive.jpg"))
    assert picture.shape == (3 * 96 + 8, 2 * 160 + 4, 3)
    assert json.loads((tmp_path / "out/frames/drive/intrinsics.json").read_text())["fy"] == 101


@pytest.mark.parametrize(
    ("camera", "message"),
    [
        (["--intrinsics=1,2,3"], "argument --intrinsics: four numbers are needed, fx,fy,cx,cy in pixels"),
        (["--fov=60", "--distortion=1,x,3,4"], "give four or five numbers, k1,k2,p1,p2 or k1,k2,p1,p2,k3"),
    ],
)
def test_script_rejects_bad_numbers(tmp_path, camera, message):
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(SCRIPT))["main"](["clip.mp4", f"--out={tmp_path}", *camera])
    assert message in str(stopped.value)


def test_script_error(tmp_path):
    path = tmp_path / "text.mp4"
    path.write_text("no video")
    run = subprocess.run([sys.executable, SCRIPT, path, "--out", tmp_path, "--fov=60"], capture_output=True, text=True)
    assert run.returncode == 1 and run.stderr.startswith(f"error: {path} can be read neither as ") and run.stderr.count("\n") == 1
