"""Runs that are killed at random moments, several times each, and started again with the same command."""

import functools
import json
import random
import re
import signal
import time

import fault_runs
import pytest

from dd_jax.checkpoints import run_folder
from dd_jax.report import read_history

pytestmark = pytest.mark.faults

MOST = 3
"""Signals in one trial."""


FAULTS = {fault_runs.FORKED: "killed", fault_runs.WHOLE: "killed, with the networks"}
SECTIONS = {fault_runs.FORKED: {"optim": {"steps": 12}, "train": {"checkpoint_every": 1}}, fault_runs.WHOLE: {}}


def pytest_generate_tests(metafunc):
    """Most trials are light, a sixteenth has the networks."""
    first, count = (metafunc.config.getoption(f"--faults-{name}") for name in ("seed", "trials"))
    seeds = [(fault_runs.FORKED, seed) for seed in range(first, first + count)]
    seeds += [(fault_runs.WHOLE, seed) for seed in range(first, first + -(-count // 16))]
    metafunc.parametrize(("script", "seed"), seeds)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, runs):
    """By script: what a run computes, and the seconds that it takes where all programs are compiled."""

    @functools.cache
    def of(script):
        workdir = tmp_path_factory.mktemp("undisturbed")
        for name in ("compiling", "run"):
            start = time.monotonic()
            runs.start(workdir / name, script=script, **SECTIONS[script]).ended(900).succeeded()
        return fault_runs.result(workdir / "run", script), time.monotonic() - start

    return of


def phase(text: str) -> str:
    """Where a run was, by what it had written."""
    said = [line for line in text.splitlines() if line.startswith(("compiling", "step"))]
    if not said:
        return "start"
    return "compilation" if said[-1].startswith("compiling") else re.match(r"step \d+", said[-1])[0]


def bytes_lost(workdir, expected) -> int:
    """Bytes of the records up to the newest checkpoint that are missing, or are not those of an undisturbed run."""
    newest = run_folder.newest(workdir) or 0
    rows = read_history(workdir)
    assert len({(row["kind"], row["step"]) for row in rows}) == len(rows)
    kept = [{name: row[name] for name in row if name not in ("images_per_second", "host_share")} for row in rows]
    return sum(len(json.dumps(row)) for row in expected.records if row["step"] <= newest and row not in kept)


def test_run_killed_anywhere_ends_bit_equal(runs, undisturbed, figures, tmp_path, script, seed):
    draw, workdir, (expected, life) = random.Random(seed), tmp_path / "run", undisturbed(script)
    with figures.trial(FAULTS[script], seed=seed, kills=[], bytes_lost=0) as trial:
        for _ in range(draw.choice((1, 1, 2, MOST))):
            number, late = draw.choice((signal.SIGKILL, signal.SIGTERM)), draw.choice((True, False))
            delay = draw.uniform(0, life / 2 if late else life)
            before = run_folder.newest(workdir) or 0
            run = runs.start(workdir, script=script, **SECTIONS[script])
            ended = (run.until("compiling the step") if late else run).disturbed(number, delay)
            assert ended.code in (0, -number) and "Traceback" not in ended.text and "error: " not in ended.text, ended.text
            assert not before or phase(ended.text) == "start" or f"from step {before}\n" in ended.text
            kill = {
                "signal": number.name,
                "late": late,
                "seconds": round(delay, 2),
                "in": phase(ended.text),
                "status": ended.code,
            }
            print(f"seed {seed}: {kill}")
            trial["kills"].append(kill)
            trial["bytes_lost"] += bytes_lost(workdir, expected)
        before = run_folder.newest(workdir) or 0
        text = runs.start(workdir, script=script, **SECTIONS[script]).ended().succeeded().text
        assert f"from step {before}\n" in text if before else "resuming" not in text
        fault_runs.assert_bit_equal(fault_runs.result(workdir, script), expected)
        assert trial["bytes_lost"] == 0
