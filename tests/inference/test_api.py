"""The Python API: its depth is that of the evaluation."""

import doctest
import json
import subprocess
import sys

import cv2
import numpy as np
import pytest
import tiny

import dd_jax
from dd_jax.checkpoints import hub, run_folder, saved
from dd_jax.config import ConfigError, EvalConfig
from dd_jax.data.loader import eval_batches, open_split
from dd_jax.evaluation import ground_plane, metrics
from dd_jax.inference import api, preprocess
from dd_jax.method import compiled_steps
from dd_jax.report.html import METRIC_NAMES

FRAMES = tiny.frames(5)
SIZE = FRAMES[0].shape[:2]
K = np.array([[120.0, 0, 74.5], [0, 118.0, 40.0], [0, 0, 1]])


@pytest.fixture(scope="module")
def model():
    return tiny.model()


@pytest.fixture(scope="module")
def streamed(model):
    stream = model.stream(FRAMES, K=K)
    return list(stream), stream.trajectory


def test_depth_equals_evaluation(model, tmp_path):
    """The same frames as a data set, through the loader and the evaluation's own compiled prediction."""
    (tmp_path / "frames").mkdir()
    for place, frame in enumerate(FRAMES):
        cv2.imwrite(str(tmp_path / f"frames/{place}.png"), frame[..., ::-1])
    camera = {"height": 90, "width": 150, "fx": 120.0, "fy": 118.0, "cx": 74.5, "cy": 40.0}
    (tmp_path / "intrinsics.json").write_text(json.dumps(camera))
    (tmp_path / "train_files.txt").write_text("2\n")
    config = tiny.config(data={"source": "folder", "root": str(tmp_path), "split_dir": str(tmp_path)})
    _, batch = next(iter(eval_batches(open_split(config.data, "train"), [0], 1, 2)))
    found = compiled_steps.compile_predict_step(config)(model._restored.state, batch)
    for depth, disp in (
        (model.predict(FRAMES[2], previous=FRAMES[1], K=K), found.student),
        (model.predict(FRAMES[2], previous=FRAMES[1], K=K, network="teacher"), found.teacher),
        (model.predict(FRAMES[2]), found.teacher),
    ):
        np.testing.assert_allclose(depth, metrics.depth_at(np.asarray(disp[0]), SIZE, EvalConfig()), rtol=1e-5)
        assert depth.shape == SIZE and depth.dtype == np.float32


def test_stream_equals_predict(model, streamed):
    depths, _ = streamed
    assert len(depths) == len(FRAMES)
    np.testing.assert_array_equal(depths[0], model.predict(FRAMES[0]))
    for place in (1, 4):
        np.testing.assert_array_equal(depths[place], model.predict(FRAMES[place], previous=FRAMES[place - 1], K=K))


