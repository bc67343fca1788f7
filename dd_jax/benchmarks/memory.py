"""Peak resident memory of a compiled function, run in a separate process that neither traces nor compiles."""

import gc
import os
import pickle
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import serialize_executable

from dd_jax.runtime.memory import return_freed

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def peak_bytes(compiled: jax.stages.Compiled, state: Any, batch: Any, devices: int = 1) -> int:
    """Largest resident set while ``(state, _) = compiled(state, batch)`` runs twice on the first ``devices``, in bytes.

    Includes the interpreter and libraries. On Linux the peak is measured from the first call on; elsewhere it includes
    loading the program, ``state`` and ``batch``.

    Raises:
      RuntimeError: the process failed; the message has its last line.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "compiled"
        arguments = jax.tree.map(np.asarray, (state, batch))
        with path.open("wb") as file:
            pickle.dump((serialize_executable.serialize(compiled), arguments, devices), file)
        root = str(Path(__file__).parents[2])
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))}
        command = [sys.executable, "-m", "dd_jax.benchmarks.memory", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"measuring the resident memory failed: {(done.stderr.splitlines() or ['no message'])[-1]}")
    return int(done.stdout.split()[-1])


def run(path: Path) -> int:
    """Main function of the separate process; returns its peak in bytes."""
    with path.open("rb") as file:
        program, arguments, devices = pickle.load(file)
    compiled = serialize_executable.deserialize_and_load(*program, execution_devices=jax.local_devices()[:devices])
    state, batch = jax.tree.map(jax.numpy.array, arguments)
    del program, arguments
    gc.collect()
    if sys.platform == "linux":
        return_freed()  # it would count as resident
        CLEAR.write_text("5")  # resets the peak
    for _ in range(2):
        state, _ = jax.block_until_ready(compiled(state, batch))
    return resident_peak()


def resident_peak() -> int:
    """Peak resident bytes of this process so far."""
    if STATUS.exists():
        line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
        return 1024 * int(line.split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    print(run(Path(sys.argv[1])))
