import numpy as np
import pytest
from tiny import HEIGHT, WIDTH, batch

from dd_jax.config import EvalConfig
from dd_jax.data.frames import GroundTruth
from dd_jax.evaluation import metrics, panels


def scores(*errors):
    return [{} if error is None else {"all": {"abs_rel": error}, "scale": {"ratio": 1.0}} for error in errors]


def test_extremes_ordered_and_disjoint():
    results = scores(0.3, None, 0.1, 0.9, 0.5, 0.2)
    assert panels.extremes(results, 2) == ([3, 4], [2, 5])
    assert panels.extremes(results, 9) == ([3, 4], [2, 5])  # half of five: no sample is in both
    assert panels.extremes(results, 0) == ([], [])
    assert panels.extremes(scores(0.3), 4) == panels.extremes(scores(None, None), 4) == ([], [])


@pytest.mark.parametrize("scaling", ["median", "given"])
def test_panel_depth_scaled_like_scores(scaling, monkeypatch):
    """A prediction that is right up to a factor has no error with median scaling, but with a wrong given factor."""
    given = {}
    monkeypatch.setattr(panels.report, "panel", lambda image, **tiles: given.update(tiles) or image)
    truth = GroundTruth(np.random.default_rng(0).uniform(3, 60, (HEIGHT, WIDTH)).astype(np.float32))
    config = EvalConfig(crop="eigen", scaling=scaling, scale=15.0)
    disp = 30 / truth.depth
    result = metrics.evaluate_image(disp, truth.depth, {}, config, factor=None if scaling == "median" else 15.0)
    panels.sample_panel(0, batch(2, frames=2), None, None, {"predictions": disp}, truth, {"predictions": result}, config)
    factor = 1.0 if scaling == "median" else 0.5
    np.testing.assert_allclose(given["depths"]["predictions"], factor * truth.depth, rtol=1e-5)
    np.testing.assert_array_equal(given["counted"], metrics.valid_pixels(truth.depth, config))
    assert given["disentangled"] is None and given["previous"].shape == (HEIGHT, WIDTH, 3)


def test_maps_resized_to_image(monkeypatch):
    given = {}
    monkeypatch.setattr(panels.report, "panel", lambda image, **tiles: given.update(tiles) or image)
    disp = np.full((2 * HEIGHT, 3 * WIDTH), 0.25, np.float32)
    panels.sample_panel(1, batch(2, frames=2), None, None, {"predictions": disp}, None, {}, EvalConfig())
    np.testing.assert_allclose(given["depths"]["predictions"], np.full((HEIGHT, WIDTH), 4.0))
    assert given["truth"] is None
