import json
import os
import sys
from pathlib import Path

import pytest

from dd_jax.benchmarks import soak

needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")


@needs_proc
def test_this_process_is_sampled():
    before = soak.sample(os.getpid(), 0.0)
    with Path(os.devnull).open():
        during = soak.sample(os.getpid(), 1.0)
    assert during.handles == before.handles + 1
    assert during.threads >= 1 and during.peak >= during.resident > 10 * soak.MIB


@needs_proc
def test_peak_is_that_since_the_sample_before():
    soak.sample(os.getpid(), 0.0)
    assert len(b"x" * (200 * soak.MIB)) > 0
    with_peak, after = soak.sample(os.getpid(), 1.0), soak.sample(os.getpid(), 2.0)
    assert with_peak.peak > with_peak.resident + 150 * soak.MIB
    assert after.peak < with_peak.peak - 150 * soak.MIB


@needs_proc
def test_command_is_watched_until_it_ends(tmp_path):
    seen = []
    command = [sys.executable, "-c", "import time; print('says'); time.sleep(0.5); raise SystemExit(3)"]
    status, samples = soak.watch(command, tmp_path / "log", 0.05, seen.append)
    assert status == 3 and (tmp_path / "log").read_text() == "says\n"
    assert samples == seen and len(samples) > 3


def samples(resident: list[int], handles: list[int]) -> list[soak.Sample]:
    """Two samples in each window."""
    pairs = [pair for pair in zip(resident, handles) for _ in range(2)]
    return [
        soak.Sample(soak.WINDOW * (i + 0.5) / 2, mib * soak.MIB, (mib + 100) * soak.MIB, held, 5)
        for i, (mib, held) in enumerate(pairs)
    ]


def test_growth_is_judged_after_the_warm_windows():
    rows = soak.windows(samples([900, 1000, 1010, 1030, 1], [3, 4, 4, 4, 9]))
    assert [row["resident_mib"] for row in rows] == [900, 1000, 1010, 1030], "the last window is not whole"
    judged = soak.summary(rows, [2.0] * 5 + [1.5] * 4, skipped=1)
    assert judged == {
        "resident_growth": 0.03,
        "resident_range": 0.03,
        "peak_growth": 0.0273,
        "peak_range": 0.0273,
        "handles": [4],
        "threads": [5],
        "images_per_second": [2.0, 1.5],
    }


def test_short_training_is_not_judged():
    with pytest.raises(ValueError, match="more --minutes"):
        soak.summary(soak.windows(samples([1, 2], [1, 1])), [1.0] * 9, skipped=1)


def test_speeds_are_those_of_training_records(tmp_path):
    records = [{"kind": "train", "images_per_second": 4.0}, {"kind": "val", "images_per_second": 9.0}, {"kind": "train"}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    assert soak.speeds(tmp_path / "metrics.jsonl") == [4.0]
