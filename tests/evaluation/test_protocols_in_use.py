"""Protocols other than the checkpoint's, scaling other than by medians, and the samples in the report."""

import json

import cv2
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from fakes import FakeSource, oracle, settings
from tiny import HEIGHT, WIDTH, config

from dd_jax.checkpoints import run_folder
from dd_jax.config import ConfigError
from dd_jax.config.protocols import describe, protocol
from dd_jax.config.rules import validate
from dd_jax.data.frames import GroundTruth, intrinsics
from dd_jax.data.loader import open_split
from dd_jax.evaluation import evaluate
from dd_jax.method import compiled_steps
from dd_jax.types import TrainState


def test_given_scale_replaces_median_scaling():
    source = FakeSource(5)
    cfg = settings(scaling="given", scale=30.0)
    results = evaluate.evaluate(oracle(source), source, cfg, ("student", "mean_map"), train_truth=source)
    assert results.metrics["student"]["all"]["abs_rel"] == pytest.approx(0, abs=1e-5)
    assert results.scales["student"] == {"median": 30.0, "relative_std": 0.0}
    assert results.scales["mean_map"]["median"] == 1.0  # it is in metres
    wrong = evaluate.evaluate(oracle(source), source, settings(scaling="given", scale=33.0), ("student",))
    assert wrong.metrics["student"]["all"]["abs_rel"] == pytest.approx(0.1, rel=1e-4)


def test_metric_predictions_are_taken_as_they_are():
    source = FakeSource(5)
    results = evaluate.evaluate(oracle(source, factor=1.0), source, settings(scaling="none", scale=30.0), ("student",))
    assert results.metrics["student"]["all"]["abs_rel"] == pytest.approx(0, abs=1e-5)
    assert results.scales["student"] == {"median": 1.0, "relative_std": 0.0}
    assert "and taken as metres" in describe(settings(scaling="none").eval)


@pytest.mark.parametrize("size", [(HEIGHT, WIDTH), (2 * HEIGHT, 3 * WIDTH)])
def test_camera_height_scaling_at_any_size(size):
    """A road 1.65 m below the camera, predicted in a unit of 20 m; intrinsics are for the training size."""
    K = np.array([[60, 0, 48], [0, 62, 31], [0, 0, 1]], np.float32)
    own = intrinsics(60.0, 62.0, 48.0, 31.0, (HEIGHT, WIDTH), size, "")
    slope = (np.arange(size[0]) - own[1, 2]) / own[1, 1]
    disp = np.repeat(np.maximum(20 * slope / 1.65, 0.2)[:, None], size[1], axis=1).astype(np.float32)
    assert evaluate.scale_factor(disp, K, settings(scaling="camera_height")) == pytest.approx(20, rel=1e-4)
    lower = settings(scaling="camera_height", camera_height=1.1)
    assert evaluate.scale_factor(disp, K, lower) == pytest.approx(20 * 1.1 / 1.65, rel=1e-4)
    assert evaluate.scale_factor(disp, K, settings()) is None


def test_object_masks_at_network_size():
    """Nearest neighbour from the mask file to training size, then to that of the ground truth."""
    rng = np.random.default_rng(0)
    shape = (2 * HEIGHT, 3 * WIDTH)
    dynamic = rng.uniform(size=shape) < 0.4
    truth = GroundTruth(rng.uniform(3, 60, shape).astype(np.float32), dynamic)
    disp = rng.uniform(0.02, 0.3, (HEIGHT, WIDTH)).astype(np.float32)

    def pixels(way):
        found = evaluate.image_scores({"net": disp}, {}, truth, np.eye(3), settings(object_masks=way))["net"]
        return found["dynamic"]["pixels"], found["static"]["pixels"]

    assert pixels("native") == (dynamic.sum(), (~dynamic).sum())
    coarse = dynamic[1::2, 1::3].repeat(2, axis=0).repeat(3, axis=1)  # at the centres of the coarse pixels
    assert pixels("network") == (coarse.sum(), (~coarse).sum()) != pixels("native")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("scaling", "mean", "eval.scaling='mean' is not one of 'median', 'given', 'none', 'camera_height'"),
        ("object_masks", "half", "eval.object_masks='half' is not one of 'native', 'network'"),
        ("scale", 0.0, "eval.scale=0.0 must be positive"),
        ("camera_height", -1.65, "eval.camera_height=-1.65 must be positive"),
        ("camera_pitch", 90.0, "eval.camera_pitch=90.0 must be between -90 and 90 degrees"),
    ],
)
def test_invalid_scaling_raises(field, value, message):
    with pytest.raises(ConfigError, match=message):
        validate(config(eval={field: value}))


def test_panels_of_worst_and_best_samples():
    source = FakeSource(9)
    right = oracle(source)

    def predict(images):
        """The upper eighth of sample i has an error that grows with i."""
        index = images.images[:, 1, 0, 0, 0].astype(float)
        result = right(images)
        return result.replace(student=result.student.at[:, :8].multiply(1 + 0.01 * index[:, None, None]))

    results = evaluate.evaluate(predict, source, settings(), num_panels=1, num_extremes=3)
    assert [frame.name for frame in results.worst] == ["sample 8", "sample 7", "sample 6"]
    assert [frame.name for frame in results.best] == ["sample 0", "sample 1", "sample 2"]
    assert list(results.panels) == ["sample 4"]
    measured = dict(results.images)
    for frame in results.worst + results.best:
        assert frame.scores is measured[frame.name] and frame.panel.shape == results.panels["sample 4"].shape
    assert results.worst[0].scores["student"]["all"]["abs_rel"] > results.best[0].scores["student"]["all"]["abs_rel"]