def test_batched_stream_equals_stream(model, streamed):
    """Five frames in batches of three: the second batch is padded."""
    depths, poses = streamed
    stream = model.stream(iter(FRAMES), K=K, batch_size=3)
    for depth, alone in zip(stream, depths, strict=True):
        np.testing.assert_allclose(depth, alone, rtol=1e-5)
    np.testing.assert_allclose(stream.trajectory, poses, atol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_stream_matches_with_the_frame_a_step_before(batch_size):
    model = tiny.model_of_step(2)
    stream = model.stream(iter(FRAMES), K=K, batch_size=batch_size)
    depths = list(stream)
    for place, depth in enumerate(depths):
        previous = FRAMES[place - 2] if place >= 2 else None
        np.testing.assert_allclose(depth, model.predict(FRAMES[place], previous=previous, K=K), rtol=1e-5)
    relative = [
        None if place < 2 else np.asarray(_prediction(model, FRAMES[place - 2], FRAMES[place]).T_previous_from_target)
        for place in range(5)
    ]
    assert stream.trajectory.shape == (5, 4, 4)
    np.testing.assert_allclose(stream.trajectory[2], relative[2], atol=1e-5)
    np.testing.assert_allclose(stream.trajectory[4], relative[2] @ relative[4], atol=1e-5)
    np.testing.assert_allclose(stream.trajectory[1, :3, 3], relative[2][:3, 3] / 2, atol=1e-6)


def _prediction(model, previous, frame):
    camera = preprocess.camera(K, SIZE, model.config.data)
    before, now = (preprocess.to_network_size(image, None, model.config.data, "x") for image in (previous, frame))
    return model.finish(model.start(preprocess.assemble(before, now, None, camera, model.config)), "auto")[0]


def test_saved_model_remembers_frame_step(tmp_path):
    tiny.model_of_step(3).save(tmp_path / "model")
    assert saved.read(tmp_path / "model").config.data.frame_step == 3
    assert "| previous frame | 3 frames before |" in (tmp_path / "model" / saved.CARD).read_text()


def test_trajectory_chains_relative_poses(model, streamed):
    _, poses = streamed
    expected = np.eye(4)
    camera = preprocess.camera(K, SIZE, model.config.data)
    resized = [preprocess.to_network_size(frame, None, model.config.data, "x") for frame in FRAMES]
    for place in range(5):
        if place:
            batch = preprocess.assemble(resized[place - 1], resized[place], None, camera, model.config)
            T = model.finish(model.start(batch), "auto")[0].T_previous_from_target
            expected = expected @ T
        np.testing.assert_allclose(poses[place], expected, atol=1e-6)
    assert poses.shape == (5, 4, 4)


def test_scale_applies_to_depth_and_translation(model, streamed):
    depths, poses = streamed
    stream = model.stream(FRAMES, K=K, scale=3.0)
    for depth, unscaled in zip(stream, depths, strict=True):
        np.testing.assert_allclose(depth, 3 * unscaled, rtol=1e-6)
    np.testing.assert_allclose(stream.trajectory[:, :3, 3], 3 * poses[:, :3, 3], rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose(stream.trajectory[:, :3, :3], poses[:, :3, :3], atol=1e-9)


def test_metric_scales(model):
    truth = np.random.default_rng(0).uniform(2, 60, SIZE).astype(np.float32)
    depth = model.predict(FRAMES[1], previous=FRAMES[0], K=K, scale=dd_jax.Median(truth))
    valid = metrics.valid_pixels(truth, model.config.eval)
    assert np.median(depth[valid]) == pytest.approx(np.median(truth[valid]), rel=1e-5)

    frame, camera = tiny.frames(1, *model.size)[0], dd_jax.camera_from_fov(80.0, model.size)
    depth = model.predict(frame, K=camera, scale=dd_jax.CameraHeight(1.5))
    assert ground_plane.camera_height(1 / depth, camera) == pytest.approx(1.5, rel=1e-3)

    stream = model.stream(FRAMES[:2], K=K, scale=dd_jax.Speed(20.0, rate=10.0))
    assert len(list(stream)) == 2 and np.linalg.norm(stream.trajectory[1, :3, 3]) == pytest.approx(2.0, rel=1e-5)


def test_masks_change_the_prediction(model):
    mask = np.zeros(SIZE, bool)
    mask[30:70, 40:110] = True
    free = model.predict(FRAMES[1], previous=FRAMES[0], K=K)
    disentangled = model.predict(FRAMES[1], previous=FRAMES[0], K=K, mask=mask, previous_mask=mask)
    assert np.abs(disentangled / free - 1).max() > 1e-4
    last = list(model.stream(FRAMES[:2], K=K, masks=[mask, mask]))[1]
    np.testing.assert_array_equal(last, disentangled)


def test_save_load_round_trip(model, tmp_path, monkeypatch):
    tiny.share_compiled_prediction(monkeypatch)
    model.save(tmp_path / "given")
    again = dd_jax.load(tmp_path / "given")
    assert again.digest == model.digest and again.size == (64, 96) and again.step == 0
    np.testing.assert_array_equal(again.predict(FRAMES[0]), model.predict(FRAMES[0]))


def test_load_run_folder_or_its_checkpoints(model, tmp_path):
    with run_folder.Writer(tmp_path / "run", model.config) as writer:
        writer.save(model._restored.state.replace(opt_state={}), {})
    for path in (tmp_path / "run", str(tmp_path / "run/checkpoints")):
        assert dd_jax.load(path).digest == model.digest


def test_camera_from_fov():
    found = dd_jax.camera_from_fov(90.0, (40, 100))
    np.testing.assert_allclose(found, [[50, 0, 49.5], [0, 50, 19.5], [0, 0, 1]])
    with pytest.raises(ConfigError, match="between 0 and 180 degrees"):
        dd_jax.camera_from_fov(200.0, (40, 100))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"frame": FRAMES[0].astype(int)}, "the frame must be uint8, or float in .0, 1.: it is int64"),
        ({"frame": FRAMES[0][..., :1]}, r"the frame must be an array of shape \(H, W, 3\), RGB: it is \[90, 150, 1\]"),
        ({"previous": FRAMES[0][:80]}, "the previous frame has 150 x 80 pixels, the frames before it 150 x 90"),
        ({"previous": FRAMES[0], "K": None}, "matching with the previous frame needs the camera: give K"),
        ({"previous": FRAMES[0], "K": np.eye(4)}, r"K must be an array of shape \(3, 3\)"),
        ({"K": None, "scale": dd_jax.CameraHeight()}, "CameraHeight needs the camera: give K"),
        ({"network": "student"}, "the student matches with the previous frame: give previous="),
        ({"network": "flow"}, "network='flow' is not one of 'auto', 'student', 'teacher'"),
        ({"following": FRAMES[1]}, "this model does not use the following frame"),
        ({"previous_mask": np.zeros((3, 3), bool)}, "previous_mask= is given without its frame: give previous= too"),
        ({"following_mask": np.zeros(SIZE, bool)}, "following_mask= is given without its frame: give following= too"),
        ({"K": np.array([[0.58, 0, 0.5], [0, 1.92, 0.5], [0, 0, 1]])}, "fx=0.58 for frames that are 150 pixels wide, nearly"),
        ({"mask": np.zeros((3, 3), bool)}, r"the mask of the frame must be an array of shape \[90, 150\]"),
        ({"scale": dd_jax.Speed(5.0, rate=10.0)}, "the frame does not determine the scale: Speed needs two frames"),
        ({"scale": dd_jax.Median(np.zeros(SIZE))}, "the frame does not determine the scale: Median needs ground truth with"),
    ],
)
def test_invalid_arguments_raise(model, arguments, message):
    with pytest.raises(ConfigError, match=message):
        model.predict(**{"frame": FRAMES[1], "K": K} | arguments)


