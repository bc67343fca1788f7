"""Drives, an undisturbed run to compare with, and the figures of a session."""

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import fault_runs
import jax
import pytest

from dd_jax.checkpoints import run_folder
from dd_jax.data.synthetic import make

BIT_EQUAL, REFUSED, FAILED = "bit_equal", "refused", "failed"


class Figures:
    """What happened to each fault: every trial is one of bit-equal, refused with a sentence, failed."""

    def __init__(self) -> None:
        self.trials: dict[str, list[dict]] = {}

    @contextlib.contextmanager
    def trial(self, fault: str, outcome: str = BIT_EQUAL, **details) -> Iterator[dict]:
        """One trial with the outcome that the test asserts; more details can be added to what it yields."""
        found = {"outcome": FAILED, **details}
        self.trials.setdefault(fault, []).append(found)
        yield found
        found["outcome"] = outcome

    def summary(self) -> dict[str, dict]:
        """Numbers by fault."""
        table = {}
        for fault, trials in self.trials.items():
            outcomes = [trial["outcome"] for trial in trials]
            row = {"trials": len(trials), "survived": len(trials) - outcomes.count(FAILED)}
            row |= {outcome: outcomes.count(outcome) for outcome in (BIT_EQUAL, REFUSED, FAILED)}
            row["bytes_lost"] = sum(trial.pop("bytes_lost", 0) for trial in trials)
            table[fault] = row | {"details": [json.dumps(trial) for trial in trials]}
        return table


@pytest.fixture(scope="session")
def figures(pytestconfig):
    """Written to ``--faults-report``, where the faults of other sessions stay."""
    found = Figures()
    yield found
    place = pytestconfig.getoption("--faults-report")
    if place:
        session = {
            "command": " ".join(["pytest", *sys.argv[1:]]),
            "first_seed": pytestconfig.getoption("--faults-seed"),
            "device": jax.devices()[0].device_kind,
            "versions": run_folder.versions(),
        }
        rows = json.loads(Path(place).read_text()) if Path(place).exists() else {}
        rows |= {fault: row | {"session": session} for fault, row in found.summary().items()}
        Path(place).parent.mkdir(parents=True, exist_ok=True)
        Path(place).write_text(json.dumps(rows, indent=1) + "\n")


@pytest.fixture(scope="session")
def drives(tmp_path_factory):
    root = tmp_path_factory.mktemp("drives")
    make(str(root), preset="tiny", workers=1, progress=False)
    return root


@pytest.fixture(scope="session")
def runs(tmp_path_factory, drives):
    return fault_runs.Runs(tmp_path_factory.mktemp("runs"), drives)