def test_checkpoint_with_another_protocol_keeps_files_of_run(tmp_path, monkeypatch):
    source = FakeSource(4)
    state = TrainState(
        step=jnp.int32(7), params={"teacher": {"w": jnp.ones(2)}}, batch_stats={}, opt_state=(), depth_range=jnp.ones(2)
    )
    with run_folder.Writer(tmp_path, settings()) as writer:
        writer.save(state, {}, score=0.1)
    for name in ("open_split", "list_split"):
        monkeypatch.setattr(evaluate, name, lambda data, split: source)
    monkeypatch.setattr(
        compiled_steps, "compile_predict_step", lambda config, devices: lambda state, images: oracle(source)(images)
    )
    assert list(evaluate.evaluate_checkpoint(tmp_path).metrics) == ["student", "teacher", "constant", "mean_map"]
    before = (tmp_path / "metrics.json").read_bytes()

    near = evaluate.evaluate_checkpoint(tmp_path, protocol="synthetic", changes={"max_depth": 20.0})
    assert near.metrics["student"]["all"]["pixels"] == ((source.depth > 0) & (source.depth < 20)).sum()
    assert json.loads((tmp_path / "own" / "metrics.json").read_text()) == tiny.as_written(near.metrics)
    evaluate.evaluate_checkpoint(tmp_path, protocol="make3d")
    assert "Protocol make3d: annotated ground truth" in (tmp_path / "make3d" / "report.html").read_text()
    metric = evaluate.evaluate_checkpoint(tmp_path, changes={"scaling": "given", "scale": 30.0}, out=tmp_path / "there")
    assert list(metric.metrics) == ["student", "teacher", "mean_map"]  # "constant" needs median scaling
    assert (tmp_path / "metrics.json").read_bytes() == before

    with pytest.raises(ConfigError, match=r"eval\.min_depth=90"):
        evaluate.evaluate_checkpoint(tmp_path, changes={"min_depth": 90.0})
    with pytest.raises(ConfigError, match="unknown evaluation protocol 'nyu'"):
        evaluate.evaluate_checkpoint(tmp_path, protocol="nyu")


def test_training_split_without_ground_truth(tmp_path, monkeypatch):
    """As in Cityscapes, or rendered drives without scans for training: no mean map, and no error."""
    splits = {"test": FakeSource(3), "train": FakeSource(3, measured=False)}
    state = TrainState(step=jnp.int32(1), params={}, batch_stats={}, opt_state=(), depth_range=jnp.ones(2))
    with run_folder.Writer(tmp_path, settings()) as writer:
        writer.save(state, {}, score=0.1)
    for name in ("open_split", "list_split"):
        monkeypatch.setattr(evaluate, name, lambda data, split: splits[split])
    perfect = oracle(splits["test"])
    monkeypatch.setattr(compiled_steps, "compile_predict_step", lambda config, devices: lambda state, images: perfect(images))
    assert list(evaluate.evaluate_checkpoint(tmp_path).metrics) == ["student", "teacher", "constant"]


def test_cityscapes_crop_on_dataset(tmp_path):
    """512 x 1664 of 1024 x 2048 pixels, here at a sixteenth of the size: the lower quarter is cropped once."""
    name = "bonn_000000_000019"
    for folder in ("leftImg8bit_sequence/test/bonn", "camera/test/bonn", "gt_depths", "splits"):
        (tmp_path / folder).mkdir(parents=True)
    picture = np.random.default_rng(0).integers(0, 255, (64, 128, 3), np.uint8)
    cv2.imwrite(str(tmp_path / f"leftImg8bit_sequence/test/bonn/{name}_leftImg8bit.png"), picture)
    camera = {"intrinsic": {"fx": 2262.52, "fy": 2265.3, "u0": 1096.98, "v0": 513.137}}
    (tmp_path / f"camera/test/bonn/{name}_camera.json").write_text(json.dumps(camera))
    (tmp_path / "splits/test_files.txt").write_text(f"bonn {name}\n")
    depth = np.random.default_rng(1).uniform(2, 70, (64, 128)).astype(np.float32)
    np.save(tmp_path / "gt_depths/000_depth.npy", depth)

    cfg = config(data={"source": "cityscapes", "root": str(tmp_path), "height": 32, "width": 64, "masks": "none"})
    cfg.eval = protocol("cityscapes")
    source = open_split(cfg.data, "test")
    results = evaluate.evaluate(lambda batch: None, source, cfg, ("predictions",), external=lambda index: 1 / depth[:48])
    assert results.metrics["predictions"]["all"]["pixels"] == 512 * 1664 // 256
    assert results.metrics["predictions"]["all"]["abs_rel"] == pytest.approx(0, abs=1e-5)
