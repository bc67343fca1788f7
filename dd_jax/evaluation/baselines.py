"""Baselines that do not use the image."""

import numpy as np
from jaxtyping import Float

from dd_jax.config import Config, ConfigError
from dd_jax.data.frames import Listing
from dd_jax.data.loader import TripletSource

MEAN_MAP_FRAMES = 300
"""Number of training frames, evenly spaced, averaged in the mean map."""


def mean_map(source: TripletSource | Listing | None, config: Config) -> Float[np.ndarray, "h w"]:
    """Inverse of the mean ground-truth depth of each pixel over ``source``, at training size.

    Pixels without ground truth get the mean of their row, rows without ground truth that of the nearest row.

    Raises:
      ConfigError: no ground truth.
    """
    height, width = config.data.height, config.data.width
    total, count = np.zeros(height * width), np.zeros(height * width)
    for index in evenly_spaced_indices(len(source), MEAN_MAP_FRAMES) if source is not None else ():
        truth = source.ground_truth(index, config.eval.ground_truth)
        if truth is None:
            continue
        depth = truth.depth
        v, u = np.nonzero((depth > config.eval.min_depth) & (depth < config.eval.max_depth))
        cells = v * height // depth.shape[0] * width + u * width // depth.shape[1]
        total += np.bincount(cells, depth[v, u], height * width)
        count += np.bincount(cells, minlength=height * width)
    if not count.any():
        raise ConfigError("the mean map needs ground truth in the training split, which has none")
    total, count = total.reshape(height, width), count.reshape(height, width)
    measured = np.flatnonzero(count.any(axis=1))
    row_mean = total[measured].sum(axis=1) / count[measured].sum(axis=1)
    nearest = np.abs(np.arange(height)[:, None] - measured).argmin(axis=1)
    filled = np.where(count > 0, total / np.maximum(count, 1), row_mean[nearest][:, None])
    return (1.0 / filled).astype(np.float32)


def evenly_spaced_indices(total: int, wanted: int) -> list[int]:
    """``wanted`` of ``total`` positions, evenly spaced; all of them if ``wanted`` is 0 or too large."""
    return [(i * total + total // 2) // wanted for i in range(wanted)] if 0 < wanted < total else list(range(total))
