import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from dd_jax.data.frames import GroundTruth
from dd_jax.diagnosis import matching
from dd_jax.geometry.se3 import pose_from_parameters
from dd_jax.method.predict_step import predict_step

QUARTER = slice(2, None, 4)


@functools.cache
def system(frames=2, student=True):
    """Untrained networks, and the function under test, compiled once."""
    config = tiny.config(cost_volume={"future_frame": frames == 3}, model={"student": student})
    return tiny.restored(config), jax.jit(functools.partial(matching.match, config=config))


def outputs(frames=2, student=True, poses=None):
    restored, match = system(frames, student)
    batch = tiny.batch(2, frames=frames)
    return jax.device_get(match(restored.state, (batch, matching.known_poses(poses or {}, batch, frames - 1))))


def motion(seed):
    parameters = jnp.asarray(np.random.default_rng(seed).normal(0, 0.1, (2, 3)), jnp.float32)
    return np.asarray(pose_from_parameters(*parameters), np.float64)


def test_without_known_poses_it_is_the_prediction_at_a_quarter_of_the_size():
    found, restored = outputs(), system()[0]
    expected = jax.jit(functools.partial(predict_step, config=restored.config))(restored.state, tiny.batch(2, frames=2))
    for name in ("teacher", "student"):
        quarter = 1 / np.asarray(getattr(expected, name))[:, QUARTER, QUARTER]
        np.testing.assert_allclose(getattr(found, name), quarter, rtol=1e-4)
    np.testing.assert_allclose(found.T_source_from_target[:, 0], expected.T_previous_from_target, atol=1e-6)
    assert found.cheapest.shape == found.student.shape == (2, tiny.HEIGHT // 4, tiny.WIDTH // 4)


@pytest.mark.parametrize("frames", [2, 3])
def test_known_poses_replace_those_of_their_sample_only(frames):
    T = [motion(place) for place in range(frames - 1)]
    own, found = outputs(frames), outputs(frames, poses={1: T})
    np.testing.assert_allclose(found.T_source_from_target[1], T, atol=1e-6)
    np.testing.assert_allclose(found.T_source_from_target[0], own.T_source_from_target[0], atol=1e-6)
    np.testing.assert_allclose(found.teacher, own.teacher, rtol=1e-5)
    assert np.abs(found.cheapest[1] - own.cheapest[1]).max() > 0.1 and np.allclose(found.cheapest[0], own.cheapest[0])


def test_single_frame_system_has_poses_and_one_depth():
    found = outputs(student=False)
    assert found.student is None and found.cheapest is None and found.T_source_from_target.shape == (2, 1, 4, 4)


def test_scaled_pose_keeps_its_rotation():
    T = motion(3)
    (found,) = matching.scaled([T], 2.5)
    np.testing.assert_array_equal(found[:3, :3], T[:3, :3])
    np.testing.assert_array_equal(found[:3, 3], 2.5 * T[:3, 3])
    np.testing.assert_array_equal(found[3], [0, 0, 0, 1])


def sample(scale):
    """Four cells with true depths 2, 5, 12 and 70 m, the last one dynamic; networks are right up to ``scale``."""
    truth = np.array([[2.0, 5.0], [12.0, 70.0]])
    cheapest = truth * np.array([[1.5, 1.0], [0.5, 1.0]]) * scale
    observed = np.array([[True, False], [True, True]])
    own = matching.Matched(
        T_source_from_target=np.eye(4)[None], teacher=truth * scale, student=truth * [[1.1, 1.0], [1.0, 1.0]] * 7,
        cheapest=cheapest, observed=observed, used=np.array([[False, False], [True, True]]),
    )  # fmt: skip
    true = matching.Matched(
        T_source_from_target=np.eye(4)[None], teacher=own.teacher, student=own.student, cheapest=truth * scale,
        observed=np.ones((2, 2), bool), used=own.used,
    )  # fmt: skip
    static = np.array([[True, True], [True, False]])
    return own, true, truth, static, np.array([4.0, 50.0]) * scale


def test_errors_by_range_of_depth():
    rows = matching.by_range([matching.sample_cells(*sample(0.05)), matching.sample_cells(*sample(0.2))])
    assert next(iter(rows)) == "0-4" and list(rows)[-1] == "all"
    assert {name: row["cells"] for name, row in rows.items() if row["cells"]} == {"0-4": 2, "4-6": 2, "10-15": 2, "all": 6}
    assert rows["0-4"]["teacher"] == pytest.approx(0) and rows["0-4"]["student"] == pytest.approx(0.1)
    assert rows["0-4"]["matching_predicted_poses"] == pytest.approx(0.5)
    assert rows["10-15"]["matching_predicted_poses"] == pytest.approx(0.5)
    assert rows["4-6"]["matching_predicted_poses"] is None  # not observed
    assert rows["4-6"]["matching_true_poses"] == pytest.approx(0)
    assert [rows[name]["outside_bins"] for name in ("0-4", "4-6", "10-15", "all")] == pytest.approx([1, 0, 0, 1 / 3])
    assert rows["all"]["unobserved"] == pytest.approx(1 / 3) and rows["all"]["unused"] == pytest.approx(2 / 3)
    assert rows["50-80"] == {"cells": 0} | dict.fromkeys(list(rows["all"])[1:])


def test_without_true_poses_their_columns_are_empty():
    own, _, truth, static, limits = sample(0.1)
    row = matching.by_range([matching.sample_cells(own, None, truth, static, limits)])["all"]
    assert row["matching_true_poses"] is None and row["student_true_poses"] is None and row["student"] is not None


def test_truth_is_read_at_the_centres_of_the_cells_where_it_is_scored():
    config = tiny.config(eval={"crop": "none", "max_depth": 50.0})
    rows, columns = 2 * tiny.HEIGHT, 2 * tiny.WIDTH
    depth = np.add.outer(np.arange(rows, dtype=np.float32), np.zeros(columns, np.float32))
    moving = np.zeros((rows, columns), bool)
    moving[:16] = True
    found, static = matching.true_cells(GroundTruth(depth, None, moving), config)
    assert found.shape == static.shape == (tiny.HEIGHT // 4, tiny.WIDTH // 4)
    np.testing.assert_array_equal(found[:, 0], np.where(8 * np.arange(16) + 4 < 50, 8 * np.arange(16) + 4, 0))
    assert not static[:2].any() and static[2:].all()
    assert matching.true_cells(GroundTruth(depth), config)[1].all()
