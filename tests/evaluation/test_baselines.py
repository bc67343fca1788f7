import numpy as np
import pytest
from fakes import FakeSource, settings
from tiny import WIDTH

from dd_jax.evaluation import baselines


def test_mean_map_fills_missing_ground_truth():
    cfg = settings()
    source = FakeSource(3)
    source.depth[:] = 0
    source.depth[0, 10, :] = 20
    source.depth[1, 10, :4] = 40
    source.depth[1, 50, 7] = 5
    source.depth[2, 50, 8] = 900  # out of range
    depth = 1 / baselines.mean_map(source, cfg)
    np.testing.assert_allclose(depth[10, :4], 30, rtol=1e-6)
    np.testing.assert_allclose(depth[10, 4:], 20, rtol=1e-6)
    np.testing.assert_allclose(depth[50], 5, rtol=1e-6)
    row_mean = (WIDTH * 20 + 4 * 40) / (WIDTH + 4)
    np.testing.assert_allclose(depth[0], row_mean, rtol=1e-6)
    np.testing.assert_allclose(depth[31:50], 5, rtol=1e-6)


@pytest.mark.parametrize(("total", "wanted"), [(10, 3), (697, 300), (5, 5), (5, 9), (5, 0), (1, 1)])
def test_indices_evenly_spaced_and_distinct(total, wanted):
    chosen = baselines.evenly_spaced_indices(total, wanted)
    assert len(chosen) == (wanted if 0 < wanted < total else total)
    assert len(set(chosen)) == len(chosen) and min(chosen) >= 0 and max(chosen) < total
    assert np.ptp(np.diff([*chosen, chosen[0] + total])) <= 1
