"""Files hold the model's predictions, also after an interruption; an error leaves no partial file."""

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import tiny

from dd_jax.config import ConfigError
from dd_jax.inference import inputs, outputs, pointcloud, trajectory
from dd_jax.inference.metric_scale import CameraHeight, Speed
from dd_jax.inference.predict import RECORDS, SETTINGS, check_output_folder, predict

FRAMES = tiny.frames(6)
SCRIPT = Path(__file__).parents[2] / "scripts/predict.py"


@pytest.fixture(scope="module")
def model():
    return tiny.model()


def write_frames(folder, images=FRAMES):
    folder.mkdir()
    for place, image in enumerate(images):
        cv2.imwrite(str(folder / f"{place}.png"), image[..., ::-1])
    return folder


@pytest.fixture
def folder(tmp_path):
    return write_frames(tmp_path / "drive")


def opened(folder, **options):
    return inputs.open_source([str(folder)], fov=64.0, **options)


def contents(out):
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def done(model, tmp_path_factory):
    """All formats of six frames."""
    root = tmp_path_factory.mktemp("done")
    source = opened(write_frames(root / "drive"))
    summary = predict(model, source, root / "out", formats=outputs.FORMATS, scale=2.0, farthest=50.0, progress=False)
    return source, root / "out", summary


def test_summary_names_every_file(done):
    _, out, summary = done
    assert (summary.frames, summary.predicted, summary.faults) == (6, 6, []) and summary.frames_per_second > 0
    found = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file() and RECORDS not in path.parts}
    named = {place.replace("*", str(frame)) for place in summary.places for frame in range(6)}
    assert found == named | {SETTINGS} and len(summary.places) == 8


def test_depth_files_equal_model_stream(done, model):
    source, out, _ = done
    for place, depth in enumerate(model.stream(FRAMES, K=source.K.astype(float), scale=2.0)):
        saved = np.load(out / f"depth/{place}.npy")
        np.testing.assert_array_equal(saved, depth)
        png = cv2.imread(str(out / f"depth_png16/{place}.png"), cv2.IMREAD_UNCHANGED)
        assert png.dtype == np.uint16
        np.testing.assert_allclose(png, depth * 256, atol=0.51)
        assert cv2.imread(str(out / f"colour/{place}.png")).shape == (90, 150, 3)


def test_point_clouds_use_intrinsics_and_image_colours(done):
    trimesh = pytest.importorskip("trimesh", reason="reading point clouds back needs `pip install -e '.[test]'`")
    source, out, _ = done
    depth = np.load(out / "depth/3.npy")
    shown = depth <= 50
    points = pointcloud.points(depth, source.K)[shown]
    cloud = trimesh.load(out / "clouds/3.ply")
    assert len(cloud.vertices) == shown.sum()
    np.testing.assert_allclose(cloud.bounds, [points.min(0), points.max(0)], rtol=1e-5)
    np.testing.assert_array_equal(np.asarray(cloud.colors)[:, :3], FRAMES[3][shown])


def test_trajectory_files_equal_model_stream(done, model):
    source, out, _ = done
    stream = model.stream(FRAMES, K=source.K.astype(float), scale=2.0)
    assert len(list(stream)) == 6
    assert (out / "trajectory_kitti.txt").read_text() == trajectory.kitti(stream.trajectory)
    rows = np.loadtxt(out / "trajectory_tum.txt")
    np.testing.assert_allclose(rows[:, 0], np.arange(6) / 10)
    np.testing.assert_allclose(rows[:, 1:4], stream.trajectory[:, :3, 3], atol=1e-8)


@pytest.mark.parametrize("batch_size", [1, 4])
def test_files_of_a_frame_step(folder, tmp_path, batch_size):
    """Depth and trajectory equal the stream's; a continued job reads the frames that the missing ones match with."""
    model, source = tiny.model_of_step(2), opened(folder)
    arguments = {"formats": ["npy", "trajectory", "viewer"], "progress": False, "batch_size": batch_size}
    predict(model, source, tmp_path / "out", **arguments)
    stream = model.stream(FRAMES, K=source.K.astype(float), batch_size=batch_size)
    for place, depth in enumerate(stream):
        np.testing.assert_array_equal(np.load(tmp_path / f"out/depth/{place}.npy"), depth)
    assert (tmp_path / "out/trajectory_kitti.txt").read_text() == trajectory.kitti(stream.trajectory)
    assert len(stream.trajectory) == len(FRAMES)
    page = (tmp_path / "out/viewer.html").read_text()
    frames = json.loads(re.search(r'<script id="scene" type="application/json">(.*?)</script>', page, re.DOTALL)[1])["frames"]
    np.testing.assert_allclose([frame["pose"] for frame in frames], stream.trajectory[:, :3], atol=1e-6)

    whole = contents(tmp_path / "out")
    for name in ("5", "4"):
        (tmp_path / "out" / RECORDS / f"{name}.npz").unlink()
        (tmp_path / f"out/depth/{name}.npy").unlink()
    assert predict(model, source, tmp_path / "out", **arguments).predicted == 2
    assert contents(tmp_path / "out") == whole


