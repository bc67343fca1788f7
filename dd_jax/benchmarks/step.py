"""Time and memory of training and prediction: the step, its parts, one frame; compared with the teacher's pass and PyTorch.

Everything that is compared runs in alternation, so that the load of the machine affects all equally. Times are medians, ratios
are medians of the ratios of each round.
"""

import dataclasses
import json
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from dd_jax.benchmarks import memory, parts, programs, pytorch_peer
from dd_jax.config import Config, ConfigError
from dd_jax.config.rules import validate
from dd_jax.data.random_batch import random_batch
from dd_jax.method import compiled_steps, train_step
from dd_jax.networks import model as networks
from dd_jax.runtime import parallel
from dd_jax.types import TARGET, Batch, TrainState

Rounds = dict[str, list[float]]
"""Seconds of every round, by name."""

PROFILED_STEPS = 3

PEER_SCOPES = {
    "pose": ("poses",),
    "teacher": ("teacher",),
    "student, cost volume": ("features", "cost_volume", "student"),
}
"""Networks of the peer, and the matching scopes of our step."""

FRAMES_PER_ROUND = 5
"""Inference takes a fraction of the time of a step, so it gets more rounds."""


def benchmark(
    config: Config,
    batch_size: int,
    repeats: int,
    *,
    devices: int = 1,
    parts: bool = True,
    inference: bool = True,
    peer: bool = False,
) -> dict[str, Any]:
    """Measures and prints; returns the values of the last line.

    Args:
      batch_size: samples per step, over all devices; the teacher alone runs on one device with its share.
      repeats: rounds, after a first one that does not count.
      devices: of this process; 0 = all.
      parts: profile the parts of the step.
      inference: measure the prediction of one frame.
      peer: measure the networks of the package ``manydepth``.

    Raises:
      ConfigError: the config cannot be measured; raised before anything is compiled.
    """
    local = jax.local_devices()
    if devices > len(local):
        raise ConfigError(f"--devices={devices} exceeds the {len(local)} available devices")
    local = local[: devices or None]
    config.data.batch_size = batch_size
    validate(config, len(local))
    if peer:
        pytorch_peer.check(config)
    height, width = config.data.height, config.data.width
    print(
        f"{config.name}: {height}x{width}, batch {batch_size}, {config.cost_volume.bins} bins, "
        f"on {len(local)} x {local[0].device_kind}",
        flush=True,
    )
    batch = random_batch(config.data, batch_size)
    result = {
        "config": config.name,
        "device": local[0].device_kind,
        "devices": len(local),
        "size": [height, width],
        "batch_size": batch_size,
        "bins": config.cost_volume.bins,
    }
    state = jax.device_put(train_step.create_state(config), local[0])
    other = pytorch_peer.Peer(config, batch) if peer else None
    result |= measure_step(config, state, batch, local, repeats, parts, other.training() if peer and parts else {})
    if inference:
        result |= measure_inference(config, state, repeats * FRAMES_PER_ROUND, other.inference() if peer else None)
    print(json.dumps(result))
    return result


