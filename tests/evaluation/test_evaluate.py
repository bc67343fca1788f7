import json

import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from fakes import FakeSource, oracle, settings

from dd_jax import report
from dd_jax.checkpoints import run_folder, saved
from dd_jax.config import ConfigError
from dd_jax.evaluation import evaluate, metrics
from dd_jax.method import compiled_steps
from dd_jax.runtime import versions
from dd_jax.types import TrainState

ERRORS = (*metrics.ERRORS, *metrics.FURTHER)
PERFECT = {name: float(name in ("a1", "a2", "a3")) for name in ERRORS}


def test_perfect_prediction_scores_perfectly():
    source = FakeSource(6)
    results = evaluate.evaluate(oracle(source), source, settings())
    for who in ("student", "teacher"):
        for region in evaluate.REGIONS:
            found = results.metrics[who][region]
            assert set(found) == {*ERRORS, "pixels", "images"} and found["pixels"] > 0 and found["images"] == 6
            for name, value in PERFECT.items():
                assert found[name] == pytest.approx(value, abs=1e-5)
    assert results.scales["student"]["median"] == pytest.approx(30, rel=1e-4)
    assert results.scales["student"]["relative_std"] < 1e-5


@pytest.mark.parametrize("batch_size", [1, 4, 7, 16])
def test_every_sample_counted_once_for_any_batch_size(batch_size):
    source = FakeSource(7)
    cfg = settings(batch_size=batch_size)
    results = evaluate.evaluate(oracle(source), source, cfg, ("student", "constant"), num_panels=0)
    assert sorted(source.asked) == list(range(7))
    assert [name for name, _ in results.images] == [f"sample {i}" for i in range(7)]
    assert results.metrics["constant"]["all"]["pixels"] == (source.depth > 0).sum()
    reference = evaluate.evaluate(oracle(source), source, settings(batch_size=7), ("student", "constant"), num_panels=0)
    assert results.metrics == reference.metrics


def test_only_network_of_a_single_frame_system_has_its_own_name():
    source = FakeSource(5)
    predict, config = oracle(source), settings()
    found = {who: evaluate.evaluate(predict, source, config, (who,)).metrics[who] for who in ("teacher", "single_frame")}
    assert found["single_frame"] == found["teacher"]
    assert evaluate.networks_of(config) == ("student", "teacher")
    config.model.student = False
    assert evaluate.networks_of(config) == ("single_frame",)


def test_regions_partition_pixels():
    with_moving = FakeSource(5)
    scores = evaluate.evaluate(oracle(with_moving), with_moving, settings(), ("teacher",)).metrics["teacher"]
    count = {region: scores[region]["pixels"] for region in evaluate.REGIONS}
    assert count["moving"] + count["static"] == count["all"]
    assert count["moving"] == (with_moving.moving & (with_moving.depth > 0)).sum()
    assert count["dynamic"] == (with_moving.dynamic & (with_moving.depth > 0)).sum()

    without = FakeSource(5, moving=False)
    scores = evaluate.evaluate(oracle(without), without, settings(), ("teacher",)).metrics["teacher"]
    assert scores["dynamic"]["pixels"] + scores["static"]["pixels"] == scores["all"]["pixels"]
    assert scores["moving"] == dict.fromkeys(ERRORS) | {"pixels": 0, "images": 0}


def test_score_is_mean_over_images():
    """Images have equal weight, whatever their number of pixels."""
    source = FakeSource(2)
    source.depth[0, 4:] = 0
    results = evaluate.evaluate(oracle(source), source, settings(), ("constant",))
    single = [scores["constant"]["all"]["abs_rel"] for _, scores in results.images]
    assert single[0] != pytest.approx(single[1])
    assert results.metrics["constant"]["all"]["abs_rel"] == pytest.approx(np.mean(single))


def test_constant_equals_median_depth():
    source = FakeSource(3)
    expected = []
    for depth in source.depth.astype(float):
        truth = depth[depth > 0]
        expected.append(np.mean(np.abs(truth - np.median(truth)) / truth))
    results = evaluate.evaluate(oracle(source), source, settings(), ("constant",))
    assert results.metrics["constant"]["all"]["abs_rel"] == pytest.approx(np.mean(expected), rel=1e-5)


def test_mean_map_perfect_on_static_scene():
    source = FakeSource(4)
    source.depth[:] = np.where(source.depth[0] > 0, source.depth[0], 0)
    results = evaluate.evaluate(oracle(source), source, settings(), ("mean_map", "constant"), train_truth=source)
    assert results.metrics["mean_map"]["all"]["abs_rel"] == pytest.approx(0, abs=1e-5)
    assert results.metrics["constant"]["all"]["abs_rel"] > 0.3


