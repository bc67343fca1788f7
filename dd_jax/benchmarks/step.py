"""What training and prediction cost: the step, its parts, one frame; beside the teacher's own pass, and beside PyTorch.

Everything compared is run in alternation, so that whatever else the machine does disturbs all alike. Times are medians,
ratios medians of the ratios of each round.
"""

import json
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from dd_jax.benchmarks import parts, pytorch_peer
from dd_jax.config import Config, ConfigError
from dd_jax.config.rules import validate
from dd_jax.data.random_batch import random_batch
from dd_jax.method import on_devices, train_step
from dd_jax.networks import model as networks
from dd_jax.runtime import parallel
from dd_jax.types import Batch, TrainState

Rounds = dict[str, list[float]]
"""Seconds of every round, by what was run."""

FRAMES_PER_ROUND = 5
"""Inference takes a fraction of a step, so it gets more rounds."""


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
    """Measures and prints; returns what the last line says.

    Args:
      batch_size: samples of a step, on all devices together; the parts run on one device with its share.
      repeats: rounds, besides a first one that is not counted.
      devices: of this process; 0 = all.
      parts: measure the parts of the step too.
      inference: measure prediction of one frame too.
      peer: measure the networks of the package ``manydepth`` too.

    Raises:
      ConfigError: something that cannot be measured, before anything is compiled.
    """
    local = jax.local_devices()
    if devices > len(local):
        raise ConfigError(f"--devices={devices} are more than the {len(local)} there are")
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
    """Runs all in turn, so many times, after a first round that touches cold memory and does not count."""
    rounds: Rounds = {name: [] for name in runs}
    for repeat in range(repeats + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            jax.block_until_ready(run())
            if repeat > 0:
                rounds[name].append(time.perf_counter() - start)
    return rounds


def ratio(rounds: Rounds, over: str | list[str], under: str | list[str]) -> float:
    """Median over rounds of one time as a multiple of another; a list means the sum."""

    def total(names: str | list[str]) -> np.ndarray:
        return np.sum([rounds[name] for name in ([names] if isinstance(names, str) else names)], axis=0)

    return float(np.median(total(over) / total(under)))


def measure_step(
    config: Config,
    state: TrainState,
    batch: Batch,
    devices: list[jax.Device],
    repeats: int,
    with_parts: bool,
    peer: dict[str, Callable[[], Any]],
) -> dict[str, Any]:
    """The step beside the teacher's forward and backward pass, the parts, and what a peer does for some of them."""
    replicated = parallel.replicate(jax.tree.map(np.array, state), devices)  # a copy: the step takes it over
    sharded = parallel.shard_batch(batch, config, devices)
    start = time.perf_counter()
    step = on_devices.compile_train_step(config, False, devices).lower(replicated, sharded).compile()
    compile_seconds = time.perf_counter() - start
    result = memory_of(step, replicated, sharded, devices)

    share = jax.device_put(jax.tree.map(lambda x: x[: len(x) // len(devices)], batch), devices[0])
    image = share.images[:, 1].astype(np.float32) / 255
    pieces = [parts.teacher_part(config, state, image)]
    teacher_cost = cost_of(pieces[0].backward.func)
    if with_parts:
        pieces += parts.parts(config, state, share, pieces[0])
    metrics = None

    def run_step() -> Any:
        nonlocal replicated, metrics
        replicated, metrics = step(replicated, sharded)
        return metrics

    runs = {"step": run_step} | {f"{piece.name} backward": piece.backward for piece in pieces if piece.backward}
    if with_parts:
        runs |= {f"{piece.name} forward": piece.forward for piece in pieces}
    runs |= {f"peer {name}": run for name, run in peer.items()}
    rounds = alternate(runs, repeats)
    if not np.isfinite(metrics["total"]):
        raise RuntimeError("the measured step did not compute a finite loss")

    cost, seconds = cost_of(step), {name: float(np.median(times)) for name, times in rounds.items()}
    result |= {
        "step_seconds": seconds["step"],
        "samples_per_second": len(batch.seed) / seconds["step"],
        "teacher_forward_backward_seconds": seconds["teacher backward"],
        "ratio": ratio(rounds, "step", "teacher backward"),
        "step_compile_seconds": compile_seconds,
        "teacher_compile_seconds": pieces[0].compile_seconds,
        "step_flops": cost["flops"],
        "step_bytes_accessed": cost["bytes accessed"],
        "teacher_flops": teacher_cost["flops"],
    }
    print(step_table(result))
    if with_parts:
        result["parts"] = [describe(piece, rounds) for piece in pieces]
        print("\n" + parts_table(result["parts"]), flush=True)
    if peer:
        ours = {"pose": "pose backward", "teacher": "teacher backward"}
        ours["student, cost volume"] = ["cost volume forward", "student backward"]
        result["peer_training"] = {name: compare(rounds, f"peer {name}", of) for name, of in ours.items()}
        print("\n" + peer_table("forward and backward, seconds", result["peer_training"], 1.0), flush=True)
    return result


def memory_of(
    step: jax.stages.Compiled, state: TrainState, batch: Batch, devices: list[jax.Device]
) -> dict[str, int | None]:
    """Peak bytes of the step: by the compiler's account, resident in a process that only runs it, and on the device.

    The resident peak is for CPUs, the one on the device for accelerators, which have a process to themselves.
    """
    memory = step.memory_analysis()
    peaks: dict[str, int | None] = {
        "compiler_peak_bytes": memory.temp_size_in_bytes + memory.argument_size_in_bytes,
        "peak_resident_bytes": None,
        "peak_device_bytes": None,
    }
    if devices[0].platform == "cpu":
        peaks["peak_resident_bytes"] = memory.peak_bytes(step, state, batch, len(devices))
    elif devices[0].memory_stats():
        jax.block_until_ready(step(jax.tree.map(lambda x: x.copy(), state), batch))
        peaks["peak_device_bytes"] = devices[0].memory_stats()["peak_bytes_in_use"]
    return peaks


def measure_inference(
    config: Config, state: TrainState, repeats: int, peer: Callable[[], Any] | None = None
) -> dict[str, Any]:
    """Milliseconds for one frame: the system with all that its depth needs (poses, teacher, DOMD), and the teacher alone."""
    batch = jax.device_put(random_batch(config.data, 1, 3 if config.cost_volume.future_frame else 2))
    system = "student" if config.model.student else "teacher"

    def predict(state: TrainState, batch: Batch) -> jax.Array:
        return getattr(train_step.predict(state, batch, config), system)

    def teacher(state: TrainState, batch: Batch) -> jax.Array:
        model = networks.merge(state.params, state.batch_stats, config, None, train=False)
        return model.teacher(batch.images[:, 1].astype(np.float32) / 255)[0]

    runs, compile_seconds = {}, {}
    for name, function in {"system": predict, "teacher": teacher}.items():
        start = time.perf_counter()
        compiled = jax.jit(function).lower(state, batch).compile()
        compile_seconds[name] = time.perf_counter() - start
        runs[name] = lambda compiled=compiled: compiled(state, batch)
    if peer is not None:
        runs["peer"] = peer
    rounds = alternate(runs, repeats)
    milliseconds = {name: 1000 * float(np.median(times)) for name, times in rounds.items()}
    print(f"\ninference of one frame, median of {repeats}")
    for name, seconds in compile_seconds.items():
        label = f"{system} of {config.name}" if name == "system" else "teacher alone"
        print(f"{label:32} {milliseconds[name]:9.1f} ms   compiled in {seconds:.0f} s")
    result = {
        "inference_ms": milliseconds["system"],
        "teacher_inference_ms": milliseconds["teacher"],
        "inference_compile_seconds": compile_seconds["system"],
    }
    if peer is not None:
        result["peer_inference"] = compare(rounds, "peer", "system")
        table = {"two frames to depth, batch 1": result["peer_inference"]}
        print("\n" + peer_table("inference, ms", table, 1000.0), flush=True)
    return result


def describe(piece: parts.Part, rounds: Rounds) -> dict[str, Any]:
    """A part's row of the table."""
    longest = f"{piece.name} {'backward' if piece.backward else 'forward'}"
    return {
        "part": piece.name,
        "forward_seconds": float(np.median(rounds[f"{piece.name} forward"])),
        "forward_backward_seconds": float(np.median(rounds[longest])) if piece.backward else None,
        "of_step": ratio(rounds, longest, "step"),
        "compile_seconds": piece.compile_seconds,
    }


def compare(rounds: Rounds, theirs: str, ours: str | list[str]) -> dict[str, float]:
    """Median seconds of both, and how many times as long theirs takes."""
    names = [ours] if isinstance(ours, str) else ours
    return {
        "ours_seconds": float(np.median(np.sum([rounds[name] for name in names], axis=0))),
        "peer_seconds": float(np.median(rounds[theirs])),
        "ratio": ratio(rounds, theirs, ours),
    }


def step_table(result: dict[str, Any]) -> str:
    peaks = {
        "by the compiler's account": result["compiler_peak_bytes"],
        "resident, of a process that only runs the step": result["peak_resident_bytes"],
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


def parts_table(parts: list[dict[str, Any]]) -> str:
    lines = ["part             forward   with backward   of the step   compiled in"]
    for part in parts:
        both = part["forward_backward_seconds"]
        lines.append(
            f"{part['part']:14} {part['forward_seconds']:7.3f} s   {'-' if both is None else f'{both:.3f} s':>13}   "
            f"{part['of_step']:>11.0%}   {part['compile_seconds']:9.0f} s"
        )
    return "\n".join(lines)


def peer_table(what: str, rows: dict[str, dict[str, float]], unit: float) -> str:
    lines = [f"{what:32} {'ours':>9} {'theirs':>9}   theirs / ours   ({pytorch_peer.versions()})"]
    for name, row in rows.items():
        lines.append(f"{name:32} {unit * row['ours_seconds']:9.3f} {unit * row['peer_seconds']:9.3f} {row['ratio']:15.2f}")
    return "\n".join(lines)


def cost_of(compiled: jax.stages.Compiled) -> dict[str, float]:
    """What the compiler counts."""
    cost = compiled.cost_analysis()
    return cost[0] if isinstance(cost, list) else cost
