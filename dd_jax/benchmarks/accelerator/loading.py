"""Does the device wait for data? The loader alone, the step alone, and both together as in training."""

import dataclasses
import time
from collections import deque
from collections.abc import Iterator

import jax

from dd_jax.benchmarks import programs
from dd_jax.benchmarks.accelerator.device import cores
from dd_jax.benchmarks.accelerator.task import Row, Task
from dd_jax.config import Config
from dd_jax.data import synthetic
from dd_jax.data.loader import TripletSource, open_split, prefetch, train_batches
from dd_jax.method.train_step import create_state
from dd_jax.runtime import parallel
from dd_jax.training.train import AHEAD

SECONDS = 5.0
"""For each rate."""


def measure(task: Task) -> Iterator[Row]:
    """Frames come from the cache, in memory after the first round; flip and jitter are part of the step."""
    config = on_rendered_drives(task)
    source, images = open_split(config.data, "train"), config.data.batch_size
    alone = {}
    for threads in sorted({2, cores()}):
        alone[threads] = seconds_per_batch(source, with_threads(config, threads))
        row = {"what": f"loader, {threads} threads", "images_per_second": images / alone[threads]}
        yield row | {"batch_seconds": alone[threads]}
    device = jax.local_devices()[:1]
    program = programs.training_step(config, device)
    step = programs.seconds_per_run(program.run)
    yield {"what": f"step, batch {images}", "images_per_second": images / step, "step_seconds": step}
    config = with_threads(config, min(alone, key=alone.get))
    together, waiting = seconds_together(source, config, program, max(3, int(SECONDS / max(step, min(alone.values())))))
    row = {"what": f"both, {config.data.threads} threads", "images_per_second": images / together, "step_seconds": together}
    yield row | {"slower_share": together / step - 1, "waiting_for_batches_share": waiting}


def on_rendered_drives(task: Task) -> Config:
    """``task.config`` with small drives, which all measurements of a run share."""
    root = task.folder / "drives"
    synthetic.make(root, "tiny", progress=False)
    data = dataclasses.replace(
        task.config.data, source="kitti", root=str(root), split="", split_dir="", intrinsics="calib", masks="files",
        priors="none", frame_step=1, cache_dir="", mask_format="binary",
    )  # fmt: skip
    return dataclasses.replace(task.config, data=data)


def with_threads(config: Config, threads: int) -> Config:
    """``config`` with another number of decoding threads."""
    return dataclasses.replace(config, data=dataclasses.replace(config.data, threads=threads))


def seconds_per_batch(source: TripletSource, config: Config) -> float:
    """Time of the loader alone, after the batches that it makes ahead."""
    batches = train_batches(source, config)
    for _ in range(2 * config.data.threads + 1):
        next(batches)
    start, count = time.perf_counter(), 0
    while (spent := time.perf_counter() - start) < SECONDS:
        next(batches)
        count += 1
    return spent / count


def seconds_together(source: TripletSource, config: Config, program: programs.Program, steps: int) -> tuple[float, float]:
    """Time of a step with its batch, as the training loop does it, and the share in which that loop waits for batches."""
    devices = jax.local_devices()[:1]
    batches = prefetch(train_batches(source, config), 2, lambda batch: parallel.shard_batch(batch, config, devices))
    state = parallel.replicate(create_state(config), devices)
    in_flight: deque = deque(maxlen=AHEAD)
    next(batches)
    waiting, start = 0.0, time.perf_counter()
    for _ in range(steps):
        asked = time.perf_counter()
        batch = next(batches)
        waiting += time.perf_counter() - asked
        if len(in_flight) == AHEAD:
            jax.block_until_ready(in_flight[0])
        state, metrics = program.compiled(state, batch)
        in_flight.append(metrics)
    jax.block_until_ready(in_flight[-1])
    spent = time.perf_counter() - start
    return spent / steps, waiting / spent
