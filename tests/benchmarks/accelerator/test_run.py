import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import fake_measurements as fakes
import pytest
import tiny

from dd_jax.benchmarks.accelerator.plan import Measurement
from dd_jax.benchmarks.accelerator.run import run
from dd_jax.config import ConfigError

TESTS = Path(fakes.__file__).parent


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(TESTS))


def measured(tmp_path, *measurements, minutes=1.0, **sizes):
    """The results by name; the file must have the same."""
    found = run(tiny.config(), measurements, minutes, tmp_path / "out.json", "the command", **sizes)
    assert json.loads((tmp_path / "out.json").read_text()) == found
    return found["measurements"]


def alive(pid):
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def test_failed_crashed_and_refused_measurements_do_not_stop_the_others(tmp_path, capfd):
    kinds = (fakes.device, fakes.failing, fakes.crashing, fakes.refusing, fakes.printing)
    found = measured(tmp_path, *(Measurement(kind.__name__, kind, 0.1) for kind in kinds))
    assert {name: result["state"] for name, result in found.items()} == {
        "device": "done",
        "failing": "failed: ValueError: no such thing",
        "crashing": "failed: the process ended by SIGABRT, see the .log file",
        "refusing": "not run: PyTorch is not installed",
        "printing": "done",
    }
    first = [{"what": "first", "run_seconds": 0.5}]
    assert found["failing"]["rows"] == found["crashing"]["rows"] == first
    assert found["printing"]["rows"] == [{"what": "memory", "peak_bytes": 2**30}]
    log = (tmp_path / "out.log").read_text()
    assert "not a row" in log and "nor this" in log and "and more" in log
    assert "printing: memory: peak 1.00 GiB" in capfd.readouterr().out
    table = (tmp_path / "out.md").read_text()
    assert "| failing | first | run 0.5 s |\n|  |  | failed: ValueError: no such thing |" in table


def test_task_has_platform_precision_and_sizes(tmp_path):
    measurements = Measurement("device", fakes.device, 0.1), Measurement("told", fakes.told, 0.1, "bfloat16")
    (row,) = measured(tmp_path, *measurements, batch_sizes=(2, 4))["told"]["rows"]
    assert row.pop("left") > 30
    assert row == {"what": "gpu", "precision": "bfloat16", "sizes": [2, 4]}


def test_time_is_kept_and_what_does_not_fit_is_listed(tmp_path):
    measurements = (
        Measurement("hanging", fakes.hanging, 0.05),
        Measurement("long", fakes.device, 5.0),
        Measurement("device", fakes.device, 0.03),
    )
    start = time.monotonic()
    found = measured(tmp_path, *measurements, minutes=0.1)
    assert time.monotonic() - start < 8
    assert found["hanging"]["state"] == "stopped: its time was over" and len(found["hanging"]["rows"]) == 1
    assert found["long"] == {"state": "not run: no time", "rows": [], "seconds": pytest.approx(0, abs=0.5)}
    assert found["device"]["state"] == "done"
    assert not any(alive(pid) for pid in found["hanging"]["rows"][0]["pids"])


PROGRAM = """
import signal, sys
from pathlib import Path
import fake_measurements as fakes
from dd_jax.benchmarks.accelerator.plan import Measurement
from dd_jax.benchmarks.accelerator.run import run
import tiny

signal.signal(signal.SIGINT, signal.default_int_handler)  # pytest may run in the background of a shell, which ignores it
measurements = [Measurement(kind.__name__, kind, 0.1) for kind in (fakes.device, fakes.hanging, fakes.printing)]
run(tiny.config(), measurements, 5.0, Path(sys.argv[1]), "the command")
"""


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_results_survive_an_interruption(tmp_path, how):
    """Killed, the file has what was saved by then."""
    out, root = tmp_path / "out.json", str(TESTS.parent)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([root, str(TESTS)])}
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(out)], env=environment)
    rows, deadline = [], time.monotonic() + 60
    while not rows:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.1)
        rows = json.loads(out.read_text())["measurements"]["hanging"]["rows"] if out.exists() else []
    process.send_signal(how)
    assert process.wait(timeout=30) == (-how if how == signal.SIGKILL else 0)
    found = json.loads(out.read_text())["measurements"]
    pids = [int(pid) for pid in found["hanging"]["rows"][0]["pids"]]
    if how == signal.SIGKILL:
        os.killpg(pids[0], signal.SIGKILL)
        expected = {"device": "done", "hanging": "running", "printing": "waiting"}
    else:
        assert not any(alive(pid) for pid in pids)
        expected = {"device": "done", "hanging": "interrupted", "printing": "not run: interrupted"}
    assert {name: result["state"] for name, result in found.items()} == expected
    assert found["device"]["rows"] == [{"what": "devices", "platform": "gpu"}]
    assert "| hanging | " in out.with_suffix(".md").read_text()


@pytest.mark.parametrize(("name", "message"), [("old.json", "old.json exists"), ("new.txt", "new.txt must end with .json")])
def test_other_files_are_not_overwritten(tmp_path, name, message):
    (tmp_path / "old.json").write_text("figures")
    with pytest.raises(ConfigError, match=message):
        run(tiny.config(), [], 1.0, tmp_path / name, "the command")
    assert (tmp_path / "old.json").read_text() == "figures"
