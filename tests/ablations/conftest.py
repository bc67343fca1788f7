"""Results and folders of runs, without any training."""

import dataclasses
import json

import pytest
import tiny

from dd_jax.ablations import measure, result
from dd_jax.ablations.plan import Row
from dd_jax.ablations.result import PREDICTORS, Result, Scores
from dd_jax.ablations.runs import Run

DRIVES = {"a": 0.30, "b": 0.40, "c": 0.35}
"""abs_rel of the test drives."""


@pytest.fixture
def rows():
    return {"base": Row("Base", {}), "other": Row("Other", {"loss.smoothness": 0.01}, "base", published=0.1)}


@pytest.fixture
def finished():
    def finished(row, seed, change=0.0, counts=(4, 2, 4), lookup=0.1, noise=(0, 0, 0)):
        """A result: abs_rel of each drive, plus ``change`` and ``noise``, plus ``lookup`` with another or no lookup frame."""
        config = tiny.config(train={"seed": seed}, loss={"smoothness": 0.01 if row == "other" else 0.001})
        levels = {
            drive: level + change + extra + 0.001 * seed for (drive, level), extra in zip(DRIVES.items(), noise, strict=True)
        }
        by_region = {
            who: {
                region: {drive: factor * (level + lookup * (who in ("other", "none"))) for drive, level in levels.items()}
                for region, factor in (("all", 1), ("moving", 2), ("static", 0.5))
            }
            for who in PREDICTORS
        }
        images = {region: dict(zip(DRIVES, counts, strict=True)) for region in ("all", "moving", "static")}
        return Result(row, config, "base", {"git": "0"}, 0.5, Scores("images", images, by_region))

    return finished


@pytest.fixture
def results(finished):
    """Two rows with two seeds each."""
    return [finished(row, seed, change) for row, change in (("base", 0.0), ("other", -0.02)) for seed in (0, 1)]


@pytest.fixture
def runs(tmp_path, results):
    """Their folders."""
    found = []
    for one in results:
        run = Run(one.row, one.seed, one.config, one.base, (), tmp_path / one.row / f"seed{one.seed}")
        run.config.optim.steps = 1
        run.folder.mkdir(parents=True)
        (run.folder / measure.FILE).write_text(json.dumps(dataclasses.asdict(one.scores)))
        (run.folder / "metrics.jsonl").write_text(json.dumps({"step": 1, "kind": "train", "images_per_second": 8.0}) + "\n")
        result.write(run.file, one)
        found.append(run)
    return found
