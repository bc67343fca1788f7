import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from dd_jax.ablations import runs as of_runs
from dd_jax.ablations.runs import execute
from dd_jax.config import ConfigError
from dd_jax.evaluate import REGIONS
from dd_jax.evaluation import metrics

TRAIN = """
import json, os, pathlib, signal, sys, time
folder = pathlib.Path(next(flag.partition("=")[2] for flag in sys.argv if flag.startswith("--workdir=")))
(folder / "found.json").write_text(json.dumps([os.getcwd(), os.environ.get("CUDA_VISIBLE_DEVICES")]))
if "--wait" in sys.argv:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit((folder / "saved").touch()))
    (folder / "waits").touch()
    time.sleep(60)
"""


@pytest.fixture
def scripts(tmp_path, monkeypatch):
    """In place of the training a program that says where it runs; nothing is evaluated."""
    folder = tmp_path / "scripts"
    folder.mkdir()
    (folder / "train.py").write_text(TRAIN)
    (folder / "evaluate.py").write_text("")
    monkeypatch.setattr(of_runs, "SCRIPTS", folder)


class Ended(of_runs.Programs):
    """Programs that have ended with these codes."""

    def __init__(self, codes):
        super().__init__()
        self.codes = iter(codes)

    def run(self, command, environment, log):
        return next(self.codes)


def forget(runs):
    for run in runs:
        run.file.unlink()


def found(run):
    return json.loads((run.folder / "found.json").read_text())


def test_a_result_of_another_config_is_refused_wherever_its_data_were(runs):
    runs[0].config.data.root = "elsewhere"
    assert runs[0].result() is not None
    runs[0].config.optim.steps = 7
    with pytest.raises(ConfigError, match="another config"):
        runs[0].result()


def damages():
    yield "", lambda text: ""
    yield "half", lambda text: text[: len(text) // 2]
    yield "no object", lambda text: "[1]"
    yield "empty", lambda text: "{}"
    yield "no config", lambda text: json.dumps(json.loads(text) | {"config": None})
    yield "unknown option", lambda text: json.dumps(json.loads(text) | {"config": {"colour": 1}})
    yield "further field", lambda text: json.dumps(json.loads(text) | {"colour": 1})
    yield "no regions", lambda text: json.dumps(json.loads(text) | {"scores": {}})


@pytest.mark.parametrize("damage", [pytest.param(damage, id=name) for name, damage in damages()])
def test_a_damaged_result_is_named(runs, damage):
    runs[0].file.write_text(damage(runs[0].file.read_text()))
    with pytest.raises(ConfigError, match=r"results/base-0\.json is damaged, or of a version with other fields: remove it"):
        execute(runs, 1)


def test_finished_runs_are_not_made_again(runs, monkeypatch):
    monkeypatch.setattr(of_runs, "_make", lambda *_: pytest.fail("made again"))
    execute(runs, jobs=2)


def test_a_failed_run_is_named_and_the_others_go_on(runs, monkeypatch):
    made = []
    forget(runs[:2])
    monkeypatch.setattr(of_runs, "_make", lambda run, *_: made.append(run) or run.seed == 1)
    with pytest.raises(ConfigError, match=r"1 of 4 runs failed.*base/seed0/train\.log"):
        execute(runs, jobs=1)
    assert made == runs[:2]


def test_a_result_is_there_once_both_commands_have_succeeded(runs):
    run, codes = runs[0], (0, 1, 0, 0)
    forget([run])
    programs = Ended(codes)
    assert not of_runs._make(run, programs, None, []) and run.result() is None
    assert of_runs._make(run, programs, None, []) and run.result() == of_runs.read_result(run)


def test_a_training_that_was_stopped_half_way_has_no_result(runs):
    run = runs[0]
    forget([run])
    run.config.optim.steps = 2
    assert not of_runs._make(run, Ended([0]), None, []) and not run.file.exists()


def test_paths_are_those_of_the_caller(runs, scripts, tmp_path, monkeypatch):
    forget(runs[:1])
    monkeypatch.chdir(tmp_path)
    execute(runs[:1], 1)
    assert found(runs[0])[0] == str(tmp_path) and runs[0].result() is not None


@pytest.mark.parametrize(
    ("platforms", "devices", "names"),
    [
        ("", "3, GPU-5ab", ["3", "GPU-5ab"]),
        ("cuda,cpu", "1,-1,0", ["1"]),
        ("", "", []),
        ("cpu", "0,1", []),
        ("", None, ["0", "1"]),
    ],
)
def test_gpus_are_those_that_the_caller_may_use(monkeypatch, tmp_path, platforms, devices, names):
    listed = "GPU 0: H100 (UUID: GPU-1)\n  MIG 1g.10gb Device 0: (UUID: MIG-1)\nGPU 1: H100 (UUID: GPU-2)"
    (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\necho '{listed}'\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("JAX_PLATFORMS", platforms)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if devices is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", devices)
    assert of_runs.visible_gpus() == names


def test_without_the_driver_there_are_no_gpus(monkeypatch):
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", "")
    assert of_runs.visible_gpus() == []


def test_each_of_several_jobs_has_a_gpu_of_its_own(runs, scripts, monkeypatch):
    forget(runs)
    monkeypatch.delenv("JAX_PLATFORMS")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    with pytest.raises(ConfigError, match=r"--jobs=3 needs a GPU for each, and there are 2 \(3, 5\): set --jobs=2"):
        execute(runs, jobs=3)
    assert not any((run.folder / "found.json").exists() for run in runs)
    execute(runs, jobs=2)
    assert {found(run)[1] for run in runs} == {"3", "5"}
    forget(runs[:1])
    execute(runs[:1], jobs=1)  # a single job has all of them
    assert found(runs[0])[1] == "3,5"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_passed_on_and_waited_for(runs, scripts, number):
    runs = [dataclasses.replace(run, flags=("--wait",)) for run in runs[:3]]
    forget(runs)

    def interrupt():
        deadline = time.monotonic() + 30
        while sum((run.folder / "waits").exists() for run in runs) < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(ConfigError, match="stopped by a signal: 3 of 3 runs are unfinished, the same command goes on"):
        execute(runs, jobs=2)
    thread.join()
    assert [(run.folder / "saved").exists() for run in runs] == [True, True, False]
    assert not (runs[2].folder / "found.json").exists(), "begun after the signal"
    assert signal.getsignal(number) == before


def test_a_folder_in_which_another_program_trains_is_left_alone(runs, scripts):
    forget(runs[:1])
    with of_runs._log(runs[0]) as log:  # of a caller that has been killed since, and what it started goes on
        left = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, stdout=log)
    with pytest.raises(ConfigError, match=r"another program trains in .*base/seed0: wait until it has ended"):
        execute(runs, 1)
    assert not (runs[0].folder / "found.json").exists()
    left.communicate(b"\n")
    execute(runs, 1)
    assert runs[0].result() is not None


def test_a_result_tells_of_every_region(runs):
    result = runs[0].result()
    assert set(result.scores) == set(result.errors) == set(REGIONS)
    assert set(result.scores["all"]) == {*metrics.ERRORS, "pixels"}
