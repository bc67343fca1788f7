"""Depth errors of one image, by region, and their means over a data set. NumPy only: runs on the host."""

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from jaxtyping import Bool, Float

from dd_jax.config import EvalConfig

ERRORS = ("abs_rel", "sq_rel", "rmse", "rmse_log", "a1", "a2", "a3")
"""The columns of the field's tables."""

FURTHER = ("abs_diff", "log10")
"""Errors that SC-Depth and indoor papers report besides: in the files, not in the tables."""

Result = dict[str, dict[str, float | int]]
"""Region ("all", "dynamic", ...) -> errors and "pixels"; "scale" -> the factor that brought the prediction to metres."""

_GARG_ROWS, _GARG_COLUMNS = (0.40810811, 0.99189189), (0.03594771, 0.96405229)


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
    """Regions scored apart, as far as masks are known; "static" is everything outside the potentially dynamic objects."""
    found = {}
    if dynamic is not None:
        found |= {"dynamic": dynamic, "static": ~dynamic}
    if moving is not None:
        found["moving"] = moving
    return found


def depth_at(disp: Float[np.ndarray, "h w"], size: tuple[int, int], config: EvalConfig) -> Float[np.ndarray, "H W"]:
    """Depth of (rows, columns) ``size`` from 1 / depth at network size, bilinear with half-pixel centres.

    ``config.resize`` names the quantity that is interpolated; the "depth" convention also clamps before any scaling.
    """
    rows, columns = size
    disp = np.asarray(disp, np.float32)
    if config.resize == "disparity":
        return 1 / cv2.resize(disp, (columns, rows), interpolation=cv2.INTER_LINEAR)
    depth = cv2.resize(1 / disp, (columns, rows), interpolation=cv2.INTER_LINEAR)
    return np.clip(depth, config.min_depth, config.max_depth)


def valid_pixels(truth: Float[np.ndarray, "H W"], config: EvalConfig) -> Bool[np.ndarray, "H W"]:
    """Pixels of a map that count: measured, in range, inside the crop."""
    rows, columns = truth.shape
    crop = np.zeros(truth.shape, bool)
    if config.crop == "eigen":
        top, bottom = (int(share * rows) for share in _GARG_ROWS)
        left, right = (int(share * columns) for share in _GARG_COLUMNS)
    elif config.crop == "cityscapes":  # rows 256 to 768 and columns 192 to 1856 of 768x2048
        top, bottom, left, right = rows // 3, rows, columns * 3 // 32, columns * 29 // 32
    else:
        top, bottom, left, right = 0, rows, 0, columns
    crop[top:bottom, left:right] = True
    return crop & (truth > config.min_depth) & ((truth < config.max_depth) | config.far_truth)


def median(values: Float[np.ndarray, " n"], config: EvalConfig) -> float:
    """Middle value; of an even count the mean of the two, or the lower one (``config.median``)."""
    if config.median == "average":
        return float(np.median(values))
    return float(np.partition(values, (len(values) - 1) // 2)[(len(values) - 1) // 2])


def median_ratio(
    depth: Float[np.ndarray, "H W"], truth: Float[np.ndarray, "H W"], valid: Bool[np.ndarray, "H W"], config: EvalConfig
) -> float:
    """What brings a predicted depth to metres by the medians over the ``valid`` pixels, of which there is at least one."""
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

    ``disp`` is 1 / depth; ``factor`` brings the depth to metres. Without one the unit does not matter: it is the ratio of
    the medians over all valid pixels. ``truth`` is in metres, 0 where unknown; prediction, truth and masks may differ in
    size and show the same part of the picture. Regions without pixels carry "pixels" only.

    Raises:
      ValueError: a prediction that is not finite and positive.
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

    "scale" holds the median ratio and the relative standard deviation of the ratios (how consistent the scale is). Regions
    that no image shows carry zero counts and no errors.
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
