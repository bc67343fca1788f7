"""Folders of finished runs, without any training."""

import csv
import json
from types import SimpleNamespace

import numpy as np
import pytest
import tiny

from dd_jax.ablations.runs import Run, collect_result, write_result
from dd_jax.evaluate import REGIONS
from dd_jax.evaluation import metrics


@pytest.fixture
def rows():
    return {"base": SimpleNamespace(title="Base", published=(0.1,) * 7), "other": SimpleNamespace(title="Other", published=None)}


@pytest.fixture
def trained_run(tmp_path):
    def trained_run(row, seed, level, frames=40):
        """A run with abs_rel ``level`` plus an offset per frame that is the same for all runs."""
        folder = tmp_path / row / f"seed{seed}"
        folder.mkdir(parents=True)
        errors = level + np.random.default_rng(0).uniform(-0.05, 0.05, frames)
        region = {name: float(errors.mean()) for name in metrics.ERRORS}
        table = {name: region | {"pixels": 10} for name in REGIONS}
        table["dynamic"] = dict.fromkeys(metrics.ERRORS) | {"pixels": 0}
        (folder / "metrics.json").write_text(json.dumps({"teacher": table, "student": table}))
        with (folder / "per_image.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["image", "predictor", "region", "abs_rel"])
            for index, error in enumerate(errors):
                writer.writerow([f"f{index}", "student", "all", error])
                writer.writerow([f"f{index}", "teacher", "all", 9.0])
                if index % 2:
                    writer.writerow([f"f{index}", "student", "moving", 2 * error])
        (folder / "metrics.jsonl").write_text(json.dumps({"step": 1, "kind": "train", "images_per_second": 8.0}) + "\n")
        return Run(row, seed, tiny.config(train={"seed": seed}, optim={"steps": 1}), (), folder)

    return trained_run


@pytest.fixture
def runs(trained_run):
    """Two rows with two seeds each, finished."""
    levels = {"base": 0.3, "other": 0.32}
    runs = [trained_run(row, seed, level + 0.01 * seed) for row, level in levels.items() for seed in (0, 1)]
    for run in runs:
        write_result(run.file, collect_result(run))
    return runs
