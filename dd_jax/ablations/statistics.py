"""Means and differences with intervals over test drives and seeds.

The frames of a drive are correlated, and so are all frames of a training. So a bootstrap draw takes whole drives and whole
seeds, each with replacement; it takes one less than there are, without which the interval of a few units would be too short (Rao
and Wu 1988, Resampling inference with complex survey data).
"""

import dataclasses
from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

DRAWS = 10_000


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A number with its 95 % bootstrap interval; with one drive there is no interval."""

    value: float
    low: float | None
    high: float | None

    @property
    def clear(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low is not None and (self.low > 0 or self.high < 0)


def estimate(
    images: Int[np.ndarray, " drives"],
    of: Callable[..., Float[np.ndarray, " n"]],
    *errors: Float[np.ndarray, "seeds drives"],
) -> Estimate:
    """A function ``of`` the means over images and seeds, with its interval; always the same for the same numbers.

    Args:
      images: number of images of each drive, all positive.
      of: called with arrays, one number per draw and array of ``errors``.
      errors: mean over the images of a drive, for the same seeds and drives in every array: the draws are paired.
    """
    seeds, drives = errors[0].shape
    rng = np.random.default_rng(0)
    all_drives, all_seeds = np.ones((1, drives), int), np.ones((1, seeds), int)
    values = of(*(_means(one, images, all_drives, all_seeds) for one in errors))
    if drives < 2:
        return Estimate(float(values[0]), None, None)
    drawn_drives = rng.multinomial(drives - 1, np.full(drives, 1 / drives), DRAWS)
    drawn_seeds = rng.multinomial(max(1, seeds - 1), np.full(seeds, 1 / seeds), DRAWS)
    draws = of(*(_means(one, images, drawn_drives, drawn_seeds) for one in errors))
    low, high = np.quantile(draws, (0.025, 0.975))
    return Estimate(float(values[0]), float(low), float(high))


def per_seed(images: Int[np.ndarray, " drives"], errors: Float[np.ndarray, "seeds drives"]) -> Float[np.ndarray, " seeds"]:
    """Mean over all images, for every seed."""
    return errors @ images / images.sum()


def spread(values: Float[np.ndarray, " seeds"]) -> float | None:
    """Sample standard deviation; None for one value."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def _means(
    errors: Float[np.ndarray, "seeds drives"],
    images: Int[np.ndarray, " drives"],
    drives: Int[np.ndarray, "n drives"],
    seeds: Int[np.ndarray, "n seeds"],
) -> Float[np.ndarray, " n"]:
    """Means over the images of the drawn drives and over the drawn seeds."""
    weights = drives * images
    by_seed = weights @ errors.T / weights.sum(axis=1, keepdims=True)
    return (by_seed * seeds).sum(axis=1) / seeds.sum(axis=1)
