import json

import cv2
import numpy as np
import pytest

from dd_jax.config import EvalConfig
from dd_jax.evaluation import metrics

PERFECT = [0, 0, 0, 0, 1, 1, 1]


def depth_map(seed, h=40, w=60, holes=0.3):
    rng = np.random.default_rng(seed)
    depth = rng.uniform(3, 40, (h, w)).astype(np.float32)
    return np.where(rng.random((h, w)) < holes, 0, depth).astype(np.float32)


def values(row):
    return [row[name] for name in metrics.ERRORS]


def filled(depth):
    return np.where(depth > 0, depth, 10).astype(np.float32)


def test_literal_errors():
    found = metrics.depth_errors(np.array([1.0, 2.0, 10.0], np.float32), np.array([1.0, 3.0, 8.0], np.float32))
    np.testing.assert_allclose(found["abs_rel"], (0 + 1 / 2 + 2 / 10) / 3)
    np.testing.assert_allclose(found["sq_rel"], (0 + 1 / 2 + 4 / 10) / 3)
    np.testing.assert_allclose(found["rmse"], np.sqrt((0 + 1 + 4) / 3))
    np.testing.assert_allclose(found["rmse_log"], np.sqrt((0 + np.log(1.5) ** 2 + np.log(0.8) ** 2) / 3))
    # 10/8 is exactly 1.25, which is not below the threshold.
    np.testing.assert_allclose([found["a1"], found["a2"], found["a3"]], [1 / 3, 3 / 3, 3 / 3])
    np.testing.assert_allclose(found["abs_diff"], (0 + 1 + 2) / 3)
    np.testing.assert_allclose(found["log10"], (0 + np.log10(1.5) - np.log10(0.8)) / 3)


@pytest.mark.parametrize("crop", ["eigen", "none", "cityscapes"])
@pytest.mark.parametrize("resize", ["disparity", "depth"])
def test_perfect_prediction(crop, resize):
    truth = depth_map(0)
    config = EvalConfig(crop=crop, resize=resize)
    disp = 1 / filled(truth)
    result = metrics.evaluate_image(disp, truth, {}, config)
    np.testing.assert_allclose(values(result["all"]), PERFECT, atol=1e-5)
    np.testing.assert_allclose(result["scale"]["ratio"], 1, rtol=1e-6)


@pytest.mark.parametrize("median", ["average", "lower"])
def test_median_scaling_makes_unit_irrelevant(median):
    truth, disp = depth_map(1), 1 / filled(depth_map(2, 20, 30))
    config = EvalConfig(median=median)
    one, other = (metrics.evaluate_image(disp * unit, truth, {}, config) for unit in (np.float32(1), np.float32(7.3)))
    np.testing.assert_allclose(values(other["all"]), values(one["all"]), rtol=1e-5)
    np.testing.assert_allclose(other["scale"]["ratio"], 7.3 * one["scale"]["ratio"], rtol=1e-5)


def test_regions_share_scale_and_partition_pixels():
    truth, disp = depth_map(3), 1 / filled(depth_map(4))
    config = EvalConfig(crop="none")
    dynamic = np.zeros(truth.shape, bool)
    dynamic[10:25, 5:30] = True
    moving = np.zeros_like(dynamic)
    result = metrics.evaluate_image(disp, truth, metrics.regions(dynamic, moving), config)
    pixels = {name: row["pixels"] for name, row in result.items() if name != "scale"}
    valid = truth > 0
    assert pixels == {
        "all": valid.sum(), "dynamic": (valid & dynamic).sum(), "static": (valid & ~dynamic).sum(), "moving": 0,
    }  # fmt: skip
    assert "abs_rel" not in result["moving"]
    shares = sum(result[name]["abs_rel"] * pixels[name] for name in ("dynamic", "static"))
    np.testing.assert_allclose(shares / pixels["all"], result["all"]["abs_rel"], rtol=1e-6)
    literal = np.clip(result["scale"]["ratio"] / disp, 1e-3, 80)
    np.testing.assert_allclose(values(result["dynamic"]), values(
        metrics.depth_errors(truth[valid & dynamic], literal[valid & dynamic])), rtol=1e-5)  # fmt: skip
    assert metrics.regions(None, None) == {}


def test_pixels_outside_the_crop_invalid():
    valid = metrics.valid_pixels(np.full((375, 1242), 10, np.float32), EvalConfig())
    assert valid[153:371, 44:1197].all() and valid.sum() == (371 - 153) * (1197 - 44)
    valid = metrics.valid_pixels(np.full((768, 2048), 10, np.float32), EvalConfig(crop="cityscapes"))
    assert valid[256:, 192:1856].all() and valid.sum() == 512 * 1664


