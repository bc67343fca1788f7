import subprocess
import time

import pytest
import tiny

from dd_jax.benchmarks.accelerator import numeric_tests
from dd_jax.benchmarks.accelerator.task import Task

ONE_PROCESS = """
tests/losses/test_ssim.py::test_a PASSED                                 [ 20%]
tests/losses/test_ssim.py::test_b[1 of 2] FAILED                         [ 40%]
tests/losses/test_ssim.py::test_c SKIPPED (no golden arrays)             [ 60%]
tests/losses/test_ssim.py::test_d ERROR                                  [ 80%]
tests/losses/test_ssim.py::test_e
"""

SUMMARY = """
=========================== short test summary info ============================
SKIPPED [1] tests/losses/test_ssim.py:7: no golden arrays
FAILED tests/losses/test_ssim.py::test_b[1 of 2] - AssertionError: not equal
ERROR tests/losses/test_ssim.py::test_d - ValueError: no device
"""

SEVERAL = """
[gw0] [ 20%] PASSED tests/losses/test_ssim.py::test_a
[gw1] [ 40%] FAILED tests/losses/test_ssim.py::test_b[1 of 2]
[gw0] [ 60%] SKIPPED tests/losses/test_ssim.py::test_c
[gw0] [ 80%] ERROR tests/losses/test_ssim.py::test_d
"""

NAMES = ["tests/losses/test_ssim.py::test_b[1 of 2]", "tests/losses/test_ssim.py::test_d"]


@pytest.mark.parametrize("lines", [ONE_PROCESS, SEVERAL])
def test_outcomes_are_counted_and_failures_named(lines):
    counts = {"passed": 1, "failed": 2, "skipped": 1}
    assert numeric_tests.counted(lines) == counts | {"failures": NAMES}
    with_reasons = numeric_tests.counted(lines + SUMMARY)
    assert with_reasons == counts | {
        "failures": [f"{NAMES[0]} - AssertionError: not equal", f"{NAMES[1]} - ValueError: no device"]
    }


TESTS = """
import os, pathlib, time

PRECISION = os.environ.get("JAX_DEFAULT_MATMUL_PRECISION")

def test_quick(): pass

def test_precision(): assert PRECISION == "highest"

def test_endless():
    if PRECISION:
        pathlib.Path("endless").touch()
        time.sleep(600)
"""


@pytest.fixture
def other_tests(tmp_path, monkeypatch):
    """Tests of which the last never ends with the highest precision; then, their time is over once it has begun."""

    class Popen(subprocess.Popen):
        def communicate(self, timeout=None):
            while timeout is not None and self.poll() is None:
                if (tmp_path / "endless").exists():
                    (tmp_path / "endless").unlink()
                    raise subprocess.TimeoutExpired(self.args, timeout)
                time.sleep(0.05)
            return super().communicate()

    folder = tmp_path / "tests" / "losses"
    folder.mkdir(parents=True)
    (folder / "test_ssim.py").write_text(TESTS)
    monkeypatch.setattr(numeric_tests, "ROOT", tmp_path)
    monkeypatch.setattr(numeric_tests, "cores", lambda: 1)
    monkeypatch.setattr(subprocess, "Popen", Popen)
    monkeypatch.setenv("JAX_DEFAULT_MATMUL_PRECISION", "bfloat16")


def test_both_precisions_run_until_their_time_is_over(tmp_path, other_tests):
    task = Task(tiny.config(), tmp_path, "cpu", 0.0, test_folders=(("losses",),))
    highest, default = numeric_tests.run(task)
    assert highest["what"] == "losses; highest precision" and default["what"] == "losses; default precision"
    assert (highest["passed"], highest["failed"]) == (2, 0) and highest["note"] == "the time was over before all had run"
    assert (default["passed"], default["failed"]) == (2, 1) and "note" not in default
    assert default["failures"][0].startswith("tests/losses/test_ssim.py::test_precision - AssertionError")


def test_without_tests_a_note_says_what_they_need(tmp_path, monkeypatch):
    monkeypatch.setattr(numeric_tests, "ROOT", tmp_path)
    (row,) = numeric_tests.run(Task(tiny.config(), tmp_path, "cpu", 0.0))
    assert row["note"] == "not run: they need a clone of the repository and pip install -e '.[test]'"
