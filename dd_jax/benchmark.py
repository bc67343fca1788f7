"""What a training step costs, as a multiple of the teacher's own forward and backward pass."""

import json
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dd_jax import parallel
from dd_jax.config import Config
from dd_jax.networks import model as networks
from dd_jax.train_step import create_state
from dd_jax.types import Batch, TrainState


def benchmark(config: Config, batch_size: int, repeats: int) -> dict[str, Any]:
    """Measures and prints; returns what the last line says.

    Step and teacher run in alternation, so that whatever else the machine does disturbs both; figures are medians.
    """
    config.data.batch_size = batch_size
    device = jax.local_devices()[0]
    height, width = config.data.height, config.data.width
    print(f"{config.name}: {height}x{width}, batch {batch_size}, {config.cost_volume.bins} bins, on {device.device_kind}")
    state = parallel.replicate(create_state(config), [device])
    batch = random_batch(batch_size, height, width)
    image = jnp.asarray(batch.images[:, 1], jnp.float32) / 255

    teacher, teacher_compile = _compile(jax.jit(lambda s, x: teacher_gradients(s, x, config)), state, image)
    sharded = parallel.shard_batch(batch, config, [device])
    step, step_compile = _compile(parallel.compile_step(config, False, [device]), state, sharded)

    times = {"step": [], "teacher": []}
    for repeat in range(repeats + 1):
        start = time.perf_counter()
        jax.block_until_ready(teacher(state, image))
        middle = time.perf_counter()
        state, metrics = jax.block_until_ready(step(state, sharded))
        if repeat > 0:  # the first round touches cold memory
            times["teacher"].append(middle - start)
            times["step"].append(time.perf_counter() - middle)
    if not np.isfinite(metrics["total"]):
        raise RuntimeError("the measured step did not compute a finite loss")

    ratio = float(np.median(np.array(times["step"]) / np.array(times["teacher"])))
    cost, memory = _cost(step), step.memory_analysis()
    result = {
        "config": config.name,
        "device": device.device_kind,
        "size": [height, width],
        "batch_size": batch_size,
        "bins": config.cost_volume.bins,
        "step_seconds": float(np.median(times["step"])),
        "teacher_forward_backward_seconds": float(np.median(times["teacher"])),
        "ratio": ratio,
        "step_compile_seconds": step_compile,
        "teacher_compile_seconds": teacher_compile,
        "step_flops": cost["flops"],
        "step_bytes_accessed": cost["bytes accessed"],
        "teacher_flops": _cost(teacher)["flops"],
        "compiler_peak_bytes": memory.temp_size_in_bytes + memory.argument_size_in_bytes,
        "peak_resident_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024),
    }
    print(
        f"step                      {result['step_seconds']:8.3f} s   compiled in {step_compile:.0f} s\n"
        f"teacher forward+backward  {result['teacher_forward_backward_seconds']:8.3f} s   compiled in {teacher_compile:.0f} s\n"
        f"ratio                     {ratio:8.2f}\n"
        f"FLOPs of a step           {result['step_flops'] / 1e9:8.1f} G (teacher {result['teacher_flops'] / 1e9:.1f} G)\n"
        f"bytes accessed            {result['step_bytes_accessed'] / 1e9:8.1f} GB\n"
        f"peak memory               {result['compiler_peak_bytes'] / 1e9:8.2f} GB by the compiler's account, "
        f"{result['peak_resident_bytes'] / 1e9:.2f} GB resident (compilation included)"
    )
    print(json.dumps(result))
    return result


def teacher_gradients(state: TrainState, image: jax.Array, config: Config) -> Any:
    """Gradients of a trivial loss on the teacher's disparities: the yardstick of every ratio."""

    def loss(params):
        model = networks.merge(state.params | {"teacher": params}, state.batch_stats, config, None, train=True)
        return sum(jnp.mean(disp) for disp in model.teacher(image)), networks.split(model)[1]["teacher"]

    return jax.grad(loss, has_aux=True)(state.params["teacher"])


def random_batch(batch_size: int, height: int, width: int) -> Batch:
    """Smooth random pictures that shift a little from frame to frame, a third of each a dynamic object."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (batch_size, height // 8, width // 8 + 2, 3), np.uint8)
    wide = noise.repeat(8, axis=1).repeat(8, axis=2)
    images = np.stack([wide[:, :, 4 + 2 * f : 4 + 2 * f + width] for f in range(3)], axis=1)
    masks = np.zeros((batch_size, 3, height, width), bool)
    masks[..., height // 3 : 2 * height // 3, width // 4 : 3 * width // 4] = True
    K = np.array([[0.58 * width, 0, 0.5 * width], [0, 1.92 * height, 0.5 * height], [0, 0, 1]], np.float32)
    return Batch(
        images=images,
        masks=masks,
        K=np.broadcast_to(K, (batch_size, 3, 3)).copy(),
        exists=np.ones((batch_size, 3), bool),
        seed=np.arange(batch_size, dtype=np.uint32),
    )


def _compile(function: Callable, *args: Any) -> tuple[Callable, float]:
    start = time.perf_counter()
    compiled = function.lower(*args).compile()
    return compiled, time.perf_counter() - start


def _cost(compiled: Any) -> dict[str, float]:
    cost = compiled.cost_analysis()
    return cost[0] if isinstance(cost, list) else cost
