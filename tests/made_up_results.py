"""Results of ablation runs without any training."""

import tiny

from dd_jax.ablations.result import PREDICTORS, Result, Scores

DRIVES = {"a": 0.30, "b": 0.40, "c": 0.35}
"""abs_rel of the test drives."""


def finished(row, seed, change=0.0, *, lookup=0.1, noise=(0, 0, 0), **sections):
    """A result: abs_rel of each drive, plus ``change`` and ``noise``, plus ``lookup`` with another or no lookup frame."""
    levels = {drive: x + change + extra + 0.001 * seed for (drive, x), extra in zip(DRIVES.items(), noise, strict=True)}
    by_region = {
        who: {
            region: {drive: factor * (level + lookup * (who in ("other", "none"))) for drive, level in levels.items()}
            for region, factor in (("all", 1), ("moving", 2), ("static", 0.5))
        }
        for who in PREDICTORS
    }
    counts = {region: dict(zip(DRIVES, (4, 2, 4), strict=True)) for region in ("all", "moving", "static")}
    config = tiny.config(**sections | {"train": {"seed": seed}})
    return Result(row, config, "base", {"git": "0"}, 0.5, Scores("images", counts, by_region))
