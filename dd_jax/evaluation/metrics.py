"""Depth errors of one image, by region, and their means over a data set (NumPy, on the host)."""

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from jaxtyping import Bool, Float

from dd_jax.config import EvalConfig
from dd_jax.evaluation.crops import crop

ERRORS = ("abs_rel", "sq_rel", "rmse", "rmse_log", "a1", "a2", "a3")
"""The standard metrics of Eigen et al. (2014)."""

FURTHER = ("abs_diff", "log10")
"""Further errors reported by SC-Depth and indoor papers: written to files, not shown in tables."""

Result = dict[str, dict[str, float | int]]
"""Region ("all", "dynamic", ...) -> errors and "pixels"; "scale" -> the factor from predicted depth to metres."""


def depth_errors(truth: Float[np.ndarray, " n"], prediction: Float[np.ndarray, " n"]) -> dict[str, float]:
    """The seven errors of Eigen et al. (2014) and :data:`FURTHER` over n > 0 pixels, from depths in metres.

    Lower is better except a1, a2, a3 (shares).
    """
    truth, prediction = truth.astype(np.float64), prediction.astype(np.float64)
    worse = np.maximum(truth / prediction, prediction / truth)
    difference = truth - prediction
    values = (
        np.mean(np.abs(difference) / truth),
        np.mean(difference**2 / truth),
        np.sqrt(np.mean(difference**2)),
        np.sqrt(np.mean((np.log(truth) - np.log(prediction)) ** 2)),
        *(np.mean(worse < 1.25**n) for n in (1, 2, 3)),
        np.mean(np.abs(difference)),
        np.mean(np.abs(np.log10(truth) - np.log10(prediction))),
    )
    return dict(zip((*ERRORS, *FURTHER), map(float, values), strict=True))


def regions(dynamic: Bool[np.ndarray, "h w"] | None, moving: Bool[np.ndarray, "h w"] | None) -> dict[str, np.ndarray]:
    """Regions scored separately, for the given masks; "static" is everything outside potentially dynamic objects."""
    found = {}
    if dynamic is not None:
        found |= {"dynamic": dynamic, "static": ~dynamic}
    if moving is not None:
        found["moving"] = moving
    return found


def depth_at(disp: Float[np.ndarray, "h w"], size: tuple[int, int], config: EvalConfig) -> Float[np.ndarray, "H W"]:
    """Depth at (rows, columns) ``size`` from 1 / depth at network size, bilinear with half-pixel centres.

    ``config.resize`` is the interpolated quantity; the "depth" convention also clamps before scaling.
    """
    rows, columns = size
    disp = np.asarray(disp, np.float32)
    if config.resize == "disparity":
        return 1 / cv2.resize(disp, (columns, rows), interpolation=cv2.INTER_LINEAR)
    depth = cv2.resize(1 / disp, (columns, rows), interpolation=cv2.INTER_LINEAR)
    return np.clip(depth, config.min_depth, config.max_depth)


def valid_pixels(truth: Float[np.ndarray, "H W"], config: EvalConfig) -> Bool[np.ndarray, "H W"]:
    """Pixels that are scored: with ground truth, in range, inside the crop."""
    inside = np.zeros(truth.shape, bool)
    inside[crop(config.crop, truth.shape)] = True
    return inside & (truth > config.min_depth) & ((truth < config.max_depth) | config.far_truth)


def median(values: Float[np.ndarray, " n"], config: EvalConfig) -> float:
    """Median; for an even count the mean of the middle values or the lower one (``config.median``)."""
    if config.median == "average":
        return float(np.median(values))
    return float(np.partition(values, (len(values) - 1) // 2)[(len(values) - 1) // 2])


def median_ratio(
    depth: Float[np.ndarray, "H W"], truth: Float[np.ndarray, "H W"], valid: Bool[np.ndarray, "H W"], config: EvalConfig
) -> float:
    """Median scaling: factor from predicted depth to metres, over the ``valid`` pixels (at least one)."""
    return median(truth[valid], config) / median(depth[valid], config)


def _mask_at(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    rows, columns = (np.arange(n) * m // n for n, m in zip(size, mask.shape, strict=True))
    return mask[np.ix_(rows, columns)]


def evaluate_image(
    disp: Float[np.ndarray, "h w"],
    truth: Float[np.ndarray, "H W"],
    masks: Mapping[str, Bool[np.ndarray, "_ _"]],
    config: EvalConfig,
    factor: float | None = None,
) -> Result:
    """Errors of one prediction, over all valid pixels and over those of each mask.

    ``disp`` is 1 / depth; ``factor`` converts the depth to metres. Without it, median scaling over all valid pixels is used
    and the unit does not matter. ``truth`` is in metres, 0 where unknown; prediction, truth and masks may differ in size but
    must show the same part of the image. Regions without pixels have only "pixels".

    Raises:
      ValueError: the prediction is not finite and positive.
    """
    if not (np.isfinite(disp).all() and (np.asarray(disp) > 0).all()):
        raise ValueError("the predicted disparity must be finite and positive everywhere")
    valid = valid_pixels(truth, config)
    where = {"all": valid} | {name: valid & _mask_at(np.asarray(mask), truth.shape) for name, mask in masks.items()}
    result: Result = {name: {"pixels": int(area.sum())} for name, area in where.items()}
    if not valid.any():
        return result
    depth = depth_at(disp, truth.shape, config)
    ratio = median_ratio(depth, truth, valid, config) if factor is None else factor
    depth = np.clip(depth * ratio, config.min_depth, config.max_depth)
    for name, area in where.items():
        if area.any():
            result[name] |= depth_errors(truth[area], depth[area])
    return result | {"scale": {"ratio": ratio}}


def summarize(results: Sequence[Result]) -> Result:
    """Mean over the images that have pixels in a region; "pixels" and "images" are totals.

    "scale" has the median ratio and the relative standard deviation of the ratios (scale consistency). Regions without pixels
    in any image have zero counts and no errors.
    """
    names = dict.fromkeys(name for result in results for name in result if name != "scale")
    summary: Result = {}
    for name in names:
        rows = [result[name] for result in results if result.get(name, {}).get("pixels", 0)]
        summary[name] = {"pixels": sum(row["pixels"] for row in rows), "images": len(rows)}
        if rows:
            summary[name] |= {error: float(np.mean([row[error] for row in rows])) for error in (*ERRORS, *FURTHER)}
    ratios = np.array([result["scale"]["ratio"] for result in results if "scale" in result])
    if len(ratios):
        middle = float(np.median(ratios))
        summary["scale"] = {"median": middle, "relative_std": float(np.std(ratios / middle))}
    return summary
