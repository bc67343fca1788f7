"""The ledger of the parity tests: failures, listed arrays and absent arrays."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import harness
import numpy as np
import pytest
from harness import Golden, Ledger, registered_tests


@pytest.fixture
def written(tmp_path):
    """A file of two outputs that an existing parity test reads."""
    meta = {"tolerance": {"f64.trackers": [1e-3, 0.0], "other": [1e-3, 0.25]}}
    arrays = {"out.f64.trackers": np.zeros((2, 2)), "out.other": np.zeros(4), "in.x": np.ones(3)}
    path = tmp_path / "c10_depth_bin_tracker.npz"
    np.savez(path, meta=json.dumps(meta), **arrays)
    return path


def ledger_of(folder):
    return Ledger(SimpleNamespace(getoption={"--golden": str(folder)}.get))


def report(golden, module="test_c10_depth_range.py", test="test_depth_range"):
    properties = [("golden", golden.as_json(module, test))]
    return SimpleNamespace(when="call", keywords={"golden": 1}, user_properties=properties, passed=True)


def test_share_of_elements_beyond_the_tolerance(written):
    golden = Golden(written)
    golden.check("out.other", np.array([0, 0, 0, 1.0]))
    assert not golden.failures
    golden.check("out.other", np.array([0, 0, 1.0, 1.0]))
    golden.check("out.other", np.array([0, 0, 0, np.nan]), where=[False, False, True, True])
    golden.check("out.other", np.zeros(3))
    assert [row[5] for row in golden.checks] == [1.0, 1.0, 0.5, 0.0] and len(golden.failures) == 3


def test_tolerance_of_single_elements_may_be_raised(written):
    golden = Golden(written)
    golden.check("out.f64.trackers", np.full((2, 2), [0.0, 0.1]), at_least=np.array([0.0, 0.2]))
    assert not golden.failures
    golden.check("out.f64.trackers", np.full((2, 2), [0.1, 0.0]), at_least=np.array([0.0, 0.2]))
    assert len(golden.failures) == 1


def test_empty_selection_fails(written):
    golden = Golden(written)
    golden.check("out.other", np.zeros(4), where=False)
    assert "no element is compared" in golden.failures[0]


def test_absent_outputs_fail_in_a_named_folder_only(written, monkeypatch):
    golden = Golden(written)
    golden.check("out.gone", np.zeros(4))
    golden.leave_out("out.never*", "for no reason")
    assert golden.absent == ["out.gone", "out.never*"] and not golden.checks
    assert golden.failures == ["c10_depth_bin_tracker: out.gone is absent"]
    monkeypatch.setattr(harness, "COMMITTED", written.parent)
    golden = Golden(written)
    golden.check("out.gone", np.zeros(4))
    assert golden.absent == ["out.gone"] and not golden.failures and not golden.checks


@pytest.mark.parametrize(("is_named", "outcome"), [(True, pytest.fail.Exception), (False, pytest.skip.Exception)])
def test_absent_inputs_fail_in_a_named_folder_and_skip_in_the_committed_one(written, monkeypatch, is_named, outcome):
    if not is_named:
        monkeypatch.setattr(harness, "COMMITTED", written.parent)
    golden = Golden(written)
    with pytest.raises(outcome, match=r"needs in.y, which is absent"):
        golden["in.y"]
    with pytest.raises(outcome, match=r"needs c10_batch.npz"):
        golden.companion("c10_batch")
    companion = golden.companion(written.name)
    with pytest.raises(outcome):
        companion["in.z"]
    assert [text.split()[0] for text in golden.absent] == ["in.y", "c10_batch.npz", "in.z"]


PARITY = Path(harness.__file__).parent


def test_session_over_an_incomplete_folder_fails(tmp_path):
    """A file is absent; the ledger collects the comparisons of two processes; pytest's summary line comes last."""
    shutil.copy(harness.COMMITTED / "c10_depth_bin_tracker.npz", tmp_path)
    tests = [str(PARITY / "test_c10_depth_range.py"), str(PARITY / "test_c01_geometry.py") + "::test_pose_matrix"]
    command = [sys.executable, "-m", "pytest", *tests, "--golden", str(tmp_path), "-n", "2"]
    done = subprocess.run(command, cwd=PARITY.parent.parent, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "no file c01_pose_matrix.npz in" in done.stdout
    assert "1 of 1 arrays agree, 0 left out, 0 absent from their files, 0 not accounted for" in done.stdout
    assert re.fullmatch(r"=+ 1 failed, 1 passed in .*=+", done.stdout.splitlines()[-1])


def test_every_array_is_accounted_for(written):
    golden, ledger = Golden(written), ledger_of(written.parent)
    golden.check("out.f64.trackers", np.zeros((2, 2)))
    ledger.pytest_runtest_logreport(report(golden))
    assert ledger.problems() == (["c10_depth_bin_tracker: out.other is neither checked nor left out"], [])
    golden.leave_out("out.other", "for a reason")
    ledger.pytest_runtest_logreport(report(golden))
    assert ledger.problems() == ([], [])


def test_files_without_a_test_fail(written):
    golden, ledger = Golden(written), ledger_of(written.parent)
    golden.check("out.f64.trackers", np.zeros((2, 2)))
    golden.check("out.other", np.zeros(4))
    ledger.pytest_runtest_logreport(report(golden))
    np.savez(written.with_name("c99_inputs.npz"), x=np.zeros(1))
    assert ledger.problems() == ([], [])
    np.savez(written.with_name("c99_unknown.npz"), **{"out.x": np.zeros(1)})
    assert ledger.problems() == (["c99_unknown: no test reads this file (1 arrays)"], [])


def test_nothing_compared_fails(written):
    ledger = ledger_of(written.parent)
    (problem,) = ledger.problems()[0]
    assert "nothing was compared" in problem


def test_absent_arrays_and_files_are_listed(written):
    golden, ledger = Golden(written), ledger_of(written.parent)
    golden.check("out.gone", np.zeros(4))
    ledger.pytest_runtest_logreport(report(golden))
    arrays, files = ledger.missing()
    assert arrays == "c10_depth_bin_tracker lacks out.gone"
    assert "c01_photometric" in files and "c10_depth_bin_tracker" not in files


def test_folder_without_files_raises(tmp_path):
    with pytest.raises(pytest.UsageError, match=r"no \.npz file in"):
        ledger_of(tmp_path)
    with pytest.raises(pytest.UsageError, match=r"no \.npz file in"):
        ledger_of(tmp_path / "nowhere")


def test_registered_tests_of_this_folder(request):
    found = registered_tests(request.path.parent)
    assert found["test_c10_depth_range.py", "test_depth_range"] == ("c10_depth_bin_tracker",)
