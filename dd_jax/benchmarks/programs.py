"""The training step and the prediction of a config on random images, compiled and ready to be timed."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from dd_jax.config import Config
from dd_jax.data.random_batch import random_batch
from dd_jax.method import compiled_steps, predict_step, train_step
from dd_jax.runtime import parallel
from dd_jax.types import Batch, TrainState


class Program(NamedTuple):
    """A compiled program with its arguments."""

    run: Callable[[], Any]  # one execution; returns without waiting for the device
    compiled: jax.stages.Compiled
    compile_seconds: float


def training_step(config: Config, devices: list[jax.Device]) -> Program:
    """A step of ``data.batch_size`` samples, divided over the devices; teacher and pose are fixed if ``optim.freeze_step=0``."""
    state = parallel.replicate(train_step.create_state(config), devices)
    batch = parallel.shard_batch(random_batch(config.data, config.data.batch_size), config, devices)
    start = time.perf_counter()
    compiled = compiled_steps.compile_train_step(config, config.optim.freeze_step == 0, devices).lower(state, batch).compile()
    seconds = time.perf_counter() - start

    def run() -> Any:
        nonlocal state
        state, metrics = compiled(state, batch)
        return metrics

    return Program(run, compiled, seconds)


def prediction(config: Config, state: TrainState, batch_size: int) -> Program:
    """Disparity of ``batch_size`` targets by the whole model (poses, teacher, DOMD, student), on the first device."""
    batch = jax.device_put(random_batch(config.data, batch_size, 3 if config.cost_volume.future_frame else 2))
    network = "student" if config.model.student else "teacher"

    def predict(state: TrainState, batch: Batch) -> jax.Array:
        return getattr(predict_step.predict_step(state, batch, config), network)

    start = time.perf_counter()
    compiled = jax.jit(predict).lower(state, batch).compile()
    return Program(lambda: compiled(state, batch), compiled, time.perf_counter() - start)


def seconds_per_run(run: Callable[[], Any], budget: float = 2.0) -> float:
    """Mean time of runs that are queued, as in training, until about ``budget`` seconds are spent."""
    jax.block_until_ready(run())  # the first one also loads the program
    start = time.perf_counter()
    jax.block_until_ready(run())
    count = max(1, min(100, int(budget / (time.perf_counter() - start))))
    start = time.perf_counter()
    for _ in range(count):
        result = run()
    jax.block_until_ready(result)
    return (time.perf_counter() - start) / count


def compiler_peak_bytes(compiled: jax.stages.Compiled) -> int:
    """Arguments and temporaries by the compiler's account."""
    computed = compiled.memory_analysis()
    return computed.temp_size_in_bytes + computed.argument_size_in_bytes