def test_other_frame_step_needs_another_folder(model, folder, tmp_path):
    predict(model, opened(folder), tmp_path / "out", formats=["npy"], progress=False)
    with pytest.raises(ConfigError, match=r"out holds depth predicted with other settings \(model differ\)"):
        predict(tiny.model_of_step(2), opened(folder), tmp_path / "out", formats=["npy"], progress=False)


def test_video_shows_every_frame(done):
    capture, count = cv2.VideoCapture(str(done[1] / "side_by_side.mp4")), 0
    while (found := capture.read())[0]:
        assert found[1].shape == (90, 300, 3)
        assert np.abs(found[1][:, :150, ::-1].astype(float) - FRAMES[count]).mean() < 40
        count += 1
    assert count == 6


def test_video_input_with_frame_range(model, tmp_path):
    writer = cv2.VideoWriter(str(tmp_path / "clip.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 10.0, (150, 90))
    for frame in FRAMES:
        writer.write(frame)
    writer.release()
    source = opened(tmp_path / "clip.avi", chosen=slice(1, 5, 2))
    summary = predict(model, source, tmp_path / "out", formats=["npy"], scale=Speed(3.0, source.rate), progress=False)
    assert summary.frames == 2
    assert sorted(path.name for path in (tmp_path / "out/depth").iterdir()) == ["000001.npy", "000003.npy"]


def same_files(found, expected):
    """Equal content; videos and the settings know when files were written."""
    assert found.keys() == expected.keys()
    assert all(found[name] == expected[name] for name in expected if name not in ("side_by_side.mp4", SETTINGS))


BATCH_OF_THREE = {"formats": outputs.FORMATS, "scale": CameraHeight(1.2), "progress": False, "batch_size": 3}


@pytest.fixture(scope="module")
def in_batches(model, tmp_path_factory):
    """All formats of six frames, three at once."""
    root = tmp_path_factory.mktemp("in_batches")
    source = opened(write_frames(root / "drive"))
    predict(model, source, root / "out", **BATCH_OF_THREE)
    return source, root / "out"


@pytest.mark.parametrize(("batch_size", "kept"), [(1, 4), (3, 3)])
def test_continued_job_writes_the_same_files(model, folder, tmp_path, batch_size, kept):
    """Frame 4 is damaged at first: complete batches stay as they are and are not predicted again."""
    arguments = BATCH_OF_THREE | {"batch_size": batch_size}
    source, data = opened(folder), (folder / "4.png").read_bytes()
    predict(model, source, tmp_path / "whole", **arguments)
    (folder / "4.png").write_bytes(data[:100])
    with pytest.raises(ConfigError, match=r"4.png is damaged or cut off"):
        predict(model, source, tmp_path / "out", **arguments)
    first = contents(tmp_path / "out")
    first.pop(SETTINGS)  # holds the modification time of each image
    assert [place for place in range(6) if f"depth/{place}.npy" in first] == list(range(kept))
    assert "side_by_side.mp4" not in first and not [name for name in first if ".partial" in name]
    whole = contents(tmp_path / "whole")
    assert all(whole[name] == value for name, value in first.items())
    times = {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in first}

    (folder / "4.png").write_bytes(data)
    summary = predict(model, opened(folder), tmp_path / "out", **arguments)
    assert (summary.predicted, summary.frames) == (6 - kept, 6)
    same_files(contents(tmp_path / "out"), whole)
    assert times == {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in first}


def test_broken_batch_is_predicted_again_as_a_whole(model, in_batches, tmp_path):
    """A job killed between the files of one batch: what was written of it stays, the rest has the same bits."""
    source, whole = in_batches
    shutil.copytree(whole, tmp_path / "out")
    for path in [*tmp_path.glob("out/*/4.*"), *tmp_path.glob("out/*/5.*"), *tmp_path.glob("out/*.mp4")]:
        path.unlink()
    record = tmp_path / "out" / RECORDS / "3.npz"
    before = record.stat().st_mtime_ns
    summary = predict(model, source, tmp_path / "out", **BATCH_OF_THREE)
    assert (summary.predicted, summary.frames) == (3, 6) and record.stat().st_mtime_ns == before
    same_files(contents(tmp_path / "out"), contents(whole))


def test_changed_input_raises(model, tmp_path):
    """Frames may be added after the last one, unless a file of all frames together exists."""
    refused = pytest.raises(ConfigError, match=r"(each|all) holds files of another input: remove it, or choose another --out")
    folder = write_frames(tmp_path / "drive", FRAMES[:3])
    for out, formats in (("each", ["npy"]), ("all", ["npy", "trajectory"])):
        predict(model, opened(folder), tmp_path / out, formats=formats, progress=False)
    for place in (3, 4):
        cv2.imwrite(str(folder / f"{place}.png"), FRAMES[place])
    assert predict(model, opened(folder), tmp_path / "each", formats=["npy"], progress=False).predicted == 2
    before = contents(tmp_path / "all")
    with refused:
        predict(model, opened(folder), tmp_path / "all", formats=["npy", "trajectory"], progress=False)
    assert contents(tmp_path / "all") == before
    shutil.rmtree(tmp_path / "each" / RECORDS)  # as a user may once all is written
    cv2.imwrite(str(folder / "2.png"), FRAMES[5])
    with refused:
        predict(model, opened(folder), tmp_path / "each", formats=["npy"], progress=False)
    (folder / "2.png").unlink()
    with refused:
        predict(model, opened(folder), tmp_path / "each", formats=["npy"], progress=False)


def test_added_frame_raises_with_future_frame(tmp_path):
    """The depth of the last frame depends on the frame that was added after it."""
    known, now = ["0 a", "1 b"], ["0 a", "1 b", "2 c"]
    (tmp_path / RECORDS).mkdir()
    (tmp_path / RECORDS / "1.npz").touch()
    claimed = {"input": known}
    (tmp_path / SETTINGS).write_text(json.dumps(claimed))
    with pytest.raises(ConfigError, match="holds files of another input"):
        check_output_folder(tmp_path, {"input": now}, ahead=1)
    claimed = {"input": ["0 a", "1 b", "2 c"]}
    (tmp_path / SETTINGS).write_text(json.dumps(claimed))
    with pytest.raises(ConfigError, match="holds files of another input"):
        check_output_folder(tmp_path, {"input": ["0 a", "1 b", "2 c", "3 d"]}, ahead=2)
    (tmp_path / SETTINGS).write_text(json.dumps({"input": known}))
    check_output_folder(tmp_path, {"input": now}, ahead=0)
    assert json.loads((tmp_path / SETTINGS).read_text()) == {"input": now}


def test_unreadable_video_writes_no_files(model, tmp_path, monkeypatch):
    source = opened(write_frames(tmp_path / "drive"))
    empty = inputs.dataclasses.replace(source, read=lambda wanted: iter(()))
    with pytest.raises(ConfigError, match=r"0.png and all frames after it cannot be read: the file is cut off or damaged"):
        predict(model, empty, tmp_path / "out", formats=outputs.FORMATS, progress=False)
    assert set(contents(tmp_path / "out")) == {SETTINGS}


def test_more_formats_need_no_prediction(model, done, tmp_path, monkeypatch):
    source, out, _ = done
    shutil.copytree(out, tmp_path / "out")
    for name in ("side_by_side.mp4", "viewer.html", "trajectory_tum.txt", "clouds/2.ply"):
        (tmp_path / "out" / name).unlink()
    monkeypatch.setattr(type(model), "start", None)
    summary = predict(model, source, tmp_path / "out", formats=outputs.FORMATS, scale=2.0, farthest=50.0, progress=False)
    assert summary.predicted == 0
    there, here = contents(out), contents(tmp_path / "out")
    assert there.keys() == here.keys() and all(here[name] == there[name] for name in there if not name.endswith(".mp4"))
    assert predict(model, source, tmp_path / "out", formats=["npy"], scale=2.0, farthest=50.0, progress=False).frames == 6


def test_folders_of_other_origin_are_not_changed(model, folder, done, tmp_path):
    source = opened(folder)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="out already holds files that were not written by a prediction: remove it, or"):
        predict(model, source, tmp_path / "out", progress=False)
    shutil.copytree(done[1], tmp_path / "other")
    before = contents(tmp_path / "other")
    with pytest.raises(ConfigError, match=r"other holds depth predicted with other settings \(network, farthest, input differ\)"):
        predict(model, source, tmp_path / "other", network="teacher", progress=False)
    (tmp_path / "other" / SETTINGS).write_text("{")
    with pytest.raises(ConfigError, match=r"predict.json cannot be read, so the settings of the files in .*other are unknown"):
        predict(model, source, tmp_path / "other", progress=False)
    assert contents(tmp_path / "other").keys() == before.keys()


def test_bad_frames_and_folders_raise(model, folder, tmp_path):
    source = opened(folder)
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"file.* cannot be written \(.*\); files written so far stay"):
        predict(model, source, tmp_path / "file/out", progress=False)
    (tmp_path / "blocked/depth").mkdir(parents=True)
    (tmp_path / "blocked").rename(tmp_path / "b")
    predict(model, source, tmp_path / "blocked", formats=["colour"], progress=False)
    (tmp_path / "blocked/depth").write_text("a file where a folder should be")
    with pytest.raises(ConfigError, match=r"blocked/depth.* cannot be written \(.*\); files written so far stay"):
        predict(model, source, tmp_path / "blocked", formats=["npy"], progress=False)
    assert cv2.imread(str(tmp_path / "blocked/colour/5.png")).shape == (90, 150, 3)

    cv2.imwrite(str(folder / "3.png"), FRAMES[3][:80])
    with pytest.raises(ConfigError, match=r"3.png has 150 x 80 pixels, the frames before it 150 x 90"):
        predict(model, opened(folder), tmp_path / "sizes", formats=["npy"], progress=False)
    assert np.load(tmp_path / "sizes/depth/0.npy").shape == (90, 150)

    for arguments, message in (
        ({"formats": ["exr"]}, "'exr' is not one of the formats npy, png16, colour, ply, mp4, trajectory, viewer"),
        ({"network": "student"}, "network='student' is not available here: choose 'auto' or 'teacher'"),
    ):
        with pytest.raises(ConfigError, match=message):
            predict(model, source, tmp_path / "none", progress=False, **arguments)
        assert not (tmp_path / "none").exists()


