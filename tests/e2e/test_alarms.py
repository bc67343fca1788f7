"""Alarms of whole runs."""

import jax
import numpy as np
import pytest
import tiny

from dd_jax.data.loader import TripletSource
from dd_jax.data.synthetic import make
from dd_jax.diagnosis import alarms
from dd_jax.method import compiled_steps
from dd_jax.report import read_history
from dd_jax.training import train as train_module
from dd_jax.training.train import train


@pytest.mark.slow
def test_samples_without_neighbours_raise_an_alarm_and_whole_ones_do_not(monkeypatch, tmp_path, capsys):
    """Without a source frame the pose network has no gradient at all."""
    make(str(tmp_path / "drives"), preset="tiny", workers=1, progress=False)
    settings = tiny.config(
        data={"root": str(tmp_path / "drives")},
        model={"student": False},
        domd={"enabled": False},
        optim={"steps": 4, "freeze_step": -1},
        train={"log_every": 1},
    )
    settings.eval.crop, settings.eval.ground_truth = "none", "annotated"
    programs = {}

    def compile_once(*arguments, plain=compiled_steps.compile_train_step_now):
        if not programs:
            programs["step"] = plain(*arguments)
        return programs["step"]

    monkeypatch.setattr(compiled_steps, "compile_train_step_now", compile_once)
    monkeypatch.setattr(train_module, "validation_score", lambda *_: None)
    monkeypatch.setattr(alarms, "PATIENCE", 3)

    train(settings, tmp_path / "whole", jax.devices()[:1])
    assert "ALARM" not in capsys.readouterr().err

    def alone(self, indices, *arguments, plain=TripletSource.gather):
        found = plain(self, indices, *arguments)
        return found | {"exists": np.broadcast_to([False, True, False], found["exists"].shape).copy()}

    monkeypatch.setattr(TripletSource, "gather", alone)
    train(settings, tmp_path / "alone", jax.devices()[:1])
    assert capsys.readouterr().err.count("ALARM since step 1: The pose network gets no gradient (norm 0)") == 1
    (record,) = [record for record in read_history(tmp_path / "alone") if record["kind"] == "alarm"]
    assert (record["step"], record["alarm"], record["state"]) == (3, "no gradient for pose", "raised")
