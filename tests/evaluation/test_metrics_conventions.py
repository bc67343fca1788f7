"""Both conventions of the published evaluators, written out again pixel by pixel, give the same numbers to 1e-4.

Nothing here uses the code under test or OpenCV: bilinear weights, medians and errors are made from their definitions.
"""

import dataclasses

import numpy as np
import pytest

from dd_jax.config.protocols import protocol
from dd_jax.evaluation import metrics

ORDER = ("abs_rel", "sq_rel", "rmse", "rmse_log", "a1", "a2", "a3")


def bilinear(values, rows, columns):
    """Half-pixel centres, no antialiasing, borders repeated: align_corners=False of PyTorch, INTER_LINEAR of OpenCV."""

    def weights(wanted, given):
        matrix = np.zeros((wanted, given))
        for i in range(wanted):
            place = min(max((i + 0.5) * given / wanted - 0.5, 0.0), given - 1.0)
            low = int(np.floor(place))
            high = min(low + 1, given - 1)
            matrix[i, low] += 1 - (place - low)
            matrix[i, high] += place - low
        return matrix

    return weights(rows, values.shape[0]) @ values.astype(np.float64) @ weights(columns, values.shape[1]).T


def seven(truth, prediction):
    n = len(truth)
    larger = [max(t / p, p / t) for t, p in zip(truth, prediction, strict=True)]
    return [
        sum(abs(t - p) / t for t, p in zip(truth, prediction, strict=True)) / n,
        sum((t - p) ** 2 / t for t, p in zip(truth, prediction, strict=True)) / n,
        (sum((t - p) ** 2 for t, p in zip(truth, prediction, strict=True)) / n) ** 0.5,
        (sum((np.log(t) - np.log(p)) ** 2 for t, p in zip(truth, prediction, strict=True)) / n) ** 0.5,
        *(sum(ratio < 1.25**k for ratio in larger) / n for k in (1, 2, 3)),
    ]


def region(name, rows, columns):
    """The pixels that count, from the numbers in the papers' code."""
    inside = np.zeros((rows, columns), bool)
    if name == "eigen":
        top, bottom = int(0.40810811 * rows), int(0.99189189 * rows)
        inside[top:bottom, int(0.03594771 * columns) : int(0.96405229 * columns)] = True
    else:
        inside[rows // 3 :, columns * 192 // 2048 : columns * 1856 // 2048] = True
    return inside


def example(name, seed):
    """A rough prediction with depths below 1e-3 and beyond 80 in its own unit, sparse truth, an object mask."""
    rng = np.random.default_rng(seed)
    rows, columns = (75, 249) if name == "eigen" else (96, 256)
    truth = rng.uniform(0.5, 95, (rows, columns)).astype(np.float32)
    truth[rng.random(truth.shape) < 0.6] = 0
    disp = (1 / rng.uniform(0.05, 6, (24, 80))).astype(np.float32)
    disp[0, :4], disp[5, 3:6], disp[20, 60:63] = 1 / 95.0, 2_000.0, 1 / 120.0
    return disp, truth, rng.random(truth.shape) < 0.2


@pytest.mark.parametrize("name", ["eigen", "cityscapes"])
@pytest.mark.parametrize("seed", [0, 1])
def test_validation_of_dynamic_depth(name, seed):
    """Depth is resized, clamped, scaled by the ratio of lower medians, clamped again; objects share the factor of the image."""
    disp, truth, objects = example(name, seed)
    rows, columns = truth.shape
    depth = np.clip(bilinear(1 / disp, rows, columns), 1e-3, 80)
    valid = region(name, rows, columns) & (truth > 1e-3) & (truth < 80)
    middle = (valid.sum() - 1) // 2  # torch.median: the lower of the two middle values
    ratio = sorted(truth[valid].tolist())[middle] / sorted(depth[valid].tolist())[middle]
    depth = np.clip(depth * ratio, 1e-3, 80)

    config = dataclasses.replace(protocol(name), resize="depth", median="lower")
    found = metrics.evaluate_image(disp, truth, {"dynamic": objects}, config)
    assert found["scale"]["ratio"] == pytest.approx(ratio, rel=1e-5)
    for label, area in (("all", valid), ("dynamic", valid & objects)):
        assert found[label]["pixels"] == area.sum()
        expected = seven(truth[area].astype(float), depth[area])
        np.testing.assert_allclose([found[label][error] for error in ORDER], expected, atol=1e-4)


@pytest.mark.parametrize("name", ["eigen", "eigen_improved", "cityscapes"])
def test_evaluation_script_of_monodepth2_and_manydepth(name):
    """Disparity is resized, inverted, scaled by the ratio of mean medians, and clamped once, after scaling."""
    disp, truth, _ = example(name.split("_")[0], 2)
    rows, columns = truth.shape
    depth = 1 / bilinear(disp, rows, columns)
    valid = truth > 0 if name == "eigen_improved" else region(name, rows, columns) & (truth > 1e-3) & (truth < 80)
    lower, upper = (valid.sum() - 1) // 2, valid.sum() // 2
    medians = [(np.sort(values)[lower] + np.sort(values)[upper]) / 2 for values in (truth[valid].astype(float), depth[valid])]
    depth = np.clip(depth * medians[0] / medians[1], 1e-3, 80)

    config = dataclasses.replace(protocol(name), resize="disparity", median="average")
    found = metrics.evaluate_image(disp, truth, {}, config)
    assert found["all"]["pixels"] == valid.sum()
    if name == "eigen_improved":
        assert (truth[valid] > 80).any()
    expected = seven(truth[valid].astype(float), depth[valid])
    np.testing.assert_allclose([found["all"][error] for error in ORDER], expected, atol=1e-4)