def test_damaged_record_raises(model, folder, tmp_path):
    source = opened(folder)
    predict(model, source, tmp_path / "out", formats=["npy"], progress=False)
    record = tmp_path / "out" / RECORDS / "2.npz"
    record.write_bytes(record.read_bytes()[:200])
    with pytest.raises(ConfigError, match=r"2.npz is damaged: delete it, then run this again"):
        predict(model, source, tmp_path / "out", formats=["colour"], progress=False)
    record.unlink()
    assert predict(model, source, tmp_path / "out", formats=["colour"], progress=False).predicted == 1


def test_masks_change_the_prediction(model, folder, tmp_path):
    source, mask = opened(folder), np.zeros((90, 150), bool)
    mask[30:70, 40:110] = True
    for out, mask_of in (("with", lambda place: mask), ("without", lambda place: None)):
        predict(model, source, tmp_path / out, formats=["npy"], mask_of=mask_of, progress=False)
    depths = [np.load(tmp_path / out / "depth/1.npy") for out in ("with", "without")]
    assert np.abs(depths[0] / depths[1] - 1).max() > 1e-4


@pytest.fixture(scope="module")
def main():
    return runpy.run_path(str(SCRIPT))["main"]


@pytest.fixture(scope="module")
def given(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("given") / "model"
    model.save(path)
    return path


def test_script_says_if_no_frame_is_a_step_before(main, folder, tmp_path, capsys, monkeypatch):
    tiny.share_compiled_prediction(monkeypatch)
    tiny.model_of_step(3).save(tmp_path / "model")
    for count, said in ((1, False), (2, True), (3, True), (4, False)):
        images = [str(folder / f"{place}.png") for place in range(count)]
        main([*images, f"--checkpoint={tmp_path / 'model'}", f"--out={tmp_path / str(count)}", "--fov=60", "--save=npy"])
        assert ("frames that are 3 apart, which these are not" in capsys.readouterr().out) == said


def test_script_prints_summary(main, given, folder, tmp_path, capsys, monkeypatch):
    tiny.share_compiled_prediction(monkeypatch)
    arguments = [str(folder), f"--checkpoint={given}", f"--out={tmp_path / 'out'}", "--intrinsics=120,120,74.5,44.5", "--viewer"]
    for none in ("--scale=none", "--scaling=none"):  # the unit of the networks, as without
        main([*arguments, "--frames=1:4", "--save=npy", none, f"--out={tmp_path / 'unit'}"])
    assert "scale" not in json.loads((tmp_path / "unit" / SETTINGS).read_text())
    main([*arguments, "--frames=1:4", "--save=npy,trajectory", "--camera-height=1.5", f"--masks={folder}"])
    printed = capsys.readouterr().out
    assert "drive: 3 frames of 150 x 90; camera: as given" in printed and "3 frames, 3 predicted now" in printed
    assert f"{tmp_path / 'out/viewer.html'}" in printed and (tmp_path / "out/depth/3.npy").is_file()
    assert json.loads((tmp_path / "out" / SETTINGS).read_text())["camera_height"] == "1.5"
    with pytest.raises(SystemExit, match=r"error: .*out holds depth predicted with other settings \(.*speed.* differ\)"):
        main([*arguments, "--frames=1:4", "--speed=10"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--checkpoint=nowhere"], "error: nowhere is not a folder"),
        (["--intrinsics=1,2,3"], "error: argument --intrinsics: four numbers are needed, fx,fy,cx,cy in pixels;"),
        (["--intrinsics=1,2,3,x"], "four numbers are needed, fx,fy,cx,cy in pixels"),
        (["--speed=fast"], "'fast': give metres per second, or oxts"),
        (["--frames=5"], "'5' must be START:END or START:END:STEP"),
        (["--fov=500"], "error: --fov=500 must lie between 0 and 180 degrees"),
        (["--save=npy,exr"], "error: 'exr' is not one of the formats"),
        (["--scaling=metres"], "'metres': give a factor, or none"),
        (["--scale=-1"], "error: scale must be a positive number: it is -1.0"),
        (["--speed=oxts"], "error: --speed=oxts is for KITTI drives"),
        (["--scale=1e300"], "error: scale is 1e+300: it must lie between 1e-30 and 1e+30"),
        (["--save="], "error: --save names no format: choose from npy, png16, colour, ply, mp4, trajectory, viewer"),
        (["--save=ply", "--cloud-depth=-1"], "error: --cloud-depth=-1 must be positive"),
        (["--save=ply", "--cloud-depth=nan"], "error: --cloud-depth=nan must be positive"),
        (["--camera-pitch=5"], "error: --camera-pitch is used with --camera-height only: give both, or neither"),
        (["--camera=3"], "error: --camera=3 is for KITTI drives"),
        (["--which=zz"], "is a single model, of step 0: which='zz' is for the checkpoints of a run"),
        (["--rate=inf", "--save=mp4"], "error: --rate=inf must be frames per second, between 0.001 and 1000"),
        (["--intrinsics=0.58,1.92,0.5,0.5"], "error: --intrinsics has the focal length fx=0.58 for frames that are 150"),
        (["--scale=1", "--speed=3"], "not allowed with argument"),
        (["--masks=nowhere"], "error: --masks=nowhere is not a folder"),
    ],
)
def test_script_rejects_bad_arguments(main, given, folder, tmp_path, capsys, changes, message):
    with pytest.raises(SystemExit) as stopped:
        main([str(folder), f"--checkpoint={given}", f"--out={tmp_path / 'out'}", *changes])
    assert message in str(stopped.value) + capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_script_rejects_truncated_model(main, given, folder, tmp_path):
    shutil.copytree(given, tmp_path / "cut")
    weights = tmp_path / "cut/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(SystemExit, match=r"error: .*model.safetensors is missing, cut off or damaged"):
        main([str(folder), f"--checkpoint={tmp_path / 'cut'}", f"--out={tmp_path / 'out'}"])


@pytest.mark.slow
def test_script_in_a_process_of_its_own(given, folder, tmp_path):
    environment = os.environ | {"PYTHONPATH": str(SCRIPT.parents[1])}
    command = [sys.executable, str(SCRIPT), str(folder), f"--checkpoint={given}", f"--out={tmp_path / 'out'}", "--save=mp4"]
    for predicted in (6, 0):
        run = subprocess.run(command, capture_output=True, text=True, cwd=SCRIPT.parents[1], env=environment)
        assert run.returncode == 0, run.stderr
        assert f"6 frames, {predicted} predicted now" in run.stdout and "60 degrees" in run.stdout