def test_invalid_streams_raise(model):
    for arguments, message in (
        ({"frames": [FRAMES[0], FRAMES[1][:80]]}, "frame 1 has 150 x 80 pixels, the frames before it 150 x 90"),
        ({"frames": FRAMES, "masks": [None]}, "masks end before frame 1: give one for each frame"),
        ({"frames": FRAMES, "K": None}, "matching with the previous frame needs the camera"),
        ({"frames": FRAMES, "batch_size": 0}, "batch_size=0 must be positive"),
        ({"frames": FRAMES, "network": "student"}, "the first frame of a stream has no previous frame"),
    ):
        with pytest.raises(ConfigError, match=message):
            list(model.stream(**{"K": K} | arguments))
    empty = model.stream([], K=K)
    assert list(empty) == [] and empty.trajectory.shape == (0, 4, 4)


def test_load_from_hub(model, tmp_path, monkeypatch):
    saved.write(tmp_path / "cached", model._restored)
    fetched = []
    monkeypatch.setattr(hub, "fetch", lambda *arguments: (fetched.append(arguments), tmp_path / "cached")[1])
    assert dd_jax.load("hf://owner/name@v1").digest == model.digest
    assert fetched == [("hf://owner/name@v1", (saved.WEIGHTS, saved.ABOUT), (saved.SCORES,))]


def test_saved_model_has_scores_of_the_run(model, tmp_path):
    with run_folder.Writer(tmp_path / "run", model.config) as writer:
        writer.save(model._restored.state.replace(opt_state={}), {})
    row = dict.fromkeys(METRIC_NAMES, 0.125) | {"pixels": 3}
    (tmp_path / "run/metrics.json").write_text(json.dumps({"student": {"all": row}}))
    for place in ("run", "run/checkpoints", "first"):  # also from a saved copy
        dd_jax.load(tmp_path / place).save(tmp_path / "first")
        assert "| student | all | 0.1250 |" in (tmp_path / "first/README.md").read_text()
    (tmp_path / "run/metrics.json").write_text("{")
    with pytest.raises(ConfigError, match=r"run/metrics\.json is not the result of an evaluation"):
        dd_jax.load(tmp_path / "run").save(tmp_path / "second")
    assert not (tmp_path / "second").exists()


