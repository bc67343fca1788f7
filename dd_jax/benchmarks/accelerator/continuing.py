"""A run that is killed and continued, compared with one that is not: are the networks equal, bit for bit?

    python -m dd_jax.benchmarks.accelerator.continuing CONFIG WORKDIR

trains, and writes the arrays of the final state to ``WORKDIR/final.npz``.
"""

import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np

from dd_jax.benchmarks.accelerator.loading import on_rendered_drives
from dd_jax.benchmarks.accelerator.task import Row, Task, attempts
from dd_jax.checkpoints import run_folder
from dd_jax.config import Config, from_dict, to_dict
from dd_jax.training.train import train

STEPS = 10
"""Between checkpoints, and after the one from which the run is continued."""

ENDLESS = 10**6

KEPT, ANEW = "compiled programs are kept", "each process compiles"
DETERMINISTIC = "--xla_gpu_deterministic_ops=true --xla_gpu_autotune_level=0"


def measure(task: Task) -> Iterator[Row]:
    """A row for each way to compile; the flags for deterministic kernels are a GPU's."""
    ways = {KEPT: {}, ANEW: {"JAX_ENABLE_COMPILATION_CACHE": "false"}}
    if task.platform == "gpu":
        flags = f"{os.environ.get('XLA_FLAGS', '')} {DETERMINISTIC}".strip()
        ways[f"{ANEW}, {DETERMINISTIC}"] = ways[ANEW] | {"XLA_FLAGS": flags}
    config = small_run(task)

    def compare(place: int, environment: dict[str, str]) -> Row:
        folder = task.folder / f"continuing{place}"
        continued, whole = killed_and_continued(config, folder, os.environ | environment)
        return difference(continued, whole) | {"steps": int(whole[0])}

    return attempts(task, ((way, lambda a=place, b=own: compare(a, b)) for place, (way, own) in enumerate(ways.items())))


def small_run(task: Task) -> Config:
    """Training of ``task.config`` on rendered drives, two samples per microbatch, one frame validated at the end."""
    config = on_rendered_drives(task)
    data = dataclasses.replace(config.data, batch_size=2 * config.train.microbatches)
    changed = {"eval_every": 0, "eval_frames": 1, "checkpoint_every": STEPS, "init_from": "", "init_encoders": ""}
    train = dataclasses.replace(config.train, **changed)
    optim = dataclasses.replace(config.optim, steps=ENDLESS, freeze_step=-1, rate_on_freeze="keep")
    return dataclasses.replace(config, data=data, train=train, optim=optim)


def killed_and_continued(config: Config, folder: Path, environment: dict[str, str]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Arrays of two final states after equally many steps: of a run that was killed on the way, and of an uninterrupted one."""
    process = start(config, folder / "killed", environment)
    while run_folder.newest(folder / "killed") is None:
        if process.poll() is not None:
            raise RuntimeError(f"training ended with exit code {process.returncode} instead of being killed")
        time.sleep(0.05)
    process.kill()
    process.wait()
    steps = run_folder.newest(folder / "killed") + STEPS
    config = dataclasses.replace(config, optim=dataclasses.replace(config.optim, steps=steps))
    states = []
    for name in ("killed", "whole"):
        if code := start(config, folder / name, environment).wait():
            raise RuntimeError(f"training ended with exit code {code}")
        with np.load(folder / name / "final.npz") as arrays:
            states.append([arrays[key] for key in arrays.files])
    return states[0], states[1]


def start(config: Config, workdir: Path, environment: dict[str, str]) -> subprocess.Popen:
    """A process that trains; its messages go to the log of this one."""
    command = [sys.executable, "-m", "dd_jax.benchmarks.accelerator.continuing", json.dumps(to_dict(config)), str(workdir)]
    return subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL)


def difference(first: list[np.ndarray], second: list[np.ndarray]) -> Row:
    """How many arrays differ, and by how much at most, relative to the norm of the array."""
    different = [
        float(np.linalg.norm((a.astype(np.float64) - b).ravel()) / max(np.linalg.norm(b.ravel().astype(np.float64)), 1e-30))
        for a, b in zip(first, second, strict=True)
        if a.tobytes() != b.tobytes()
    ]
    if not different:
        return {"same_bits": True}
    count = {"same_bits": False, "different_arrays": len(different), "arrays": len(first)}
    return count | {"largest_relative_difference": max(different)}


def main(config: str, workdir: str) -> None:
    """Trains on the first device; the step is the first of the arrays that are written."""
    state = train(from_dict(json.loads(config)), workdir, jax.local_devices()[:1])
    arrays = [state.step, *jax.tree.leaves((state.params, state.batch_stats, state.opt_state, state.depth_range))]
    np.savez(Path(workdir) / "final.npz", *jax.device_get(arrays))


if __name__ == "__main__":
    main(*sys.argv[1:])
