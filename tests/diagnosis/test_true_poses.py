import shutil

import numpy as np
import pytest

from dd_jax.config import ConfigError, DataConfig
from dd_jax.data.synthetic import calibration
from dd_jax.diagnosis.true_poses import TruePoses, read_poses

NAME = "2011_09_26/2011_09_26_drive_9001_sync"
CALIB = "P0: 40 0 30 0 0 40 14 0 0 0 1 0\nP2: 50 0 31 4.5 0 51 15 0.2 0 0 1 0\n"


def pose(angle, x, z):
    return np.array([[np.cos(angle), 0, np.sin(angle), x], [0, 1, 0, 0], [-np.sin(angle), 0, np.cos(angle), z], [0, 0, 0, 1]])


@pytest.fixture
def tree(drives, tmp_path):
    """A copy of one drive's poses and calibration."""
    (tmp_path / NAME).mkdir(parents=True)
    for name in ("poses.txt", "oxts"):
        source = drives / NAME / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / NAME / name)
    for path in (drives / calibration.DATE).glob("calib_*.txt"):
        shutil.copy(path, tmp_path / calibration.DATE)
    return tmp_path


def test_relative_pose_of_a_rendered_drive(tree):
    T_world_from_camera = read_poses(tree / NAME / "poses.txt")
    found = TruePoses(DataConfig(root=str(tree)))
    for frame, offset in ((5, -1), (5, 1), (7, -3)):
        T = found.T_neighbour_from_target(f"{NAME} {frame} l", offset)
        np.testing.assert_allclose(T_world_from_camera[frame + offset] @ T, T_world_from_camera[frame], atol=1e-9)
    forward = found.T_neighbour_from_target(f"{NAME} 5 l", -1)[2, 3]
    assert forward > 0  # the target camera is ahead of the previous one


def test_outside_the_drive_there_is_no_pose(tree):
    found = TruePoses(DataConfig(root=str(tree)))
    assert found.T_neighbour_from_target(f"{NAME} 0 l", -1) is None
    assert found.T_neighbour_from_target(f"{NAME} 11 l", 1) is None
    assert found.T_neighbour_from_target(f"{NAME} 11 l", -1) is not None


def test_gps_gives_the_same_motion(tree):
    data = DataConfig(root=str(tree))
    expected = [TruePoses(data).T_neighbour_from_target(f"{NAME} {frame} l", -1) for frame in range(1, 12)]
    (tree / NAME / "poses.txt").unlink()
    found = TruePoses(data)
    measured = [found.T_neighbour_from_target(f"{NAME} {frame} l", -1) for frame in range(1, 12)]
    np.testing.assert_allclose(measured, expected, atol=2e-5)


def test_right_camera_of_a_turning_car_moves_differently(tree):
    """Both are on one rigid body: the motions are conjugate."""
    (tree / NAME / "poses.txt").unlink()
    found = TruePoses(DataConfig(root=str(tree)))
    left, right = (found.T_neighbour_from_target(f"{NAME} 6 {side}", -1) for side in "lr")
    T_right_from_left = np.eye(4)
    K = calibration.intrinsics(*calibration.NATIVE)
    shift = [np.linalg.solve(K, calibration._FOURTH_COLUMN[camera]) for camera in (2, 3)]
    T_right_from_left[:3, 3] = shift[1] - shift[0]
    np.testing.assert_allclose(T_right_from_left @ left, right @ T_right_from_left, atol=1e-6)


def test_without_gps_or_calibration_unknown(tree):
    (tree / NAME / "poses.txt").unlink()
    (tree / calibration.DATE / "calib_imu_to_velo.txt").unlink()
    assert TruePoses(DataConfig(root=str(tree))).T_neighbour_from_target(f"{NAME} 5 l", -1) is None
    assert TruePoses(DataConfig(root=str(tree), source="folder")).T_neighbour_from_target("clip 000005", -1) is None


def test_odometry_poses_are_of_the_first_camera(tmp_path):
    T = [pose(0.1 * frame, 0.02 * frame**2, 1.0 * frame) for frame in range(4)]
    (tmp_path / "poses").mkdir()
    (tmp_path / "poses/09.txt").write_text("".join(" ".join(map(str, one[:3].ravel())) + "\n" for one in T))
    (tmp_path / "sequences/09").mkdir(parents=True)
    (tmp_path / "sequences/09/calib.txt").write_text(CALIB)
    found = TruePoses(DataConfig(root=str(tmp_path), split="odom"))
    T_left_from_first = np.eye(4)
    T_left_from_first[:3, 3] = 4.5 / 50, 0.2 / 51, 0
    expected = T_left_from_first @ np.linalg.inv(T[1]) @ T[2] @ np.linalg.inv(T_left_from_first)
    np.testing.assert_allclose(found.T_neighbour_from_target("9 2 l", -1), expected, atol=1e-9)
    assert found.T_neighbour_from_target("9 0 l", -1) is None and found.T_neighbour_from_target("8 2 l", -1) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 0 0 0\n", r"poses.txt has 4 numbers per line, but a pose has 12"),
        ("1 2\n3\n", "poses.txt is not a table of numbers"),
        ("one two\n", "poses.txt is not a table of numbers"),
        ("nan " * 12 + "\n", "poses.txt is empty or has values that are not finite"),
    ],
)
def test_damaged_poses_raise_one_sentence(tree, text, message):
    (tree / NAME / "poses.txt").write_text(text)
    with pytest.raises(ConfigError, match=message):
        TruePoses(DataConfig(root=str(tree))).T_neighbour_from_target(f"{NAME} 5 l", -1)
