"""The time of day jumps: steps, not dates, decide; times shown stay plausible."""

import os
import re
import shutil
import time

import fault_runs
import jax
import light_run
import pytest

from dd_jax.checkpoints import run_folder
from dd_jax.training.train import train

pytestmark = pytest.mark.faults

DAY = 86_400.0


@pytest.fixture(autouse=True)
def light(monkeypatch):
    light_run.install(monkeypatch.setattr)


def run(root, workdir, steps):
    train(fault_runs.config(root, optim={"steps": steps}, train={"eval_every": 2}), workdir, jax.devices()[:1])


@pytest.mark.parametrize("days", [-1, -400])
def test_clock_that_jumps_back_changes_nothing(drives, figures, tmp_path, monkeypatch, capsys, days):
    with figures.trial("clock jumps", days=days):
        run(drives, tmp_path / "undisturbed", 8)
        capsys.readouterr()
        plain, jumped = time.time, [0.0]
        monkeypatch.setattr(time, "time", lambda: plain() + jumped[0])
        monkeypatch.setattr("tqdm.std.time", time.time)
        step = light_run.step

        def jump(state, batch):
            jumped[0] = days * DAY if int(state.step) >= 3 else 0.0
            return step(state, batch)

        monkeypatch.setattr(light_run, "step", jump)
        run(drives, tmp_path / "run", 6)
        jumped[0] = 2 * days * DAY
        run(drives, tmp_path / "run", 8)
        times = re.findall(r"^step \d+/\d \[(\S+?)<(\S+?),", capsys.readouterr().err, re.MULTILINE)
        assert len(times) == 8
        assert all(re.fullmatch(r"\d\d:\d\d", text) for pair in times for text in pair), times
        fault_runs.assert_bit_equal(fault_runs.result(tmp_path / "run"), fault_runs.result(tmp_path / "undisturbed"))


def test_newest_checkpoint_is_that_of_the_last_step(drives, figures, tmp_path):
    with figures.trial("clock jumps", what="dates of files"):
        run(drives, tmp_path / "undisturbed", 8)
        run(drives, tmp_path / "run", 6)
        now = time.time()
        for path in (tmp_path / "run").rglob("*"):
            older = "checkpoints/6" in str(path)
            os.utime(path, (now - 400 * DAY,) * 2 if older else (now + 400 * DAY,) * 2)
        assert run_folder.newest(tmp_path / "run") == 6
        run(drives, tmp_path / "run", 8)
        fault_runs.assert_bit_equal(fault_runs.result(tmp_path / "run"), fault_runs.result(tmp_path / "undisturbed"))
        shutil.rmtree(tmp_path / "run")