@pytest.mark.parametrize("train_truth", [None, FakeSource(2, measured=False)])
def test_mean_map_without_ground_truth_raises(train_truth):
    source = FakeSource(2)
    with pytest.raises(ConfigError, match="mean map needs ground truth"):
        evaluate.evaluate(oracle(source), source, settings(), ("mean_map",), train_truth=train_truth)


def test_without_ground_truth_only_panels():
    source = FakeSource(3, measured=False)
    results = evaluate.evaluate(oracle(source), source, settings(), num_panels=2)
    assert results.metrics["student"]["all"] == dict.fromkeys(ERRORS) | {"pixels": 0, "images": 0}
    assert len(results.panels) == 2
    assert "no ground truth: no scores" in report.format_table(results.metrics, results.scales)


def test_max_frames_evenly_spaced():
    source = FakeSource(10)
    results = evaluate.evaluate(oracle(source), source, settings(), max_frames=3, num_panels=2)
    assert [name for name, _ in results.images] == ["sample 1", "sample 5", "sample 8"]
    assert len(results.panels) == 2


def test_next_batch_dispatched_before_scoring():
    order = []
    source = FakeSource(8)
    ask, predict = source.ground_truth, oracle(source)
    source.ground_truth = lambda index, kind: (order.append(("measure", index // 4)), ask(index, kind))[1]

    def recording_predict(images):
        order.append(("predict", int(images.images[0, 1, 0, 0, 0]) // 4))
        return predict(images)

    evaluate.evaluate(recording_predict, source, settings(), num_panels=0)
    assert order[:2] == [("predict", 0), ("predict", 1)] and order[2:] == [("measure", 0)] * 4 + [("measure", 1)] * 4


def test_non_finite_prediction_raises():
    source = FakeSource(2)
    predict = oracle(source)

    def broken(images):
        result = predict(images)
        return result.replace(student=result.student.at[1, 3, 3].set(jnp.nan))

    with pytest.raises(ValueError, match="must be finite and positive"):
        evaluate.evaluate(broken, source, settings())


def test_checkpoint_evaluated_without_config_file(tmp_path, monkeypatch):
    """Config and networks come from the checkpoint; ``data_root`` and ``cache_dir`` replace the folders of the training."""
    source = FakeSource(3)
    cfg = settings()
    state = TrainState(
        step=jnp.int32(7), params={"teacher": {"w": jnp.ones(2)}}, batch_stats={}, opt_state=(), depth_range=jnp.ones(2)
    )
    with run_folder.Writer(tmp_path, cfg) as writer:
        writer.save(state, {}, score=0.1)
    opened = []
    for name in ("open_split", "list_split"):
        monkeypatch.setattr(evaluate, name, lambda data, split: (opened.append((data.root, data.cache_dir, split)), source)[1])
    monkeypatch.setattr(
        compiled_steps, "compile_predict_step", lambda config, devices: lambda state, images: oracle(source)(images)
    )
    results = evaluate.evaluate_checkpoint(tmp_path / "checkpoints", out=tmp_path / "out", data_root="/here", cache_dir="/cache")
    assert opened == [("/here", "/cache", "test"), ("/here", "/cache", "train")]
    assert list(results.metrics) == ["student", "teacher", "constant", "mean_map"]
    assert json.loads((tmp_path / "out" / "metrics.json").read_text()) == tiny.as_written(results.metrics)
    page = (tmp_path / "out" / "report.html").read_text()
    assert versions.versions()["optax"] in page and page.count("<figure>") == 3 + 1 + 1  # evenly spaced, worst, best


def test_saved_model_evaluated_into_its_folder(tmp_path, monkeypatch):
    """Its config has no data root; the scores are found when the model card is written."""
    source = FakeSource(3)
    config = tiny.config()
    config.eval = settings().eval
    saved.write(tmp_path / "system", tiny.restored(config))
    monkeypatch.setattr(evaluate, "open_split", lambda data, split: source)
    monkeypatch.setattr(evaluate, "list_split", lambda data, split: source)
    monkeypatch.setattr(
        compiled_steps, "compile_predict_step", lambda config, devices: lambda state, images: oracle(source)(images)
    )
    with pytest.raises(ConfigError, match=r"--config\.data\.root is empty: set it to the folder"):
        evaluate.evaluate_checkpoint(tmp_path / "system")
    results = evaluate.evaluate_checkpoint(tmp_path / "system", data_root="/here")
    assert saved.scores_of(tmp_path / "system") == tiny.as_written(results.metrics)


def test_missing_checkpoint_raises(tmp_path):
    with pytest.raises(ConfigError, match="nowhere is not a folder"):
        evaluate.evaluate_checkpoint(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="no checkpoint in"):
        evaluate.evaluate_checkpoint(tmp_path)
    with pytest.raises(ConfigError, match="hf://owner/name cannot hold results: choose a folder with --out"):
        evaluate.evaluate_checkpoint("hf://owner/name")
