"""Sensor calibration of KITTI's 2011_09_26 (Geiger et al., "Vision meets Robotics", 2013), for images of any size.

No rotation is the identity, so a reader that omits one fails on these drives as on the real ones.
"""

import numpy as np
from jaxtyping import Float64

DATE = "2011_09_26"
NATIVE = 375, 1242
"""Height and width that the calibration refers to."""

_R_RECT_00 = (
    "9.999239e-01 9.837760e-03 -7.445048e-03 -9.869795e-03 9.999421e-01 -4.278459e-03 7.402527e-03 4.351614e-03 9.999631e-01"
)
_R_VELO = (
    "7.533745e-03 -9.999714e-01 -6.166020e-04 1.480249e-02 7.280733e-04 -9.998902e-01 9.998621e-01 7.523790e-03 1.480755e-02"
)
_T_VELO = "-4.069766e-03 -7.631618e-02 -2.717806e-01"
_R_IMU = "9.999976e-01 7.553071e-04 -2.035826e-03 -7.854027e-04 9.998898e-01 -1.482298e-02 2.024406e-03 1.482454e-02 9.998881e-01"
_T_IMU = "-8.086759e-01 3.195559e-01 -7.997231e-01"
_FOCAL, _CENTRE = 721.5377, (609.5593, 172.854)
_FOURTH_COLUMN = (  # of P_rect, cameras 0 to 3
    (0.0, 0.0, 0.0),
    (-387.5744, 0.0, 0.0),
    (44.85728, 0.2163791, 0.002745884),
    (-339.5242, 2.199936, 0.002729905),
)
_TIME = "calib_time: 09-Jan-2012 13:57:47\n"


def _matrix(text: str, *shape: int) -> np.ndarray:
    return np.array([float(v) for v in text.split()]).reshape(shape)


def _rigid(rotation: np.ndarray, translation: np.ndarray) -> np.ndarray:
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = rotation, translation
    return T


T_velo_imu: Float64[np.ndarray, "4 4"] = _rigid(_matrix(_R_IMU, 3, 3), _matrix(_T_IMU, 3))
T_rect0_velo: Float64[np.ndarray, "4 4"] = _rigid(_matrix(_R_RECT_00, 3, 3), np.zeros(3)) @ _rigid(
    _matrix(_R_VELO, 3, 3), _matrix(_T_VELO, 3)
)
_K_NATIVE = np.array([[_FOCAL, 0, _CENTRE[0]], [0, _FOCAL, _CENTRE[1]], [0, 0, 1]])
T_cam2_velo: Float64[np.ndarray, "4 4"] = _rigid(np.eye(3), np.linalg.solve(_K_NATIVE, _FOURTH_COLUMN[2])) @ T_rect0_velo
T_cam2_imu: Float64[np.ndarray, "4 4"] = T_cam2_velo @ T_velo_imu


def intrinsics(height: int, width: int) -> Float64[np.ndarray, "3 3"]:
    """K in pixels of an image resized to this size; pixel centres scale as ``(c + .5) s - .5``."""
    sy, sx = height / NATIVE[0], width / NATIVE[1]
    return np.array([
        [_FOCAL * sx, 0, (_CENTRE[0] + 0.5) * sx - 0.5], [0, _FOCAL * sy, (_CENTRE[1] + 0.5) * sy - 0.5], [0, 0, 1],
    ])  # fmt: skip


def files(height: int, width: int) -> dict[str, str]:
    """The three calibration files of the date folder: name -> text."""
    numbers = lambda values: " ".join(f"{v:.10e}" for v in np.ravel(values))  # noqa: E731
    K = intrinsics(height, width)
    camera = _TIME + "corner_dist: 9.950000e-02\n"
    for i, column in enumerate(_FOURTH_COLUMN):
        P = np.column_stack([K, K @ np.linalg.solve(_K_NATIVE, column)])
        # P contains the rotations of the other cameras; KITTI readers use that of camera 0 only
        camera += f"S_rect_{i:02d}: {numbers([width, height])}\nR_rect_{i:02d}: {_R_RECT_00}\nP_rect_{i:02d}: {numbers(P)}\n"
    velo = f"{_TIME}R: {_R_VELO}\nT: {_T_VELO}\ndelta_f: 0.000000e+00 0.000000e+00\ndelta_c: 0.000000e+00 0.000000e+00\n"
    return {
        "calib_cam_to_cam.txt": camera,
        "calib_velo_to_cam.txt": velo,
        "calib_imu_to_velo.txt": f"{_TIME}R: {_R_IMU}\nT: {_T_IMU}\n",
    }


_EARTH = 6378137.0
_ORIGIN = 49.011212804408, 8.4228850417969, 112.83492279053  # latitude, longitude (degrees), altitude of the first frame
_ENU_FROM_WORLD = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])  # X, Y down, Z -> east, north, up


def oxts(T_world_cam: Float64[np.ndarray, "n 4 4"], dt: float = 0.1) -> list[str]:
    """One OXTS line of 30 numbers per frame, from which a reader recovers the camera poses (relative to the first).

    Mercator projection with the scale of the first frame's latitude, as in the KITTI development kit.
    """
    T_world_imu = T_world_cam @ T_cam2_imu
    rotation = _ENU_FROM_WORLD @ T_world_imu[:, :3, :3]
    position = T_world_imu[:, :3, 3] @ _ENU_FROM_WORLD.T
    velocity = np.gradient(position, dt, axis=0) if len(position) > 1 else np.zeros_like(position)
    acceleration = np.gradient(velocity, dt, axis=0) if len(position) > 1 else np.zeros_like(position)
    scale = np.cos(np.radians(_ORIGIN[0]))
    east = scale * _EARTH * np.radians(_ORIGIN[1]) + position[:, 0] - position[0, 0]
    north = scale * _EARTH * np.log(np.tan(np.radians(90 + _ORIGIN[0]) / 2)) + position[:, 1] - position[0, 1]
    lat = np.degrees(2 * np.arctan(np.exp(north / (scale * _EARTH)))) - 90
    lon = np.degrees(east / (scale * _EARTH))
    alt = _ORIGIN[2] + position[:, 2] - position[0, 2]
    lines = []
    for i, R in enumerate(rotation):
        roll, pitch, yaw = np.arctan2(R[2, 1], R[2, 2]), np.arcsin(-R[2, 0]), np.arctan2(R[1, 0], R[0, 0])
        ve, vn, _ = velocity[i]
        level = np.array([[np.cos(yaw), np.sin(yaw), 0], [-np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])  # forward, left, up
        ahead, force = level @ velocity[i], acceleration[i]
        spin = _spin(rotation, i, dt)
        values = [lat[i], lon[i], alt[i], roll, pitch, yaw, vn, ve, *ahead, *(R.T @ force), *(level @ force)]
        values += [*spin, *(level @ R @ spin), 0.05, 0.02]
        lines.append(" ".join(f"{v:.14g}" for v in values) + " 4 10 4 4 0")
    return lines


def _spin(rotation: np.ndarray, i: int, dt: float) -> np.ndarray:
    """Angular velocity in body axes, from the neighbouring frames."""
    a, b = max(i - 1, 0), min(i + 1, len(rotation) - 1)
    if a == b:
        return np.zeros(3)
    turn = rotation[a].T @ rotation[b]
    return np.array([turn[2, 1] - turn[1, 2], turn[0, 2] - turn[2, 0], turn[1, 0] - turn[0, 1]]) / (2 * dt * (b - a))
