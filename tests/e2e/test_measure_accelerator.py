"""The command of docs/accelerators.md on the CPU of this machine, at a tiny size."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

COMMAND = [sys.executable, "scripts/measure_accelerator.py", "--config=configs/monodepth2.py:synthetic", "--tiny"]


def measure(out, *flags):
    done = subprocess.run([*COMMAND, f"--out={out}", *flags], cwd=ROOT, capture_output=True, text=True, check=False)
    return done, json.loads(out.read_text())["measurements"] if out.exists() else None


def test_devices_and_predictions_are_measured(tmp_path):
    done, found = measure(tmp_path / "out.json", "--only=inference_float32,peer", "--batches=1,3", "--minutes=20")
    assert done.returncode == 0, done.stderr
    assert list(found) == ["device", "inference_float32", "peer"]
    assert found["device"]["rows"][0] == {"what": "devices", "count": 8, "kind": "cpu", "platform": "cpu"}
    one, three = found["inference_float32"]["rows"]
    assert (one["what"], three["what"]) == ("batch 1", "batch 3")
    assert three["images_per_second"] == pytest.approx(3 / three["run_seconds"])
    assert 0 < one["peak_by_compiler_bytes"] < three["peak_by_compiler_bytes"]
    assert found["peer"]["state"] == "done" or found["peer"]["state"].startswith("not run: ")
    table = (tmp_path / "out.md").read_text()
    assert table in done.stdout and "| inference_float32 | batch 1 | " in table


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--only=speed", "--only=speed is unknown: choose from device, tests, step_float32"),
        ("--batches=4,2", "--batches=4,2 must be positive integers in ascending order"),
        ("--batches=0", "--batches=0 must be positive integers"),
        ("--minutes=-1", "--minutes=-1: -1.0 is not a non-negative number"),
    ],
)
def test_wrong_flag_is_one_sentence(tmp_path, flag, message):
    done, found = measure(tmp_path / "out.json", flag)
    assert done.returncode == 1 and done.stderr.startswith(f"error: {message}") and done.stderr.count("\n") == 1 and found is None


@pytest.mark.slow
def test_all_measurements_succeed(tmp_path):
    done, found = measure(tmp_path / "out.json", "--minutes=60")
    assert done.returncode == 0, done.stderr
    states = {name: result["state"] for name, result in found.items() if result["state"] != "done"}
    assert not states or (list(states) == ["peer"] and states["peer"].startswith("not run: "))
    rows = {name: {row["what"]: row for row in result["rows"]} for name, result in found.items()}
    assert all("note" not in row for name in rows if name != "device" for row in rows[name].values())
    assert [row["passed"] > 0 == row["failed"] for row in rows["tests"].values()] == [True, True]
    assert all(row["same_bits"] for row in rows["continuing"].values())
    assert sum(row["of_step_share"] for row in rows["parts"].values()) == pytest.approx(1)
    assert rows["memory"]["train.microbatches=4"]["peak_by_compiler_bytes"] > 0
    assert list(rows["devices"]) == ["1 x cpu", "8 x cpu"]
