"""Memory, file handles, threads and speed of a long training, sampled from outside of its process (Linux)."""

import dataclasses
import json
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

WINDOW = 600.0
"""Seconds that one row of the table covers."""

MIB = 2**20


@dataclasses.dataclass(frozen=True)
class Sample:
    """What the system says of a process, ``seconds`` after it was started."""

    seconds: float
    resident: int  # bytes
    peak: int  # most resident bytes since the sample before
    handles: int
    threads: int


def sample(pid: int, seconds: float) -> Sample | None:
    """What ``pid`` holds now; None if it has ended. Starts the next peak."""
    folder = Path(f"/proc/{pid}")
    try:
        handles = sum(1 for _ in (folder / "fd").iterdir())
        fields = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
        (folder / "clear_refs").write_text("5")
    except OSError:
        return None
    if "VmRSS" not in fields:  # ended, not waited for yet
        return None
    resident, peak = (int(fields[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM"))
    return Sample(seconds, resident, peak, handles, int(fields["Threads"]))


def watch(command: Sequence[str], log: Path, every: float, report: Callable[[Sample], None]) -> tuple[int, list[Sample]]:
    """Runs ``command`` with its output in ``log`` and samples it every ``every`` seconds; its exit status and the samples."""
    started, samples = time.monotonic(), []
    with log.open("w") as output, subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT) as process:
        while process.poll() is None:
            if found := sample(process.pid, time.monotonic() - started):
                samples.append(found)
                report(found)
            time.sleep(every)
    return process.returncode, samples


def windows(samples: list[Sample], window: float = WINDOW) -> list[dict[str, float]]:
    """Medians of memory in MiB, handles and threads, and the peak of memory, of every whole ``window`` of seconds."""
    rows = []
    for index in range(int(samples[-1].seconds / window) if samples else 0):
        part = [s for s in samples if index * window <= s.seconds < (index + 1) * window]
        if part:
            rows.append(
                {
                    "from_minute": index * window / 60,
                    "resident_mib": round(statistics.median(s.resident for s in part) / MIB, 1),
                    "peak_mib": round(max(s.peak for s in part) / MIB, 1),
                    "handles": statistics.median_low(s.handles for s in part),
                    "threads": statistics.median_low(s.threads for s in part),
                }
            )
    return rows


def speeds(metrics: Path) -> list[float]:
    """Images per second of every training record of a run's ``metrics.jsonl``."""
    rows = [json.loads(line) for line in metrics.read_text().splitlines()]
    return [row["images_per_second"] for row in rows if row["kind"] == "train" and "images_per_second" in row]


def summary(rows: list[dict[str, float]], rates: list[float], skipped: int) -> dict[str, Any]:
    """How memory, handles, threads and speed changed after the first ``skipped`` rows, which load, compile and fill caches.

    Raises:
      ValueError: fewer than two rows or rates are left.
    """
    rows = rows[skipped:]
    third = len(rates) // 3
    if len(rows) < 2 or third < 1:
        raise ValueError("the training was too short: give it more --minutes")
    memory = {}
    for name in ("resident", "peak"):
        values = [row[f"{name}_mib"] for row in rows]
        memory[f"{name}_growth"] = round(values[-1] / values[0] - 1, 4)
        memory[f"{name}_range"] = round(max(values) / min(values) - 1, 4)
    return memory | {
        "handles": sorted({row["handles"] for row in rows}),
        "threads": sorted({row["threads"] for row in rows}),
        "images_per_second": [round(statistics.median(part), 3) for part in (rates[:third], rates[-third:])],
    }
