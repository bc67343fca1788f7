"""Camera trajectory: relative poses chained to one pose per frame, and the two file formats of odometry tools.

A pose is T_first_from_camera, 4x4: camera coordinates (x right, y down, z forward) to those of the first camera, in the unit of
the scaled depth.
"""

from collections.abc import Iterable

import cv2
import numpy as np
from jaxtyping import Float, Float64

from dd_jax.inference.metric_scale import Prediction

Pose = Float[np.ndarray, "4 4"]


class Trajectory:
    """Poses of consecutive frames, whose relative poses are to the frame ``step`` before.

    Frames 0, ``step``, 2 ``step``, ... form the chain. A frame between two of them adds its own motion to the pose ``step``
    frames before it, which is interpolated on the chain; so the frames do not split into ``step`` chains that drift apart. The
    first ``step`` - 1 frames after frame 0 have no relative pose; they keep the first pose until frame ``step`` is added, which
    interpolates theirs.
    """

    def __init__(self, step: int):
        self._step = step
        self.poses: list[Float64[np.ndarray, "4 4"]] = []

    def add(self, prediction: Prediction, factor: float) -> None:
        """Appends the pose of the next frame; ``factor`` scales the relative translation.

        A camera without a relative pose keeps the pose of the one before.
        """
        place, T = len(self.poses), prediction.T_previous_from_target
        if place < self._step or T is None:
            self.poses.append(self.poses[-1] if self.poses else np.eye(4))
            return
        motion = np.eye(4)
        motion[:3, :3] = _nearest_rotation(T[:3, :3].astype(np.float64))
        motion[:3, 3] = T[:3, 3].astype(np.float64) * factor
        self.poses.append(self._on_chain(place - self._step) @ motion)
        if place == self._step:
            self.poses[1:place] = [self._on_chain(between) for between in range(1, place)]

    def _on_chain(self, place: int) -> Float64[np.ndarray, "4 4"]:
        """Pose between the two nearest frames of the chain: rotation about one axis and translation in proportion."""
        start = place - place % self._step
        before = self.poses[start]
        if place == start:
            return before
        share, motion = (place - start) / self._step, np.linalg.inv(before) @ self.poses[start + self._step]
        part = np.eye(4)
        part[:3, :3] = cv2.Rodrigues(share * cv2.Rodrigues(motion[:3, :3])[0])[0]
        part[:3, 3] = share * motion[:3, 3]
        return before @ part


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