def alternate(runs: dict[str, Callable[[], Any]], repeats: int) -> Rounds:
    """Runs all in turn ``repeats`` times, after a warm-up round that does not count."""
    rounds: Rounds = {name: [] for name in runs}
    for repeat in range(repeats + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            jax.block_until_ready(run())
            if repeat > 0:
                rounds[name].append(time.perf_counter() - start)
    return rounds


def ratio(rounds: Rounds, over: str, under: str) -> float:
    """Median over rounds of the ratio of two times."""
    return float(np.median(np.divide(rounds[over], rounds[under])))


def measure_step(
    config: Config,
    state: TrainState,
    batch: Batch,
    devices: list[jax.Device],
    repeats: int,
    with_parts: bool,
    peer: dict[str, Callable[[], Any]],
) -> dict[str, Any]:
    """The step, its parts, the teacher's forward and backward pass, and the passes of a peer."""
    replicated = parallel.replicate(jax.tree.map(np.array, state), devices)  # a copy: the step donates it
    sharded = parallel.shard_batch(batch, config, devices)
    start = time.perf_counter()
    step = compiled_steps.compile_train_step(config, False, devices).lower(replicated, sharded).compile()
    compile_seconds = time.perf_counter() - start
    result = memory_of(step, replicated, sharded, devices)

    image = jax.device_put(batch.images[: len(batch.seed) // len(devices), TARGET].astype(np.float32) / 255, devices[0])
    start = time.perf_counter()
    teacher = jax.jit(partial(teacher_gradients, config=config)).lower(state.params["teacher"], state, image).compile()
    teacher_compile_seconds = time.perf_counter() - start
    metrics = None

    def run_step() -> Any:
        nonlocal replicated, metrics
        replicated, metrics = step(replicated, sharded)
        return metrics

    runs = {"step": run_step, "teacher": lambda: teacher(state.params["teacher"], state, image)}
    runs |= {f"peer {name}": run for name, run in peer.items()}
    rounds = alternate(runs, repeats)
    if not np.isfinite(metrics["total"]):
        raise RuntimeError("the measured step did not compute a finite loss")

    cost, seconds = cost_of(step), {name: float(np.median(times)) for name, times in rounds.items()}
    result |= {
        "step_seconds": seconds["step"],
        "samples_per_second": len(batch.seed) / seconds["step"],
        "teacher_forward_backward_seconds": seconds["teacher"],
        "ratio": ratio(rounds, "step", "teacher"),
        "step_compile_seconds": compile_seconds,
        "teacher_compile_seconds": teacher_compile_seconds,
        "step_flops": cost["flops"],
        "step_bytes_accessed": cost["bytes accessed"],
        "teacher_flops": cost_of(teacher)["flops"],
    }
    print(step_table(result))
    if with_parts:
        found = parts.measure(step, run_step, PROFILED_STEPS)
        result["parts"] = [dataclasses.asdict(part) for part in found]
        print("\n" + parts.table(found), flush=True)
        if peer and found:
            result["peer_training"] = compare_parts(found, seconds)
            print("\n" + peer_table("forward and backward, seconds", result["peer_training"], 1.0), flush=True)
    return result


def teacher_gradients(params: Any, state: TrainState, image: Float[Array, "b h w 3"], config: Config) -> tuple[Any, Any]:
    """Gradients of the teacher's mean output on the target frames, and its batch statistics: the unit of ``ratio``."""

    def mean_output(params: Any) -> tuple[Float[Array, ""], Any]:
        model = networks.merge(state.params | {"teacher": params}, state.batch_stats, config, None, train=True)
        return sum(jnp.mean(disp) for disp in model.teacher(image)), networks.split(model)[1]["teacher"]

    return jax.grad(mean_output, has_aux=True)(params)


def compare_parts(found: list[parts.Part], seconds: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """Our parts of the step, forward and backward, compared with the same passes of the peer."""
    ours = {part.name: part.forward_seconds + part.backward_seconds for part in found}
    return {
        name: {
            "ours_seconds": (own := sum(ours.get(scope, 0.0) for scope in scopes)),
            "peer_seconds": seconds[f"peer {name}"],
            "ratio": seconds[f"peer {name}"] / own,
        }
        for name, scopes in PEER_SCOPES.items()
        if any(scope in ours for scope in scopes)
    }


def memory_of(step: jax.stages.Compiled, state: TrainState, batch: Batch, devices: list[jax.Device]) -> dict[str, int | None]:
    """Peak bytes of the step: computed by the compiler, resident in a process that only runs the step, and on the device.

    The resident peak is measured on CPUs, the peak on the device on accelerators.
    """
    peaks: dict[str, int | None] = {
        "compiler_peak_bytes": programs.compiler_peak_bytes(step),
        "peak_resident_bytes": None,
        "peak_device_bytes": None,
    }
    if devices[0].platform == "cpu":
        peaks["peak_resident_bytes"] = memory.peak_bytes(step, state, batch, len(devices))
    elif devices[0].memory_stats():
        jax.block_until_ready(step(jax.tree.map(lambda x: x.copy(), state), batch))
        peaks["peak_device_bytes"] = devices[0].memory_stats()["peak_bytes_in_use"]
    return peaks


def measure_inference(config: Config, state: TrainState, repeats: int, peer: Callable[[], Any] | None = None) -> dict[str, Any]:
    """Milliseconds for one frame: the whole model (poses, teacher, DOMD, student), and the teacher alone."""
    image = jax.device_put(random_batch(config.data, 1).images[:, TARGET])

    def teacher(state: TrainState, image: UInt8[Array, "1 h w 3"]) -> jax.Array:
        model = networks.merge(state.params, state.batch_stats, config, None, train=False)
        return model.teacher(image.astype(np.float32) / 255)[0]

    model = programs.prediction(config, state, 1)
    start = time.perf_counter()
    compiled = jax.jit(teacher).lower(state, image).compile()
    compile_seconds = {"model": model.compile_seconds, "teacher": time.perf_counter() - start}
    runs = {"model": model.run, "teacher": lambda: compiled(state, image)}
    if peer is not None:
        runs["peer"] = peer
    rounds = alternate(runs, repeats)
    milliseconds = {name: 1000 * float(np.median(times)) for name, times in rounds.items()}
    print(f"\ninference of one frame, median of {repeats}")
    network = "student" if config.model.student else "teacher"
    for name, seconds in compile_seconds.items():
        label = f"{network} of {config.name}" if name == "model" else "teacher alone"
        print(f"{label:32} {milliseconds[name]:9.1f} ms   compiled in {seconds:.0f} s")
    result = {
        "inference_ms": milliseconds["model"],
        "teacher_inference_ms": milliseconds["teacher"],
        "inference_compile_seconds": compile_seconds["model"],
    }
    if peer is not None:
        result["peer_inference"] = {
            "ours_seconds": milliseconds["model"] / 1000,
            "peer_seconds": milliseconds["peer"] / 1000,
            "ratio": ratio(rounds, "peer", "model"),
        }
        table = {"two frames to depth, batch 1": result["peer_inference"]}
        print("\n" + peer_table("inference, ms", table, 1000.0), flush=True)
    return result


def step_table(result: dict[str, Any]) -> str:
    peaks = {
        "computed by the compiler": result["compiler_peak_bytes"],
        "resident, in a process that only runs the step": result["peak_resident_bytes"],
        "on the device": result["peak_device_bytes"],
    }
    return "\n".join(
        [
            f"step                      {result['step_seconds']:8.3f} s   compiled in {result['step_compile_seconds']:.0f} s",
            f"teacher forward+backward  {result['teacher_forward_backward_seconds']:8.3f} s",
            f"ratio                     {result['ratio']:8.2f}",
            f"FLOPs of a step           {result['step_flops'] / 1e9:8.1f} G (teacher {result['teacher_flops'] / 1e9:.1f} G)",
            f"bytes accessed            {result['step_bytes_accessed'] / 1e9:8.1f} GB",
            *(f"peak memory               {peak / 1e9:8.2f} GB {where}" for where, peak in peaks.items() if peak is not None),
        ]
    )


def peer_table(what: str, rows: dict[str, dict[str, float]], unit: float) -> str:
    lines = [f"{what:32} {'ours':>9} {'theirs':>9}   theirs / ours   ({pytorch_peer.versions()})"]
    for name, row in rows.items():
        lines.append(f"{name:32} {unit * row['ours_seconds']:9.3f} {unit * row['peer_seconds']:9.3f} {row['ratio']:15.2f}")
    return "\n".join(lines)


def cost_of(compiled: jax.stages.Compiled) -> dict[str, float]:
    """FLOPs and bytes as counted by the compiler."""
    cost = compiled.cost_analysis()
    return cost[0] if isinstance(cost, list) else cost
