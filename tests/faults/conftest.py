"""Drives, an undisturbed run to compare with, and the figures of a session."""

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import fault_runs
import jax
import pytest
import tiny

from dd_jax.data.synthetic import make
from dd_jax.runtime import versions

BIT_EQUAL, REFUSED, FAILED = "bit_equal", "refused", "failed"


class Figures:
    """What happened to each fault: every trial is one of bit-equal, refused with a sentence, failed.

    Written to ``place`` after each trial, where the faults of other sessions stay; "" = not written.
    """

    def __init__(self, place: str, session: dict):
        self.place, self.session = place, session
        self.trials: dict[str, list[dict]] = {}
        self.others = json.loads(Path(place).read_text()) if place and Path(place).exists() else {}

    @contextlib.contextmanager
    def trial(self, fault: str, outcome: str = BIT_EQUAL, **details) -> Iterator[dict]:
        """One trial with the outcome that the test asserts; more details can be added to what it yields."""
        found = {"outcome": FAILED, **details}
        self.trials.setdefault(fault, []).append(found)
        try:
            yield found
            found["outcome"] = outcome
        finally:
            if self.place:
                Path(self.place).parent.mkdir(parents=True, exist_ok=True)
                Path(self.place).write_text(json.dumps(self.others | self.summary(), indent=1) + "\n")

    def summary(self) -> dict[str, dict]:
        """Numbers by fault."""
        table = {}
        for fault, trials in self.trials.items():
            outcomes = [trial["outcome"] for trial in trials]
            row = {"trials": len(trials), "survived": len(trials) - outcomes.count(FAILED)}
            row |= {outcome: outcomes.count(outcome) for outcome in (BIT_EQUAL, REFUSED, FAILED)}
            row["bytes_lost"] = sum(trial.get("bytes_lost", 0) for trial in trials)
            table[fault] = row | {"session": self.session, "details": [json.dumps(trial) for trial in trials]}
        return table


@pytest.fixture(scope="session")
def figures(pytestconfig):
    session = {
        "command": " ".join(["pytest", *sys.argv[1:]]),
        "first_seed": pytestconfig.getoption("--faults-seed"),
        "device": jax.devices()[0].device_kind,
        "versions": versions.versions(),
    }
    return Figures(pytestconfig.getoption("--faults-report"), session)


@pytest.fixture(scope="session")
def drives(tmp_path_factory):
    root = tmp_path_factory.mktemp("drives")
    make(str(root), preset="tiny", workers=1, height=tiny.HEIGHT, width=tiny.WIDTH, progress=False)
    return root


@pytest.fixture(scope="session")
def runs(tmp_path_factory, drives):
    with contextlib.closing(fault_runs.Runs(tmp_path_factory.mktemp("runs"), drives)) as started:
        yield started
