"""Two commands in one workdir: the second refuses, the first is not disturbed."""

import signal

import fault_runs
import pytest

pytestmark = pytest.mark.faults

LONG = {"optim": {"steps": 60}, "train": {"checkpoint_every": 5}}


def test_second_run_refuses_and_the_first_is_not_disturbed(runs, figures, tmp_path):
    runs.start(tmp_path / "undisturbed", **LONG).ended().succeeded()
    expected, workdir = fault_runs.result(tmp_path / "undisturbed"), tmp_path / "run"
    with figures.trial("two runs in one workdir", outcome="refused"):
        first = runs.start(workdir, **LONG).until("compiling the step")
        runs.start(workdir, **LONG).ended().refused(
            rf"another run trains in --workdir={workdir} \(process {first.process.pid} on .*\): wait for it, stop it, or name"
        )
        first.ended().succeeded()
        fault_runs.assert_bit_equal(fault_runs.result(workdir), expected)
    with figures.trial("two runs in one workdir", what="the first was killed"):
        killed = runs.start(tmp_path / "killed", **LONG).until("step 7/")
        killed.process.send_signal(signal.SIGKILL)
        assert killed.ended().code == -signal.SIGKILL
        runs.start(tmp_path / "killed", **LONG).ended().succeeded()
        fault_runs.assert_bit_equal(fault_runs.result(tmp_path / "killed"), expected)
