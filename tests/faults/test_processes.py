"""One of two processes is killed: the other ends in bounded time, and both continue bit-equal."""

import random
import re
import signal
import socket
import time

import fault_runs
import pytest

pytestmark = pytest.mark.faults

SECTIONS = {"optim": {"steps": 40}, "train": {"checkpoint_every": 4, "backend": "jit"}}
MOST = 150
"""Seconds until the other process must have ended; JAX notices after 100 that one is silent."""

ENDS = r"^error: another process ended or failed: start all processes again to resume|another task died"


def pair(runs, workdir) -> list[fault_runs.Run]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        flags = f"--coordinator=127.0.0.1:{free.getsockname()[1]}", "--processes=2"
    return [runs.start(workdir, *flags, f"--process={number}", **SECTIONS) for number in range(2)]


@pytest.fixture(scope="module")
def expected(runs, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("pair") / "run"
    for run in pair(runs, workdir):
        run.ended().succeeded()
    return fault_runs.result(workdir)


@pytest.mark.parametrize("victim", [0, 1])
def test_other_process_ends_and_both_continue(runs, expected, figures, pytestconfig, tmp_path, victim):
    draw = random.Random(pytestconfig.getoption("--faults-seed") + victim)
    with figures.trial("one of two processes killed", victim=victim) as trial:
        processes = pair(runs, tmp_path / "run")
        processes[0].until(rf"step {draw.randrange(5, 25)}/")
        start = time.monotonic()
        processes[victim].process.send_signal(signal.SIGKILL)
        ended = processes[1 - victim].ended(MOST)
        trial["seconds"] = round(time.monotonic() - start, 1)
        assert ended.code != 0 and "Traceback" not in ended.text, ended.text
        assert re.search(ENDS, ended.text, re.MULTILINE), ended.text
        processes[victim].ended()
        for run in pair(runs, tmp_path / "run"):
            run.ended().succeeded()
        fault_runs.assert_bit_equal(fault_runs.result(tmp_path / "run"), expected)
