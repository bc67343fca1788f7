import os
import sys

import numpy as np
import pytest
import tiny

from dd_jax.benchmarks.accelerator import continuing, loading
from dd_jax.benchmarks.accelerator.task import Task
from dd_jax.config.rules import validate

SINGLE_FRAME = {"model": {"student": False, "width": 8}, "domd": {"enabled": False}}


def test_difference_is_relative_to_the_norm_of_the_array():
    arrays = [np.array(7), np.array([3.0, 4.0], np.float32), np.array([np.nan, 1.0])]
    assert continuing.difference(arrays, [array.copy() for array in arrays]) == {"same_bits": True}
    other = [np.array(7), np.array([3.0, 4.05], np.float32), arrays[2]]
    row = continuing.difference(other, arrays)
    assert row.pop("largest_relative_difference") == pytest.approx(0.01, rel=1e-4)
    assert row == {"same_bits": False, "different_arrays": 1, "arrays": 3}
    assert continuing.difference([np.zeros(2)], [-np.zeros(2)])["same_bits"] is False


def test_training_that_ends_by_itself_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", "false")
    with pytest.raises(RuntimeError, match="training ended with exit code 1 instead of being killed"):
        continuing.killed_and_continued(tiny.config(), tmp_path, dict(os.environ))


def test_small_run_of_every_config_is_valid(tmp_path, monkeypatch):
    monkeypatch.setattr(loading.synthetic, "make", lambda *_, **__: None)
    given = tiny.config(optim={"freeze_step": 5, "rate_on_freeze": "reset"}, train={"microbatches": 3, "init_from": "elsewhere"})
    config = continuing.small_run(Task(given, tmp_path, "cpu", 1e12))
    validate(config)
    assert (config.data.batch_size, config.optim.freeze_step, config.train.init_from) == (6, -1, "")


@pytest.mark.slow
def test_killed_and_continued_run_has_the_same_bits(tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "compiled"))
    monkeypatch.setattr(continuing, "STEPS", 2)
    task = Task(tiny.config(**SINGLE_FRAME), tmp_path, "gpu", 1e12)
    kept, anew, deterministic = continuing.measure(task)
    assert (kept["what"], anew["what"]) == (continuing.KEPT, continuing.ANEW)
    assert deterministic["what"] == f"{continuing.ANEW}, {continuing.DETERMINISTIC}"
    for row in (kept, anew, deterministic):
        assert row["same_bits"] and row["steps"] >= 4
