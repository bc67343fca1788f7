"""Mocked processes; two real ones train and evaluate in ``e2e/test_train.py``."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import pytest

from dd_jax.config import ConfigError
from dd_jax.runtime import hosts

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"coordinator": "a:1"}, "belong together"),
        ({"processes": 2}, "belong together"),
        ({"process": 0, "processes": 2}, "belong together"),
        ({"coordinator": "a:1", "processes": 2, "process": 2}, "--process=2 must be between 0 and 1"),
        ({"coordinator": "a:1", "processes": 2, "process": -2}, "--process=-2 must be between 0 and 1"),
        ({"coordinator": "host", "processes": 2, "process": 0}, "--coordinator=host must be the HOST:PORT"),
        ({"coordinator": ":1", "processes": 2, "process": 0}, "--coordinator=:1 must be the HOST:PORT"),
        ({"coordinator": "host:x", "processes": 2, "process": 0}, "--coordinator=host:x must be the HOST:PORT"),
        ({"automatic": True, "process": 0}, "leave out --coordinator, --processes and --process"),
    ],
)
def test_inconsistent_flags_raise(arguments, message, monkeypatch):
    monkeypatch.setattr(jax.distributed, "initialize", lambda *_, **__: pytest.fail("must not connect"))
    with pytest.raises(ConfigError, match=message) as error:
        hosts.connect(**arguments)
    assert "\n" not in str(error.value)


def test_without_flags_no_connection(monkeypatch):
    monkeypatch.setattr(jax.distributed, "initialize", lambda *_, **__: pytest.fail("must not connect"))
    hosts.connect()


def test_failed_connection_raises(monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("DEADLINE_EXCEEDED: nobody there\nand much more")

    monkeypatch.setattr(jax.distributed, "initialize", fail)
    with pytest.raises(ConfigError, match=r"could not connect: DEADLINE_EXCEEDED: nobody there$"):
        hosts.connect("a:1", 2, 1)


@pytest.mark.parametrize("script", ["train", "evaluate"])
def test_scripts_without_cluster_fail_in_one_sentence(script, tmp_path):
    given = {
        "train": ["--config=configs/dynamic_depth.py:demo", f"--workdir={tmp_path / 'run'}"],
        "evaluate": [f"--checkpoint={tmp_path}"],
    }
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "OMPI_"))}
    result = subprocess.run(
        [sys.executable, ROOT / f"scripts/{script}.py", *given[script], "--distributed"],
        cwd=ROOT,
        env=environment | {"XDG_CACHE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1 and result.stderr.startswith("error: --distributed found no SLURM")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(("items", "processes"), [(10, 1), (10, 3), (2, 4), (0, 2), (12, 4)])
def test_shares_partition_the_sequence(items, processes, monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: processes)
    parts = []
    for process in range(processes):
        monkeypatch.setattr(jax, "process_index", lambda process=process: process)
        parts.append(list(hosts.share(range(items))))
    assert [item for part in parts for item in part] == list(range(items))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_single_process():
    assert hosts.primary()
    value = {"any": object()}
    assert hosts.gather(value) == [value]
    hosts.require_same("anything", value)


def test_different_values_raise(monkeypatch):
    monkeypatch.setattr(hosts, "gather", lambda value: [value, "another"])
    with pytest.raises(ConfigError, match="differ in the samples: use the same for all"):
        hosts.require_same("the samples", ["a"])


def test_stop_signal_recorded_and_handlers_restored():
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with hosts.StopSignal() as stop:
        assert not stop.reached(1)
        signal.raise_signal(signal.SIGTERM)
        assert stop.reached(2) and stop.reached(3)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_deadline_stops_as_a_signal_does():
    with hosts.StopSignal(time.monotonic() + 1000) as stop:
        assert not stop.requested() and not stop.reached(1)
    with hosts.StopSignal(time.monotonic()) as stop:
        assert stop.requested() and stop.reached(1)


@pytest.mark.parametrize("error", [SystemExit("error: a sentence"), SystemExit(0), ValueError("a bug")])
def test_single_process_exits_normally(error):
    with pytest.raises(type(error)) as caught, hosts.exit_without_barrier():
        raise error
    assert caught.value is error


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (SystemExit("error: a sentence"), "error: a sentence\n"),
        (jax.errors.JaxRuntimeError("peer gone\nmuch more"), "another process ended or failed.*peer gone"),
        (ValueError("a bug"), "Traceback.*ValueError: a bug"),
    ],
)
def test_failing_process_exits_without_barrier(error, message, monkeypatch, capsys):
    class Ended(BaseException):
        pass

    def end(code):
        raise Ended(code)

    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(os, "_exit", end)
    with pytest.raises(Ended, match="1"), hosts.exit_without_barrier():
        raise error
    assert re.search(message, capsys.readouterr().err, re.DOTALL)
