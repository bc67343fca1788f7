"""Images per second and memory over batch sizes, until memory ends; memory by option; one and all devices."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import jax

from dd_jax.benchmarks import options, parts, programs
from dd_jax.benchmarks.accelerator.task import Row, Task, attempts
from dd_jax.config import Config
from dd_jax.config.rules import validate
from dd_jax.method.train_step import create_state

PROFILED_STEPS = 3

MEMINFO = Path("/proc/meminfo")


def steps(task: Task) -> Iterator[Row]:
    """Training steps on one device."""

    def measure(size: int) -> Row:
        return figures(programs.training_step(with_batch(task.config, size), jax.local_devices()[:1]), size)

    trials = ((f"batch {size}", lambda size=size: measure(size)) for size in task.sizes())
    return attempts(task, trials, until_failure=True)


def predictions(task: Task) -> Iterator[Row]:
    """Predictions of the whole model on one device."""
    state = jax.device_put(create_state(task.config), jax.local_devices()[0])
    trials = (
        (f"batch {size}", lambda size=size: figures(programs.prediction(task.config, state, size), size)) for size in task.sizes()
    )
    return attempts(task, trials, until_failure=True)


def figures(program: programs.Program, images: int) -> Row:
    """Speed, compilation time and memory. The device's peak is that of the process, so programs must grow.

    Raises:
      MemoryError: on a CPU, whose memory has no limit of its own, the program needs more than the machine has free.
    """
    device, compiler = jax.local_devices()[0], programs.compiler_peak_bytes(program.compiled)
    if device.platform == "cpu" and compiler > free_bytes():
        raise MemoryError
    seconds = programs.seconds_per_run(program.run)
    row = {"images_per_second": images / seconds, "run_seconds": seconds, "compile_seconds": program.compile_seconds}
    memory = device.memory_stats() or {}
    row |= {"peak_by_compiler_bytes": compiler}
    return row | ({"peak_on_device_bytes": memory["peak_bytes_in_use"]} if "peak_bytes_in_use" in memory else {})


def free_bytes() -> float:
    """Memory of this machine that is available; infinite where it is not known."""
    if not MEMINFO.exists():
        return float("inf")
    line = next(line for line in MEMINFO.read_text().splitlines() if line.startswith("MemAvailable:"))
    return 1024.0 * int(line.split()[1])


def with_batch(config: Config, size: int, devices: int = 1) -> Config:
    """``config`` with another global batch size, valid for so many devices."""
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, batch_size=size))
    validate(config, devices)
    return config


def step_parts(task: Task) -> Iterator[Row]:
    """Parts of a training step of ``data.batch_size`` samples, by the profiler."""
    program = programs.training_step(task.config, jax.local_devices()[:1])
    jax.block_until_ready(program.run())
    found = parts.measure(program.compiled, program.run, PROFILED_STEPS)
    for part in found:
        seconds = {"forward_seconds": part.forward_seconds, "backward_seconds": part.backward_seconds}
        yield {"what": part.name} | seconds | {"of_step_share": part.of_step}
    if not found:
        yield {"what": "parts", "note": "the profiler records no instructions on this device"}


MEMORY_OPTIONS = (
    "", "train.microbatches=2", "train.remat=blocks", "train.microbatches=4", "train.microbatches=4,train.remat=blocks",
    "train.remat=convolutions", "model.precision=bfloat16", "cost_volume.bins=48", "optim.freeze_step=0,train.init_from=unused",
)  # fmt: skip


def memory(task: Task) -> Iterator[Row]:
    """Peak of a training step with other options by the compiler's account, for this device; nothing runs."""
    size = -(-task.config.data.batch_size // 4) * 4  # divisible into microbatches
    config = with_batch(task.config, size)

    def measure(option: str) -> Row:
        changed = options.changed(config, option) if option else config
        validate(changed)
        program = programs.training_step(changed, jax.local_devices()[:1])
        peak = programs.compiler_peak_bytes(program.compiled)
        return {"peak_by_compiler_bytes": peak, "compile_seconds": program.compile_seconds}

    trials = ((option or f"as configured, batch {size}", lambda option=option: measure(option)) for option in MEMORY_OPTIONS)
    return attempts(task, trials)


def devices(task: Task) -> Iterator[Row]:
    """Training steps on one and on all devices of this process, ``data.batch_size`` samples on each."""
    local, seconds = jax.local_devices(), {}
    if len(local) == 1:
        yield {"what": "devices", "note": "there is only one"}
        return

    def measure(count: int) -> Row:
        images = count * task.config.data.batch_size
        program = programs.training_step(with_batch(task.config, images, count), local[:count])
        seconds[count] = programs.seconds_per_run(program.run)
        row = {"images_per_second": images / seconds[count], "run_seconds": seconds[count]}
        return row | ({"efficiency_share": seconds[1] / seconds[count]} if 1 in seconds else {})

    trials = ((f"{count} x {local[0].device_kind}", lambda count=count: measure(count)) for count in (1, len(local)))
    yield from attempts(task, trials)
