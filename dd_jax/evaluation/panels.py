"""Selection of the samples shown in the report, and the panel of one sample."""

from collections.abc import Mapping, Sequence

import cv2
import jax
import numpy as np
from jaxtyping import Float, UInt8

from dd_jax import report
from dd_jax.config import EvalConfig
from dd_jax.data.frames import GroundTruth
from dd_jax.evaluation import metrics
from dd_jax.types import PREVIOUS, TARGET, Batch, Predictions


def extremes(results: Sequence[metrics.Result], wanted: int) -> tuple[list[int], list[int]]:
    """Positions with the largest and smallest abs_rel, ``wanted`` of each, at most half of the scored samples."""
    errors = {place: result["all"]["abs_rel"] for place, result in enumerate(results) if "scale" in result}
    ordered = sorted(errors, key=errors.__getitem__)
    count = min(wanted, len(ordered) // 2)
    return ordered[::-1][:count], ordered[:count]


def sample_panel(
    position: int,
    batch: Batch,
    prediction: Predictions | None,
    offsets: Float[jax.Array, "b h w 3"] | None,
    inverse_depths: Mapping[str, Float[np.ndarray, "_ _"]],
    truth: GroundTruth | None,
    scores: Mapping[str, metrics.Result],
    config: EvalConfig,
) -> UInt8[np.ndarray, "_ _ 3"]:
    """The panel of one sample of a batch; depths are scaled and clamped as for scoring. ``offsets``: of the flow network."""

    def pick(array: jax.Array | None) -> np.ndarray | None:
        return None if array is None or not exists else jax.device_get(array)[position]

    exists = bool(batch.exists[position, PREVIOUS])
    height, width = batch.images.shape[2:4]
    scored = all("scale" in scores.get(who, {}) for who in inverse_depths)
    depths = {}
    for who, disp in inverse_depths.items():
        if disp.shape != (height, width):
            disp = cv2.resize(disp, (width, height), interpolation=cv2.INTER_AREA)
        depths[who] = 1 / disp
        if scored:
            depths[who] = np.clip(depths[who] * scores[who]["scale"]["ratio"], config.min_depth, config.max_depth)
    return report.panel(
        batch.images[position, TARGET],
        depths=depths,
        truth=truth.depth if scored and truth is not None else None,
        counted=None if truth is None else metrics.valid_pixels(truth.depth, config),
        previous=batch.images[position, PREVIOUS] if exists else None,
        disentangled=pick(prediction and prediction.disentangled),
        holes=pick(prediction and prediction.holes),
        offsets=pick(offsets),
        dynamic=batch.masks[position, TARGET],
    )
