import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny

from dd_jax.benchmarks import pytorch_peer, step
from dd_jax.benchmarks.parts import Part
from dd_jax.config import ConfigError

ROOT = Path(__file__).parents[2]


def test_runs_alternate_after_warm_up():
    order = []
    rounds = step.alternate({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 2)
    assert order == ["a", "b"] * 3 and {name: len(times) for name, times in rounds.items()} == {"a": 2, "b": 2}


def test_ratio_is_median_over_rounds():
    assert step.ratio({"slow": [2.0, 30.0, 8.0], "quick": [1.0, 10.0, 2.0]}, "slow", "quick") == 3.0


def test_peer_compared_with_the_same_scopes():
    found = [Part("poses", 0.1, 0.2, 0.1), Part("cost_volume", 0.5, 0.0, 0.2), Part("student", 0.25, 0.75, 0.4)]
    seconds = {"peer pose": 0.6, "peer teacher": 1.0, "peer student, cost volume": 3.0}
    compared = step.compare_parts(found, seconds)
    assert compared.keys() == {"pose", "student, cost volume"}
    assert compared["pose"] == pytest.approx({"ours_seconds": 0.3, "peer_seconds": 0.6, "ratio": 2.0})
    assert compared["student, cost volume"] == pytest.approx({"ours_seconds": 1.5, "peer_seconds": 3.0, "ratio": 2.0})


def test_peer_table_has_versions(monkeypatch):
    monkeypatch.setattr(pytorch_peer, "versions", lambda: "manydepth 1.0.0, PyTorch 2.0.0")
    rows = {"pose": {"ours_seconds": 0.25, "peer_seconds": 0.5, "ratio": 2.0}}
    heading, row = step.peer_table("inference, ms", rows, 1000.0).splitlines()
    assert "manydepth 1.0.0, PyTorch 2.0.0" in heading and row.split() == ["pose", "250.000", "500.000", "2.00"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"devices": 9}, "--devices=9 exceeds the 8 available devices"),
        ({"devices": 2}, r"--config\.data\.batch_size=3 is global and must be divisible by the 2 devices"),
        ({"peer": True}, "comparing with ManyDepth in PyTorch needs torch, torchvision, manydepth: pip install"),
    ],
)
def test_invalid_settings_raise(arguments, message, monkeypatch):
    monkeypatch.setattr(pytorch_peer.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=message):
        step.benchmark(tiny.config(), 3, 1, **arguments)


@pytest.mark.parametrize("flag", ["--batch=0", "--repeats=0"])
def test_invalid_number_is_one_sentence(flag):
    given = [sys.executable, "scripts/benchmark.py", "--loader", "--root=unused", flag]
    done = subprocess.run(given, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stderr.startswith(f"error: {flag}: ") and done.stderr.count("\n") == 1
    assert not (ROOT / "unused").exists()


@pytest.mark.slow
def test_benchmark_end_to_end(capsys):
    """On two devices of the CPU; the last line has the values of the tables."""
    result = step.benchmark(tiny.config(), 4, 2, devices=2)
    lines = capsys.readouterr().out.splitlines()
    assert json.loads(lines[-1]) == result
    assert sum(part["of_step"] for part in result["parts"]) == pytest.approx(1)
    assert all(part["forward_seconds"] + part["backward_seconds"] > 0 for part in result["parts"])
    assert result["ratio"] > 1 and result["teacher_flops"] < result["step_flops"]
    assert result["devices"] == 2 and result["samples_per_second"] == pytest.approx(4 / result["step_seconds"])
    assert result["peak_resident_bytes"] > result["compiler_peak_bytes"] and result["peak_device_bytes"] is None
    assert result["inference_ms"] > 0 and result["teacher_inference_ms"] > 0


def test_inference_with_peer(capsys, monkeypatch):
    """The teacher alone, which compiles fast."""
    config = tiny.config(model={"student": False}, domd={"enabled": False})
    monkeypatch.setattr(pytorch_peer, "versions", lambda: "a peer")

    state = step.train_step.create_state(config)
    result = step.measure_inference(config, state, 3, lambda: np.linalg.svd(np.ones((99, 99))))
    text = capsys.readouterr().out
    assert "teacher of dynamic_depth" in text and "teacher alone" in text and "a peer" in text
    peer = result["peer_inference"]
    assert peer["ours_seconds"] * 1000 == pytest.approx(result["inference_ms"]) and peer["peer_seconds"] > 0
