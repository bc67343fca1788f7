import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny

from dd_jax.benchmarks import pytorch_peer, step
from dd_jax.config import ConfigError

ROOT = Path(__file__).parents[2]


def test_everything_is_run_in_turn_and_the_first_round_does_not_count():
    order = []
    rounds = step.alternate({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 2)
    assert order == ["a", "b"] * 3 and {name: len(times) for name, times in rounds.items()} == {"a": 2, "b": 2}


def test_a_ratio_is_the_median_of_the_rounds_ratios():
    rounds = {"slow": [2.0, 30.0, 8.0], "quick": [1.0, 10.0, 2.0], "more": [1.0, 5.0, 2.0]}
    assert step.ratio(rounds, "slow", "quick") == 3.0
    assert step.ratio(rounds, "slow", ["quick", "more"]) == 2.0
    found = step.compare(rounds, "slow", ["quick", "more"])
    assert found == {"ours_seconds": 4.0, "peer_seconds": 8.0, "ratio": 2.0}


def test_parts_are_told_in_a_row_each():
    parts = [
        {"part": "teacher", "forward_seconds": 0.5, "forward_backward_seconds": 1.25, "of_step": 0.25, "compile_seconds": 9.0},
        {"part": "DOMD", "forward_seconds": 0.125, "forward_backward_seconds": None, "of_step": 0.025, "compile_seconds": 2.0},
    ]
    heading, *rows = step.parts_table(parts).splitlines()
    assert [row.split() for row in rows] == [
        ["teacher", "0.500", "s", "1.250", "s", "25%", "9", "s"],
        ["DOMD", "0.125", "s", "-", "2%", "2", "s"],
    ]
    assert len({len(line) for line in (heading, *rows)}) == 1


def test_the_peer_is_named_with_its_versions(monkeypatch):
    monkeypatch.setattr(pytorch_peer, "versions", lambda: "manydepth 1.0.0, PyTorch 2.0.0")
    rows = {"pose": {"ours_seconds": 0.25, "peer_seconds": 0.5, "ratio": 2.0}}
    heading, row = step.peer_table("inference, ms", rows, 1000.0).splitlines()
    assert "manydepth 1.0.0, PyTorch 2.0.0" in heading and row.split() == ["pose", "250.000", "500.000", "2.00"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"devices": 9}, "--devices=9 are more than the 8 there are"),
        ({"devices": 2}, r"--config\.data\.batch_size=3 is global and must be divisible by the 2 devices"),
        ({"peer": True}, "--peer compares with ManyDepth in PyTorch, and torch, torchvision, manydepth is missing: pip install"),
    ],
)
def test_what_cannot_be_measured_is_refused(arguments, says, monkeypatch):
    monkeypatch.setattr(pytorch_peer.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=says):
        step.benchmark(tiny.config(), 3, 1, **arguments)


@pytest.mark.parametrize("flag", ["--batch=0", "--repeats=0"])
def test_a_number_that_makes_no_sense_is_refused(flag):
    given = [sys.executable, "scripts/benchmark.py", "--loader", "--root=unused", flag]
    done = subprocess.run(given, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stderr.startswith(f"error: {flag}: ") and done.stderr.count("\n") == 1
    assert not (ROOT / "unused").exists()


@pytest.mark.slow
def test_a_whole_benchmark(capsys):
    """On two devices of the CPU; the figures of the last line are those of the tables."""
    result = step.benchmark(tiny.config(), 4, 2, devices=2)
    lines = capsys.readouterr().out.splitlines()
    assert json.loads(lines[-1]) == result
    names = ["teacher", "pose", "DOMD", "cost volume", "student", "losses", "optimiser"]
    assert [part["part"] for part in result["parts"]] == names
    assert all(part["forward_seconds"] > 0 and np.isfinite(part["of_step"]) for part in result["parts"])
    untaught = [part["part"] for part in result["parts"] if part["forward_backward_seconds"] is None]
    assert untaught == ["DOMD", "cost volume", "optimiser"]
    assert result["devices"] == 2 and result["samples_per_second"] == pytest.approx(4 / result["step_seconds"])
    assert result["peak_resident_bytes"] > result["compiler_peak_bytes"] and result["peak_device_bytes"] is None
    assert result["inference_ms"] > 0 and result["teacher_inference_ms"] > 0


def test_one_frame_is_predicted_beside_a_peer(capsys, monkeypatch):
    """A system of one network, to compile little."""
    config = tiny.config(model={"student": False}, domd={"enabled": False})
    monkeypatch.setattr(pytorch_peer, "versions", lambda: "a peer")

    state = step.train_step.create_state(config)
    result = step.measure_inference(config, state, 3, lambda: np.linalg.svd(np.ones((99, 99))))
    text = capsys.readouterr().out
    assert "teacher of dynamic_depth" in text and "teacher alone" in text and "a peer" in text
    peer = result["peer_inference"]
    assert peer["ours_seconds"] * 1000 == pytest.approx(result["inference_ms"]) and peer["peer_seconds"] > 0
