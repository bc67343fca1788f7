import numpy as np
import pytest

from dd_jax.diagnosis.poses import Motion, compare_poses, correlation


def motions(yaws, speeds):
    """Motion along z with a turn about y, in degrees."""
    found = np.tile(np.eye(4), (len(yaws), 1, 1))
    angles = np.radians(yaws)
    found[:, 0, 0] = found[:, 2, 2] = np.cos(angles)
    found[:, 0, 2], found[:, 2, 0] = np.sin(angles), -np.sin(angles)
    found[:, 2, 3] = speeds
    return found


YAWS, SPEEDS = np.linspace(-2, 3, 10), np.array([0, 0.01, 0.3, 0.5, 0.6, 0.8, 0.9, 1.0, 1.2, 1.3])
DRIVES = ["a"] * 5 + ["b"] * 5


def test_perfect_prediction_in_another_unit():
    true = motions(YAWS, SPEEDS)
    found = compare_poses(Motion(DRIVES, motions(YAWS, SPEEDS / 20), true))
    assert found["frames"] == 10 and list(found["per_drive"]) == ["a", "b"]
    assert found["speed_correlation"] == pytest.approx(1) and found["yaw_correlation"] == pytest.approx(1)
    assert found["rotation_error_deg_median"] == pytest.approx(0, abs=1e-6)
    assert found["rotation_error_deg_90"] == pytest.approx(0, abs=1e-6)
    assert found["standing_speed"] == pytest.approx(0.005)  # metres per frame, the mean of the two standing frames
    assert found["true_rotation_deg_median"] == pytest.approx(np.median(np.abs(YAWS)))


def test_constant_rotation_error_is_measured_in_degrees():
    found = compare_poses(Motion(DRIVES, motions(YAWS + 0.5, SPEEDS), motions(YAWS, SPEEDS)))
    assert found["rotation_error_deg_median"] == pytest.approx(0.5) and found["rotation_error_deg_90"] == pytest.approx(0.5)


def test_constant_prediction_has_no_correlation_and_does_not_stand():
    found = compare_poses(Motion(DRIVES, motions(0 * YAWS, 0 * SPEEDS + 0.05), motions(YAWS, SPEEDS)))
    assert found["speed_correlation"] is None and found["yaw_correlation"] is None
    assert found["standing_speed"] == pytest.approx(np.median(SPEEDS[2:]))  # scaled to the median of moving frames


def test_drives_share_one_scale():
    """A drive with twice the predicted speed is not rescaled by itself."""
    predicted = motions(YAWS, SPEEDS + 0.1)
    found = compare_poses(Motion(DRIVES, predicted, motions(YAWS, SPEEDS)))
    assert found["per_drive"]["a"]["standing_speed"] == found["standing_speed"]
    assert found["per_drive"]["b"]["standing_speed"] is None and found["per_drive"]["b"]["frames"] == 5


def test_car_that_never_moves_has_no_scale():
    found = compare_poses(Motion(["a"] * 6, motions(np.zeros(6), np.full(6, 0.1)), motions(np.zeros(6), np.zeros(6))))
    assert found["standing_speed"] is None and found["speed_correlation"] is None


def test_correlation_of_few_values_is_not_reported():
    assert correlation(np.arange(4.0), np.arange(4.0)) is None
    assert correlation(np.arange(5.0), -np.arange(5.0)) == pytest.approx(-1)


def test_errors_are_per_frame_where_neighbours_are_several_frames_apart():
    one, two = (compare_poses(Motion(DRIVES, motions(YAWS + 0.5, SPEEDS), motions(YAWS, SPEEDS), step)) for step in (1, 2))
    for name in ("rotation_error_deg_median", "rotation_error_deg_90", "true_rotation_deg_median", "true_speed_deviation"):
        assert two[name] == pytest.approx(one[name] / 2)
    assert two["speed_correlation"] == pytest.approx(one["speed_correlation"])
