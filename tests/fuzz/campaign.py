"""Runs campaigns in ``worker``, goes on after crashes and endless loops, and sums up what they found."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]

HANG = 60.0
"""Seconds after which a child that is still at the same variant is ended."""

ENDS = 5
"""Crashes and endless loops after which a campaign ends."""


class Worker:
    """The process that imports the readers once and runs each campaign in a child; use as a context manager."""

    def __init__(self, folder: Path):
        self._folder, self._errors = folder, folder / "errors"
        paths = os.pathsep.join(map(str, (ROOT, ROOT / "tests", HERE)))
        environment = os.environ | {"PYTHONPATH": paths, "JAX_PLATFORMS": "cpu", "OPENCV_LOG_LEVEL": "OFF"}
        with self._errors.open("wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, str(HERE / "worker.py")],
                env=environment, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True,
            )  # fmt: skip

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def campaign(self, name: str, seed: int, count: int, seconds: float, first: int = 0) -> dict[str, Any]:
        """What the variants ``first .. first + count`` gave, or as many of them as ``seconds`` allow."""
        inputs, accepted, refused, faults, ends = 0, 0, 0, [], 0
        start = time.monotonic()
        while inputs < count and ends < ENDS and (left := seconds - (time.monotonic() - start)) > 0:
            lines, end, reached = self._child(name, seed, first + inputs, count - inputs, left)
            faults += [line for line in lines if "index" in line]
            if end:
                faults.append({"index": reached, "fault": end, "input": ""})
                ends, inputs = ends + 1, reached + 1 - first
                continue
            accepted, refused = accepted + lines[-1]["accepted"], refused + lines[-1]["refused"]
            inputs += lines[-1]["done"]
            if lines[-1]["faults"]:
                break
        taken = round(time.monotonic() - start, 1)
        return {"inputs": inputs, "accepted": accepted, "refused": refused, "seconds": taken, "faults": faults}

    def _child(self, name: str, seed: int, first: int, count: int, seconds: float) -> tuple[list[dict[str, Any]], str, int]:
        """Its lines, how it ended ("" if it ran through), and the variant that it reached."""
        place, out = self._folder / "place", self._folder / "out"
        place.write_bytes(first.to_bytes(8, "little"))
        out.write_text("")
        job = {
            "name": name,
            "seed": seed,
            "first": first,
            "count": count,
            "seconds": seconds,
            "place": str(place),
            "out": str(out),
        }
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        child, ended = int(self._process.stdout.readline()), threading.Event()
        watch = threading.Thread(target=_end_if_it_hangs, args=(child, place, ended))
        watch.start()
        status = int(self._process.stdout.readline())
        ended.set()
        watch.join()
        lines = [json.loads(line) for line in out.read_text().splitlines()]
        said = self._errors.read_text(errors="replace").strip()[-500:]
        return lines, f"the process ended with {status}: {said}" if status else "", int.from_bytes(place.read_bytes(), "little")


def _end_if_it_hangs(child: int, place: Path, ended: threading.Event) -> None:
    before, since = b"", time.monotonic()
    while not ended.wait(0.2):
        if (now := place.read_bytes()) != before:
            before, since = now, time.monotonic()
        if time.monotonic() - since > HANG:
            with contextlib.suppress(ProcessLookupError):  # it ended just now
                os.kill(child, signal.SIGKILL)
            return
