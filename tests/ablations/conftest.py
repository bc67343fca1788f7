"""Results and folders of runs, without any training."""

import dataclasses
import json

import made_up_results
import pytest

from dd_jax.ablations import measure, result
from dd_jax.ablations.plan import Row
from dd_jax.ablations.runs import Run


@pytest.fixture
def rows():
    return {"base": Row("Base", {}), "other": Row("Other", {"loss.smoothness": 0.01}, "base", published=0.1)}


@pytest.fixture
def finished():
    """Results of the rows, as in ``made_up_results``."""
    return lambda row, *given, **named: made_up_results.finished(
        row, *given, **named, loss={"smoothness": 0.01 if row == "other" else 0.001}
    )


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
