"""Relative poses are chained, and written in the formats of odometry tools."""

import functools
import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax.geometry import se3
from dd_jax.inference import trajectory
from dd_jax.inference.metric_scale import Prediction


@functools.cache
def motion(seed):
    draws = jnp.asarray(np.random.default_rng(seed).normal(size=(2, 3)), jnp.float32)
    return np.asarray(se3.pose_from_parameters(0.3 * draws[0], draws[1]))


def prediction(T):
    return Prediction(np.ones((2, 3), np.float32), T, "student")


def poses(count=5, factor=2.5):
    return chained([None, *(motion(seed) for seed in range(count - 1))], factor)


def chained(motions, factor=1.0, step=1):
    found = trajectory.Trajectory(step)
    for T in motions:
        found.add(prediction(T), factor)
    return found.poses


def test_pose_maps_last_camera_to_first():
    """The pose equals the chain of relative motions; the factor scales only translations."""
    point = np.array([0.3, -0.2, 4.0])
    moved = point
    for seed in reversed(range(4)):
        T = motion(seed).astype(np.float64)
        moved = T[:3, :3] @ moved + 2.5 * T[:3, 3]
    last = poses()[-1]
    np.testing.assert_allclose(last[:3, :3] @ point + last[:3, 3], moved, atol=1e-5)


def test_first_pose_is_identity_and_missing_motion_keeps_pose():
    first, second, third = chained([None, motion(0), None])
    np.testing.assert_array_equal(first, np.eye(4))
    np.testing.assert_array_equal(third, second)


def test_long_chains_stay_orthonormal():
    pose = chained(motion(seed % 4) for seed in range(2000))[-1]
    np.testing.assert_allclose(pose[:3, :3] @ pose[:3, :3].T, np.eye(3), atol=1e-12)


def driven(count, turn=0.02, speed=1.0):
    """True poses of a car on a circle; ``speed`` per frame."""
    step = np.eye(4)
    step[[0, 0, 2, 2], [0, 2, 0, 2]] = np.cos(turn), np.sin(turn), -np.sin(turn), np.cos(turn)
    step[:3, 3] = speed * np.sin(turn / 2), 0, speed * np.cos(turn / 2)
    return list(itertools.accumulate([step] * (count - 1), np.matmul, initial=np.eye(4)))


def seen(true, step):
    """T_previous_from_target of every frame, previous: ``step`` frames before."""
    return [
        None if place < step else (np.linalg.inv(true[place - step]) @ true[place]).astype(np.float32)
        for place in range(len(true))
    ]


@pytest.mark.parametrize("step", [1, 2, 3, 5])
@pytest.mark.parametrize("count", [0, 1, 2, 4, 30])
def test_one_pose_per_frame_at_any_step(step, count):
    """The frames of the chain are exact; those between are wrong by the height of the arc above its chord at most."""
    true = driven(count) if count else []
    found = chained(seen(true, step), step=step)
    assert len(found) == count
    np.testing.assert_allclose(found[::step], true[::step], atol=1e-5)
    if count > step:
        np.testing.assert_allclose(found, true, atol=step * (step * 0.02) / 8 + 1e-4)


def test_straight_drive_is_exact_at_any_step():
    true = driven(20, turn=1e-9)
    np.testing.assert_allclose(chained(seen(true, 4), step=4), true, atol=1e-5)


def test_first_frames_stand_still_until_their_motion_is_known():
    true = driven(4, turn=1e-9)
    np.testing.assert_array_equal(chained(seen(true[:3], 3), step=3), [np.eye(4)] * 3)
    np.testing.assert_allclose(chained(seen(true, 3), step=3), true, atol=1e-5)


def test_noisy_poses_do_not_drift_apart_between_frames():
    """With step 3, independent chains would be metres apart after a long drive; consecutive frames stay a frame apart."""
    true, rng = driven(900, turn=1e-9), np.random.default_rng(0)
    noisy = seen(true, 3)
    for T in noisy[3:]:
        T[:3, 3] += rng.normal(0, 0.2, 3)
    found = np.array(chained(noisy, step=3))[:, :3, 3]
    independent = np.array([chained(noisy[start::3])[-1][:3, 3] for start in range(3)])
    assert np.ptp(independent[:, 0]) > 2
    assert np.linalg.norm(np.diff(found, axis=0), axis=1).max() < 2.5


@pytest.mark.parametrize("angle", [0.0, 1e-4, 0.3, 2.0, 3.14159265])
def test_quaternion_equals_rotation(angle):
    for seed in range(5):
        axis = np.random.default_rng(seed).normal(size=3)
        axis /= np.linalg.norm(axis)
        R = np.asarray(se3.rotation_from_axis_angle(jnp.asarray(axis * angle, jnp.float32)), np.float64)
        x, y, z, w = q = trajectory.quaternion(R)
        assert w >= 0 and np.linalg.norm(q) == pytest.approx(1)
        again = np.eye(3) + 2 * w * _cross((x, y, z)) + 2 * _cross((x, y, z)) @ _cross((x, y, z))
        np.testing.assert_allclose(again, R, atol=1e-6)


def _cross(v):
    x, y, z = v
    return np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])


def numbers(text):
    return np.array([[float(word) for word in line.split()] for line in text.splitlines()])


def test_kitti_and_tum_formats():
    found = poses()
    rows = numbers(trajectory.kitti(found))
    np.testing.assert_allclose(rows.reshape(-1, 3, 4), [pose[:3] for pose in found], rtol=1e-8, atol=1e-12)
    rows = numbers(trajectory.tum(found, [0.1 * place for place in range(5)]))
    np.testing.assert_allclose(rows[:, 0], [0, 0.1, 0.2, 0.3, 0.4])
    np.testing.assert_allclose(rows[:, 1:4], [pose[:3, 3] for pose in found], atol=1e-8)
    np.testing.assert_allclose(np.linalg.norm(rows[:, 4:], axis=1), 1, atol=1e-8)


@pytest.mark.slow
def test_evo_reads_both_formats(tmp_path):
    """An independent tool reads the same trajectory from both files."""
    file_interface = pytest.importorskip("evo.tools.file_interface", reason="needs pip install -e '.[test]'")
    found = poses(8)
    (tmp_path / "kitti.txt").write_text(trajectory.kitti(found))
    (tmp_path / "tum.txt").write_text(trajectory.tum(found, [0.1 * place for place in range(8)]))
    kitti = file_interface.read_kitti_poses_file(tmp_path / "kitti.txt")
    tum = file_interface.read_tum_trajectory_file(tmp_path / "tum.txt")
    assert kitti.check()[0] and tum.check()[0] and kitti.num_poses == tum.num_poses == 8
    np.testing.assert_allclose(kitti.poses_se3, found, atol=1e-8)
    np.testing.assert_allclose(tum.poses_se3, found, atol=1e-7)
    length = sum(np.linalg.norm(after[:3, 3] - before[:3, 3]) for before, after in itertools.pairwise(found))
    assert tum.path_length == pytest.approx(length, rel=1e-6)