def test_missing_model_raises(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere is not a folder: name the folder of a run, one that model.save wrote, hf"):
        dd_jax.load(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="no checkpoint in"):
        dd_jax.load(tmp_path)


def test_single_frame_and_future_frame_models():
    """Inputs that they need, and inputs that raise; one compilation each."""
    single = api.Model(tiny.restored(tiny.config(model={"student": False}, domd={"enabled": False})))
    with pytest.raises(ConfigError, match="this model has no student, only a single-frame network: use network='auto'"):
        single.predict(FRAMES[1], previous=FRAMES[0], K=K, network="student")
    stream = single.stream(FRAMES[:2])  # without a camera
    np.testing.assert_array_equal(list(stream)[1], single.predict(FRAMES[1]))
    assert np.abs(stream.trajectory[1] - np.eye(4)).max() > 0

    config = tiny.config(cost_volume={"future_frame": True})
    model = api.Model(tiny.restored(config))
    depths = list(model.stream(FRAMES[:3], K=K))
    matched = model.predict(FRAMES[1], previous=FRAMES[0], following=FRAMES[2], K=K)
    np.testing.assert_array_equal(depths[1], matched)
    np.testing.assert_array_equal(depths[2], model.predict(FRAMES[2], previous=FRAMES[1], K=K))
    assert np.abs(matched / model.predict(FRAMES[1], previous=FRAMES[0], K=K) - 1).max() > 1e-6


def test_docstring_example(model, tmp_path, monkeypatch):
    tiny.share_compiled_prediction(monkeypatch)
    saved.write(tmp_path / "runs/kitti", model._restored)
    monkeypatch.chdir(tmp_path)
    examples = doctest.DocTestFinder().find(api.Model, "Model", globs={"frames": FRAMES[:3]})
    runner = doctest.DocTestRunner()
    results = [runner.run(example) for example in examples]
    assert sum(result.failed for result in results) == 0 and sum(result.attempted for result in results) >= 8


def test_package_exports():
    assert set(dd_jax.__all__) <= set(dir(dd_jax)) and dd_jax.load is api.load
    with pytest.raises(AttributeError, match="'dd_jax' has no attribute 'nothing'"):
        _ = dd_jax.nothing


def test_messages_without_type_checks():
    """Without the type checker of the tests, a user's mistakes also raise ConfigError; ``import dd_jax`` is cheap."""
    code = """
import sys, types, dd_jax
assert not {"jax", "flax", "numpy", "cv2"} & set(sys.modules)
import numpy as np
from dd_jax.inference import api, metric_scale, preprocess
from dd_jax import config
def report(function, *arguments):
    try: function(*arguments)
    except config.ConfigError as error: print(error)
data = config.DataConfig()
report(metric_scale.Scaler, "metres", config.EvalConfig())
report(metric_scale.Scaler, metric_scale.CameraHeight("high"), config.EvalConfig())
for given in ("10", None, np.array(20.0)):
    report(metric_scale.Scaler, metric_scale.Speed(given, 10), config.EvalConfig())
for scale in (metric_scale.Median(None),):
    report(metric_scale.Scaler, scale, config.EvalConfig())
report(metric_scale.Scaler, metric_scale.CameraHeight(1.5, "x"), config.EvalConfig())
prediction = metric_scale.Prediction(np.ones((4, 4), np.float32), np.eye(4), "student")
for scale in (metric_scale.Speed(["fast"], 10), metric_scale.Median(np.zeros((0, 4))), metric_scale.Median(["map"])):
    report(metric_scale.Scaler(scale, config.EvalConfig()).factor, prediction, np.eye(3))
model = types.SimpleNamespace(config=config.Config(), choose=lambda *_: None)
report(lambda: api.Model.stream(model, None))
report(lambda: api.Model.stream(model, [], masks=3))
report(preprocess.as_uint8, "frame.png", "the frame")
report(preprocess.camera, [[1, 0, 0]], (10, 10), data)
report(preprocess.to_network_size, np.zeros((4, 4, 3), np.uint8), "mask.png", data, "frame 3")
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=api.__file__.rsplit("/", 3)[0])
    assert run.returncode == 0, run.stderr
    speeds = "Speed takes a number of metres per second, or one per frame"
    truths = "Median takes a depth map in metres, 0 = unknown, or one per frame"
    assert run.stdout.splitlines() == [
        "scale='metres' is not a number, Median, CameraHeight or Speed",
        "the camera height must be a positive number: it is 'high'",
        *(f"{speeds}: it was given {given}" for given in ("'10'", None, "array(20.)")),
        f"{truths}: it was given None",
        "the camera pitch is 'x': give degrees downwards, between -90 and 90",
        f"{speeds}: 'fast' is not a number",
        *[f"{truths}: each must be a two-dimensional array"] * 2,
        "frames must be a sequence of arrays, such as a list or a generator: it is None",
        "masks must be a sequence of arrays, such as a list or a generator: it is 3",
        "the frame must be an array of shape (H, W, 3), RGB: it is str",
        "K must be an array of shape (3, 3), in pixels of the frame: it is list",
        "the mask of frame 3 must be an array of shape [4, 4]: it is str",
    ]
