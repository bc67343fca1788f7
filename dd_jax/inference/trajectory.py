"""Camera trajectory: chained relative poses, and the two file formats of odometry tools.

A pose is T_first_from_camera, 4x4: camera coordinates (x right, y down, z forward) to those of the first camera, in the unit of
the scaled depth.
"""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Float, Float64

from dd_jax.inference.metric_scale import Prediction

Pose = Float[np.ndarray, "4 4"]


def next_pose(pose: Pose | None, prediction: Prediction, factor: float) -> Float64[np.ndarray, "4 4"]:
    """Pose of the next camera, of the first one if ``pose`` is None; ``factor`` scales the relative translation.

    A camera without a previous frame keeps the pose of the one before.
    """
    if pose is None or prediction.T_previous_from_target is None:
        return np.eye(4) if pose is None else np.asarray(pose, np.float64)
    motion = np.eye(4)
    motion[:3, :3] = _nearest_rotation(prediction.T_previous_from_target[:3, :3].astype(np.float64))
    motion[:3, 3] = prediction.T_previous_from_target[:3, 3].astype(np.float64) * factor
    return pose @ motion


def kitti(poses: Iterable[Pose]) -> str:
    """KITTI's odometry format: the upper three rows of each pose on a line, row by row."""
    return "".join(" ".join(f"{value:.9e}" for value in pose[:3].ravel()) + "\n" for pose in poses)


def tum(poses: Iterable[Pose], times: Iterable[float]) -> str:
    """The format of TUM's RGB-D benchmark: ``time x y z qx qy qz qw``, in seconds and with unit quaternions."""
    rows = ((time, *pose[:3, 3], *quaternion(pose[:3, :3])) for time, pose in zip(times, poses, strict=True))
    return "".join(f"{time:.6f} " + " ".join(f"{value:.9f}" for value in rest) + "\n" for time, *rest in rows)


def quaternion(rotation: Float[np.ndarray, "3 3"]) -> Float64[np.ndarray, "4"]:
    """Unit quaternion (x, y, z, w) of a rotation, w >= 0.

    The eigenvector of Bar-Itzhack's symmetric matrix: no case distinction, exact at every angle (J. Guidance 23(6), 2000).
    """
    (a, b, c), (d, e, f), (g, h, i) = np.asarray(rotation, np.float64)
    matrix = np.array([[a - e - i, b + d, c + g, h - f], [b + d, e - a - i, f + h, c - g], [c + g, f + h, i - a - e, d - b],
                       [h - f, c - g, d - b, a + e + i]])  # fmt: skip
    vector = np.linalg.eigh(matrix)[1][:, -1]
    return vector if vector[3] >= 0 else -vector


def _nearest_rotation(matrix: Float64[np.ndarray, "3 3"]) -> Float64[np.ndarray, "3 3"]:
    """The closest orthonormal matrix to a float32 rotation; without it a long chain would shear."""
    u, _, vt = np.linalg.svd(matrix)
    return u @ np.diag([1, 1, np.linalg.det(u @ vt)]) @ vt