def test_depths_out_of_range_invalid():
    truth = np.array([[0, 1e-4, 5, 79, 80, 200]], np.float32)
    np.testing.assert_array_equal(metrics.valid_pixels(truth, EvalConfig(crop="none")), [[0, 0, 1, 1, 0, 0]])
    np.testing.assert_array_equal(metrics.valid_pixels(truth, EvalConfig(crop="none", far_truth=True)), [[0, 0, 1, 1, 1, 1]])


def test_given_factor_replaces_median_scaling():
    truth = depth_map(8)
    disp = 5.4 / filled(truth)
    config = EvalConfig(crop="none")
    result = metrics.evaluate_image(disp, truth, {}, config, factor=5.4)
    np.testing.assert_allclose(values(result["all"]), PERFECT, atol=1e-5)
    assert result["scale"]["ratio"] == 5.4
    off = metrics.evaluate_image(disp, truth, {}, config, factor=2 * 5.4)
    np.testing.assert_allclose(off["all"]["abs_rel"], 1, rtol=1e-5)


def test_masks_resized_to_ground_truth():
    truth = np.full((40, 60), 10, np.float32)
    mask = np.zeros((20, 30), bool)
    mask[5:10, 6:9] = True
    result = metrics.evaluate_image(np.ones((20, 30), np.float32), truth, {"dynamic": mask}, EvalConfig(crop="none"))
    assert result["dynamic"]["pixels"] == 4 * mask.sum()


def test_median_conventions():
    numbers = np.array([4.0, 1.0, 2.0, 3.0], np.float32)
    assert metrics.median(numbers, EvalConfig(median="average")) == 2.5
    assert metrics.median(numbers, EvalConfig(median="lower")) == 2
    assert metrics.median(numbers[:3], EvalConfig(median="lower")) == metrics.median(numbers[:3], EvalConfig()) == 2


def test_resize_disparity_or_depth():
    disp = 1 / filled(depth_map(5, 8, 10))
    by_disp = metrics.depth_at(disp, (16, 20), EvalConfig())
    by_depth = metrics.depth_at(disp, (16, 20), EvalConfig(resize="depth", max_depth=30.0))
    np.testing.assert_allclose(by_disp, 1 / cv2.resize(disp, (20, 16), interpolation=cv2.INTER_LINEAR))
    assert by_depth.max() == 30 and not np.allclose(by_disp, by_depth)
    # Half-pixel centres: the corner of an image twice as large equals the corner pixel.
    np.testing.assert_allclose(by_disp[0, 0], 1 / disp[0, 0], rtol=1e-6)


def test_images_without_ground_truth_not_counted():
    config = EvalConfig(crop="none")
    empty = metrics.evaluate_image(np.ones((4, 5), np.float32), np.zeros((8, 10), np.float32), {}, config)
    assert empty == {"all": {"pixels": 0}}
    full = metrics.evaluate_image(np.ones((4, 5), np.float32), depth_map(6, 8, 10), {}, config)
    summary = metrics.summarize([empty, full])
    assert summary["all"]["images"] == 1 and values(summary["all"]) == values(full["all"])
    assert metrics.summarize([empty]) == {"all": {"pixels": 0, "images": 0}}


def test_summary_is_mean_over_images_with_region():
    config = EvalConfig(crop="none")
    inside = np.zeros((40, 60), bool)
    inside[:20] = True
    results = [
        metrics.evaluate_image(1 / filled(depth_map(i)), depth_map(i + 10), {"dynamic": inside & (i > 0)}, config)
        for i in range(3)
    ]
    summary = metrics.summarize(results)
    for name in metrics.ERRORS:
        np.testing.assert_allclose(summary["all"][name], np.mean([row["all"][name] for row in results]))
        np.testing.assert_allclose(summary["dynamic"][name], np.mean([row["dynamic"][name] for row in results[1:]]))
    assert summary["all"]["pixels"] == sum(row["all"]["pixels"] for row in results)
    ratios = np.array([row["scale"]["ratio"] for row in results])
    np.testing.assert_allclose(summary["scale"]["median"], np.median(ratios))
    np.testing.assert_allclose(summary["scale"]["relative_std"], np.std(ratios) / np.median(ratios))
    json.dumps(summary, allow_nan=False)


def test_invalid_predictions_raise():
    for bad in (np.nan, np.inf, 0.0, -1.0):
        with pytest.raises(ValueError, match="finite and positive"):
            metrics.evaluate_image(np.full((4, 5), bad, np.float32), depth_map(7), {}, EvalConfig())
