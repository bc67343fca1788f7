"""True motion of the camera: ``poses.txt`` of rendered drives, GPS and IMU of KITTI raw, poses of KITTI odometry."""

import functools
import warnings
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float64

from dd_jax.config import ConfigError, DataConfig
from dd_jax.data.kitti.calibration import AGAIN, is_rotation, read_calibration
from dd_jax.data.kitti.odometry import sequence_folder
from dd_jax.data.splits import SIDES

EARTH = 6378137.0
"""Radius in metres, as in KITTI's development kit."""

POSITION = (89.0, 180.0, 1e5, 7.0, 7.0, 7.0)
"""Largest absolute values in a file of ``oxts``; the projection ends at the poles."""

Pose = Float64[np.ndarray, "4 4"]


class TruePoses:
    """Relative poses of the frames of a data set, in metres."""

    def __init__(self, config: DataConfig):
        self._config = config
        self._of_drive = functools.cache(self._read)

    def T_neighbour_from_target(self, name: str, offset: int) -> Pose | None:
        """Camera coordinates of a sample's target frame to those of the frame ``offset`` frames later; None if unknown.

        ``name`` is the sample's line in the split file.

        Raises:
          ConfigError: a file with poses or a calibration is damaged.
        """
        if self._config.source != "kitti":
            return None
        folder, frame, side = name.split()
        poses = self._of_drive(folder, SIDES[side])
        neighbour, target = (poses.get(int(frame) + shift) for shift in (offset, 0))
        return None if neighbour is None or target is None else np.linalg.inv(neighbour) @ target

    def _read(self, folder: str, camera: int) -> dict[int, Pose]:
        """T_world_from_camera by frame number; empty without files."""
        root = Path(self._config.root)
        if self._config.split == "odom":
            path = root / "poses" / f"{int(folder):02d}.txt"
            if not path.is_file():
                return {}
            P = read_calibration(root / sequence_folder(folder) / "calib.txt", **{f"P{camera}": 12})[f"P{camera}"]
            return {frame: pose @ np.linalg.inv(_from_first_camera(P)) for frame, pose in enumerate(read_poses(path))}
        drive = root / folder
        if (drive / "poses.txt").is_file():
            return dict(enumerate(read_poses(drive / "poses.txt")))
        calibration = [drive.parent / f"calib_{name}.txt" for name in ("cam_to_cam", "velo_to_cam", "imu_to_velo")]
        measured = sorted((drive / "oxts" / "data").glob("*.txt"))
        if not measured or not all(path.is_file() for path in calibration):
            return {}
        T_imu_from_camera = np.linalg.inv(T_camera_from_imu(*calibration, camera))
        poses = T_world_from_imu(np.stack([read_position(path) for path in measured]))
        return {int(path.stem): pose @ T_imu_from_camera for path, pose in zip(measured, poses)}


def read_poses(path: Path) -> Float64[np.ndarray, "n 4 4"]:
    """KITTI's odometry format, the upper three rows of each pose on a line.

    Raises:
      ConfigError: a line has not 12 finite numbers, or not those of a pose.
    """
    rows = _numbers(path)
    if rows.shape[1] != 12:
        raise ConfigError(f"{path} has {rows.shape[1]} numbers per line, but a pose has 12: {AGAIN}")
    poses = np.tile(np.eye(4), (len(rows), 1, 1))
    poses[:, :3] = rows.reshape(-1, 3, 4)
    if not (np.abs(rows) < EARTH).all() or not is_rotation(poses[:, :3, :3]):
        raise ConfigError(f"{path} has a line that is not the upper rows of a pose, a rotation and a translation: {AGAIN}")
    return poses


def read_position(path: Path) -> Float64[np.ndarray, "6"]:
    """Latitude and longitude in degrees, altitude in metres, roll, pitch and yaw in radians, from a file of ``oxts``.

    Raises:
      ConfigError: other values.
    """
    values = _numbers(path)[0, :6]
    if values.size < 6 or not (np.abs(values) <= POSITION).all():
        raise ConfigError(f"{path} does not begin with latitude, longitude, altitude, roll, pitch and yaw: {AGAIN}")
    return values


def T_camera_from_imu(cam_to_cam: Path, velo_to_cam: Path, imu_to_velo: Path, camera: int) -> Pose:
    """From KITTI's three calibration files; raises as :func:`read_calibration`."""
    cameras = read_calibration(cam_to_cam, **{"R_rect_00": 9, f"P_rect_0{camera}": 12})
    scanner, imu = read_calibration(velo_to_cam, R=9, T=3), read_calibration(imu_to_velo, R=9, T=3)
    rectify = _rigid(cameras["R_rect_00"], np.zeros(3))
    return (
        _from_first_camera(cameras[f"P_rect_0{camera}"])
        @ rectify
        @ _rigid(scanner["R"], scanner["T"])
        @ _rigid(imu["R"], imu["T"])
    )


def T_world_from_imu(oxts: Float[np.ndarray, "n 6"]) -> Float64[np.ndarray, "n 4 4"]:
    """Poses from latitude and longitude in degrees, altitude, roll, pitch and yaw in radians (KITTI's development kit).

    Mercator projection with the scale of the first latitude; x east, y north, z up.
    """
    latitude, longitude, altitude, roll, pitch, yaw = oxts.T
    scale = np.cos(np.radians(latitude[0])) * EARTH
    poses = np.tile(np.eye(4), (len(oxts), 1, 1))
    poses[:, 0, 3] = scale * np.radians(longitude)
    poses[:, 1, 3] = scale * np.log(np.tan(np.radians(90 + latitude) / 2))
    poses[:, 2, 3] = altitude
    poses[:, :3, :3] = _about(yaw, 0, 1) @ _about(pitch, 2, 0) @ _about(roll, 1, 2)
    return poses


def _about(angle: Float[np.ndarray, " n"], first: int, second: int) -> Float64[np.ndarray, "n 3 3"]:
    """Rotations that turn the axis ``first`` towards ``second``."""
    found = np.tile(np.eye(3), (len(angle), 1, 1))
    found[:, first, first] = found[:, second, second] = np.cos(angle)
    found[:, second, first], found[:, first, second] = np.sin(angle), -np.sin(angle)
    return found


def _from_first_camera(P: Float[np.ndarray, "12"]) -> Pose:
    """From rectified coordinates of camera 0 to those of the camera with projection ``P``."""
    P = P.reshape(3, 4)
    return _rigid(np.eye(3), np.linalg.solve(P[:, :3], P[:, 3]))


def _rigid(rotation: Float[np.ndarray, "..."], translation: Float[np.ndarray, "3"]) -> Pose:
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = rotation.reshape(3, 3), translation
    return T


def _numbers(path: Path) -> Float64[np.ndarray, "n m"]:
    try:
        with warnings.catch_warnings(action="ignore"):  # of a file without numbers, which is refused below
            values = np.loadtxt(path, ndmin=2)
    except ValueError as error:
        raise ConfigError(f"{path} is not a table of numbers ({error}): {AGAIN}") from error
    if not values.size or not np.isfinite(values).all():
        raise ConfigError(f"{path} is empty or has values that are not finite: {AGAIN}")
    return values
