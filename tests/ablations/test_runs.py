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

TRAIN = """
import json, os, pathlib, signal, sys, time
folder = pathlib.Path(next(flag.partition("=")[2] for flag in sys.argv if flag.startswith("--workdir=")))
(folder / "recorded.json").write_text(json.dumps([os.getcwd(), os.environ.get("CUDA_VISIBLE_DEVICES")]))
if "--wait" in sys.argv:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit((folder / "saved").touch()))
    (folder / "waits").touch()
    time.sleep(60)
"""


@pytest.fixture
def scripts(tmp_path, monkeypatch):
    """Replaces the training by a script that records where it runs, and the evaluation by nothing."""
    (tmp_path / "train.py").write_text(TRAIN)
    monkeypatch.setattr(
        of_runs, "commands", lambda run: [[tmp_path / "train.py", *run.flags, f"--workdir={run.folder}"], ["-c", ""]]
    )


class FakePrograms(of_runs.Programs):
    """Child processes that exit with these codes."""

    def __init__(self, codes):
        super().__init__()
        self.codes = iter(codes)

    def run(self, command, environment, log):
        return next(self.codes)


def delete_results(runs):
    for run in runs:
        run.file.unlink()


def recorded(run):
    return json.loads((run.folder / "recorded.json").read_text())


def test_result_of_another_config_raises_unless_only_paths_differ(runs):
    runs[0].config.data.root = "elsewhere"
    assert runs[0].result() is not None
    runs[0].config.optim.steps = 7
    with pytest.raises(ConfigError, match="another config"):
        runs[0].result()


def damages():
    yield "", lambda text: ""
    yield "half", lambda text: text[: len(text) // 2]
    yield "not an object", lambda text: "[1]"
    yield "empty", lambda text: "{}"
    yield "no config", lambda text: json.dumps(json.loads(text) | {"config": None})
    yield "unknown option", lambda text: json.dumps(json.loads(text) | {"config": {"colour": 1}})
    yield "unknown field", lambda text: json.dumps(json.loads(text) | {"colour": 1})
    yield "no scores", lambda text: json.dumps(json.loads(text) | {"scores": {}})
    yield "no teacher", lambda text: text.replace("teacher", "student")
    yield "one drive less", lambda text: text.replace('"b": 2, ', "", 1)


@pytest.mark.parametrize("damage", [pytest.param(damage, id=name) for name, damage in damages()])
def test_damaged_result_raises(runs, damage):
    runs[0].file.write_text(damage(runs[0].file.read_text()))
    with pytest.raises(ConfigError, match=r"results/base-0\.json is damaged, or of a version with other fields: delete it"):
        execute(runs, 1)


def test_finished_runs_not_repeated(runs, monkeypatch):
    monkeypatch.setattr(of_runs, "_make", lambda *_: pytest.fail("repeated"))
    execute(runs, jobs=2)


def test_failed_run_reported_with_its_last_words_and_others_continue(runs, monkeypatch, capsys):
    made = []
    delete_results(runs[:2])
    (runs[0].folder / "train.log").write_text("compiling\nerror: --config.data.root=x is not a folder\n\n")
    monkeypatch.setattr(of_runs, "_make", lambda run, *_: made.append(run) or run.seed == 1)
    with pytest.raises(ConfigError, match=r"1 of 4 runs failed, the others are kept"):
        execute(runs, jobs=1)
    assert made == runs[:2]
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("row ")]
    assert said == [f"row base, seed 0, failed: --config.data.root=x is not a folder ({runs[0].folder / 'train.log'})"]


def test_result_of_another_base_raises_and_so_does_an_unfinished_run(runs):
    other = dataclasses.replace(runs[0], base="another")
    with pytest.raises(ConfigError, match="another config or base"):
        other.result()
    delete_results(runs[:1])
    (runs[0].folder / "base").write_text("base")
    with pytest.raises(ConfigError, match=r"base/seed0 holds a run from another --base"):
        execute([other], 1)


def test_result_written_after_both_commands_succeed(runs):
    run, codes = runs[0], (0, 1, 0, 0)
    delete_results([run])
    programs = FakePrograms(codes)
    assert not of_runs._make(run, programs, None, []) and run.result() is None
    assert of_runs._make(run, programs, None, []) and run.result().scores == of_runs.collect_result(run).scores


def test_stopped_training_has_no_result(runs):
    run = runs[0]
    delete_results([run])
    run.config.optim.steps = 2
    assert not of_runs._make(run, FakePrograms([0]), None, []) and not run.file.exists()


def test_runs_use_working_directory_of_caller(runs, scripts, tmp_path, monkeypatch):
    delete_results(runs[:1])
    monkeypatch.chdir(tmp_path)
    execute(runs[:1], 1)
    assert recorded(runs[0])[0] == str(tmp_path) and runs[0].result() is not None


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
def test_visible_gpus(monkeypatch, tmp_path, platforms, devices, names):
    listed = "GPU 0: H100 (UUID: GPU-1)\n  MIG 1g.10gb Device 0: (UUID: MIG-1)\nGPU 1: H100 (UUID: GPU-2)"
    (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\necho '{listed}'\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("JAX_PLATFORMS", platforms)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if devices is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", devices)
    assert of_runs.visible_gpus() == names


def test_no_gpus_without_driver(monkeypatch):
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", "")
    assert of_runs.visible_gpus() == []


def test_one_gpu_per_job(runs, scripts, monkeypatch):
    delete_results(runs)
    monkeypatch.delenv("JAX_PLATFORMS")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    with pytest.raises(ConfigError, match=r"--jobs=3 needs one GPU per job, and there are 2 \(3, 5\): set --jobs=2"):
        execute(runs, jobs=3)
    assert not any((run.folder / "recorded.json").exists() for run in runs)
    execute(runs, jobs=2)
    assert {recorded(run)[1] for run in runs} == {"3", "5"}
    delete_results(runs[:1])
    execute(runs[:1], jobs=1)  # a single job gets all of them
    assert recorded(runs[0])[1] == "3,5"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_forwarded_and_runs_saved(runs, scripts, number):
    runs = [dataclasses.replace(run, flags=("--wait",)) for run in runs[:3]]
    delete_results(runs)

    def interrupt():
        deadline = time.monotonic() + 30
        while sum((run.folder / "waits").exists() for run in runs) < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(ConfigError, match="stopped by a signal: 3 of 3 runs unfinished, the same command continues"):
        execute(runs, jobs=2)
    thread.join()
    assert [(run.folder / "saved").exists() for run in runs] == [True, True, False]
    assert not (runs[2].folder / "recorded.json").exists(), "started after the signal"
    assert signal.getsignal(number) == before


def test_folder_locked_by_another_process_raises(runs, scripts):
    delete_results(runs[:1])
    with of_runs._log(runs[0]) as log:  # the caller was killed and its child still runs
        left = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, stdout=log)
    with pytest.raises(ConfigError, match=r"another process trains in .*base/seed0: wait for it"):
        execute(runs, 1)
    assert not (runs[0].folder / "recorded.json").exists()
    left.communicate(b"\n")
    execute(runs, 1)
    assert runs[0].result() is not None


def test_stored_result_names_no_folder(runs):
    assert "unused" not in runs[0].file.read_text() and runs[0].result().config.data.root == ""
