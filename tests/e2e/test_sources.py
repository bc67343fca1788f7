"""Full runs on sources other than a KITTI folder."""

import dataclasses
import json

import cv2
import jax
import numpy as np
import pytest
import tiny
from cityscapes_tree import CityscapesTree

from dd_jax.data.synthetic import make
from dd_jax.evaluation.evaluate import evaluate_checkpoint, evaluate_predictions
from dd_jax.prepare.tfds_store import build
from dd_jax.training.train import train

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def compiled(tmp_path_factory):
    """Runs of the same shapes share compiled functions."""
    jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.mktemp("compiled")))
    yield
    jax.config.update("jax_compilation_cache_dir", None)


def run_config(data, crop, **fields):
    config = tiny.config(
        data={"root": str(data)} | fields,
        optim={"steps": 2, "freeze_step": -1},
        train={"log_every": 1, "eval_every": 0, "checkpoint_every": 2},
    )
    config.eval.crop, config.eval.ground_truth = crop, "annotated"
    return config


def test_store_trains_and_evaluates_like_folder(tmp_path):
    make(str(tmp_path / "drives"), preset="tiny", workers=1, progress=False)
    config = run_config(tmp_path / "drives", "none")
    build(config.data, tmp_path / "store", name="synthetic_triplets")
    packed = dataclasses.replace(config, data=dataclasses.replace(config.data, source="tfds", root=str(tmp_path / "store")))
    one = jax.devices()[:1]
    states = [train(c, tmp_path / name, one) for c, name in ((config, "folder"), (packed, "packed"))]
    jax.tree.map(np.testing.assert_array_equal, *states)
    results = [evaluate_checkpoint(tmp_path / name).metrics for name in ("folder", "packed")]
    assert results[0] == results[1] and results[0]["student"]["moving"]["pixels"] > 0


def test_cityscapes_sequences_train_and_evaluate_against_disparity(tmp_path):
    tree = CityscapesTree(tmp_path / "cityscapes")
    rng = np.random.default_rng(0)
    tree.make_training(rng)
    for city in ("berlin", "bonn"):
        where = {"city": city, "sequence": "000001", "home": "test"}
        tree.frames((17, 19), **where), tree.camera(19, **where)
        tree.array("disparity", 19, rng.integers(2000, 2**15, tree.size).astype(np.uint16), **where)
        tree.array("mask_sequence", 19, rng.integers(0, 2, tree.size, dtype=np.uint8), **where)
    config = run_config(tree.root, "cityscapes", source="cityscapes")
    train(config, tmp_path / "run", jax.devices()[:1])
    evaluate_checkpoint(tmp_path / "run")
    scores = json.loads((tmp_path / "run/metrics.json").read_text())["student"]
    assert scores["all"]["pixels"] == scores["dynamic"]["pixels"] + scores["static"]["pixels"] > 0
    assert np.isfinite(scores["all"]["abs_rel"])


def test_own_clip_trains_and_is_visualised_without_metrics(tmp_path):
    """Without ground truth everything else is still written, with a message."""
    frames = tmp_path / "clip/frames/drive"
    frames.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(30):
        assert cv2.imwrite(str(frames / f"{number:06d}.jpg"), rng.integers(0, 255, (96, 160, 3), np.uint8))
    camera = {"width": 160, "height": 96, "fx": 120.0, "fy": 120.0, "cx": 79.5, "cy": 47.5}
    (tmp_path / "clip/intrinsics.json").write_text(json.dumps(camera))
    config = run_config(tmp_path / "clip", "none", source="folder", masks="none")
    config.domd.enabled, config.cost_volume.occlusion = False, "none"
    train(config, tmp_path / "run", jax.devices()[:1])
    results = evaluate_checkpoint(tmp_path / "run")
    assert [name for name, _ in results.images] == ["drive 000028"] and results.coverage == "0 of 1"
    scores = json.loads((tmp_path / "run/metrics.json").read_text())
    assert list(scores) == ["student", "teacher", "constant"]
    assert all(row["images"] == row["pixels"] == 0 and row["abs_rel"] is None for row in scores["student"].values())
    page = (tmp_path / "run/report.html").read_text()
    assert page.count("<figure>") == 1 and "<b>0 of 1</b>" in page and 'id="scores"' not in page

    (tmp_path / "other").mkdir()
    np.save(tmp_path / "other/000028.npy", np.ones((12, 20), np.float32))
    found = evaluate_predictions(config, tmp_path / "other")
    assert found.coverage == "0 of 1" and found.page.is_file()
