"""Predicted against true motion between the previous frame and the target."""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float

STANDING = 0.02
"""Metres per frame below which the car stands."""

FEW = 5
"""Number of values below which a correlation is accidental."""

Values = dict[str, float | int | None]


@dataclasses.dataclass
class Motion:
    """``T_previous_from_target`` of samples; predicted in the networks' unit, true in metres."""

    drives: list[str]
    predicted: Float[np.ndarray, "n 4 4"]
    true: Float[np.ndarray, "n 4 4"]
    frame_step: int = 1  # number of frames between the two

    @property
    def speeds(self) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """Predicted and true distance per frame, in metres; the predicted one after one scale for all samples."""
        T = np.stack([self.predicted, self.true]).astype(np.float64)
        predicted, true = np.linalg.norm(T[:, :, :3, 3], axis=-1) / self.frame_step
        usable = (true >= STANDING) & (predicted > 0)
        scale = float(np.median(true[usable] / predicted[usable])) if usable.any() else np.nan
        return predicted * scale, true


def compare_poses(motion: Motion) -> Values | dict[str, Values | dict[str, Values]]:
    """Errors per frame over all samples, and under ``per_drive`` those of each drive, with the same scale.

    With ``data.frame_step`` k, rotations and distances over k frames are divided by k. Correlations are None where one side does
    not vary, ``standing_speed`` (metres per frame) where the car never stands.
    """
    drives = np.array(motion.drives)
    per_drive = {drive: _errors(motion, drives == drive) for drive in dict.fromkeys(motion.drives)}
    return _errors(motion, np.ones(len(drives), bool)) | {"per_drive": per_drive}


def _errors(motion: Motion, chosen: Bool[np.ndarray, " n"]) -> Values:
    predicted, true = (T[chosen, :3, :3].astype(np.float64) for T in (motion.predicted, motion.true))
    speed, true_speed = (values[chosen] for values in motion.speeds)
    error, turn = (_angles(R) / motion.frame_step for R in (predicted @ np.swapaxes(true, 1, 2), true))
    standing = true_speed < STANDING
    return {
        "frames": int(chosen.sum()),
        "speed_correlation": correlation(speed, true_speed),
        "rotation_error_deg_median": float(np.median(error)),
        "rotation_error_deg_90": float(np.percentile(error, 90)),
        "yaw_correlation": correlation(_yaw(predicted), _yaw(true)),
        "standing_speed": _finite(np.mean(speed[standing])) if standing.any() else None,
        "true_rotation_deg_median": float(np.median(turn)),
        "true_speed_median": float(np.median(true_speed)),
        "true_speed_deviation": float(np.std(true_speed)),
    }


def correlation(a: Float[np.ndarray, " n"], b: Float[np.ndarray, " n"]) -> float | None:
    """Pearson's; None where it is not defined, or of fewer than :data:`FEW` values."""
    if len(a) < FEW or not (np.isfinite(a).all() and np.ptp(a) > 0 and np.ptp(b) > 0):
        return None
    return float(np.corrcoef(a, b)[0, 1])


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _angles(R: Float[np.ndarray, "n 3 3"]) -> Float[np.ndarray, " n"]:
    """Degrees. From sine and cosine, because the arc cosine alone is inexact near zero."""
    sine = np.linalg.norm(np.stack([R[:, 2, 1] - R[:, 1, 2], R[:, 0, 2] - R[:, 2, 0], R[:, 1, 0] - R[:, 0, 1]]), axis=0) / 2
    return np.degrees(np.arctan2(sine, (np.trace(R, axis1=1, axis2=2) - 1) / 2))


def _yaw(R: Float[np.ndarray, "n 3 3"]) -> Float[np.ndarray, " n"]:
    """About the camera's vertical axis, in radians."""
    return np.arctan2(R[:, 0, 2], R[:, 2, 2])
