"""Memory, operations and communication of a training step on TPUs and GPUs, from ahead-of-time compilation for a topology.

The compiler is that of the devices (extras ``tpu-aot`` and ``cuda-aot``), but none is needed and nothing is executed. Bytes and
operations are per device. The compiler counts the body of a loop once, whatever the number of iterations.
"""

import dataclasses
import re
import time
from typing import Any

import jax

from dd_jax.benchmarks import hlo
from dd_jax.benchmarks.hlo import Collectives
from dd_jax.benchmarks.topologies import MEMORY, devices_of
from dd_jax.config import Config, ConfigError
from dd_jax.config.rules import validate
from dd_jax.data.random_batch import random_batch
from dd_jax.method import compiled_steps
from dd_jax.method.train_step import create_state
from dd_jax.types import Batch, TrainState


@dataclasses.dataclass(frozen=True)
class Needs:
    """Resources of one device for a step; None for values that the compiler does not report: it does so only for a step that
    fits, does not count operations and bytes for GPUs, and may not have been asked at all."""

    topology: str
    devices: int
    device_kind: str
    batch_size: int  # global
    memory_bytes: int | None  # of the device; None: unknown
    scatters: list[tuple[str, str, int]]  # of the program given to the compiler: kind, source line, number
    given: dict[str, int]  # slow operations in the program given to the compiler, by kind
    compiled: dict[str, int] | None = None  # in the compiled one
    fits: bool | None = None
    total_bytes: int | None = None  # peak: arguments, results, temporaries and the program
    compile_seconds: float | None = None
    argument_bytes: int | None = None  # state and batch
    output_bytes: int | None = None
    alias_bytes: int | None = None  # outputs that reuse the memory of arguments
    temporary_bytes: int | None = None  # in all memory spaces, not all live at once
    code_bytes: int | None = None
    flops: float | None = None
    bytes_accessed: float | None = None
    collectives: dict[str, Collectives] = dataclasses.field(default_factory=dict)


def needs(config: Config, topology: str, batch_per_device: int, frozen: bool = False, compiled: bool = True) -> Needs:
    """Compiles the step of ``config`` for all devices of a topology, as :func:`topologies.devices_of` takes it: about 20 minutes
    of one core for TPUs, 2 for GPUs, one for ``cpu``. Devices of several hosts get backend "jit", as training requires.

    Args:
      frozen: compile the step in which teacher and pose are fixed.
      compiled: otherwise only count the operations of the program that the compiler would get.

    Raises:
      ConfigError: no compiler for the topology, an unknown topology, or an invalid config.
    """
    if batch_per_device < 1:
        raise ConfigError(f"--batch_per_device={batch_per_device} must be positive: give the number of samples per device")
    devices = devices_of(topology)
    config.data.batch_size = batch_per_device * len(devices)
    hosts = len({device.process_index for device in devices})
    if hosts > 1:
        config.train.backend = "jit"
    validate(config, len(devices), hosts)
    lowered = compiled_steps.compile_train_step(config, frozen, devices).lower(*abstract_arguments(config, len(devices)))
    given = hlo.operations(lowered.compiler_ir("hlo").as_hlo_module().to_string())
    known = {
        "topology": topology,
        "devices": len(devices),
        "device_kind": devices[0].device_kind,
        "batch_size": config.data.batch_size,
        "memory_bytes": MEMORY.get(devices[0].device_kind),
        "scatters": [(kind, line, number) for (kind, line), number in sorted(given.items()) if "scatter" in kind],
        "given": hlo.by_kind(given),
    }
    if not compiled:
        return Needs(**known)
    start = time.perf_counter()
    try:
        program = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        total = requested_bytes(str(error))
        if total is None:
            raise
        return Needs(**known, fits=False, total_bytes=total, compile_seconds=time.perf_counter() - start)
    seconds = time.perf_counter() - start
    return Needs(**known, compile_seconds=seconds, **account(program, known["memory_bytes"]))


def abstract_arguments(config: Config, devices: int) -> tuple[TrainState, Batch]:
    """Shapes and types of the arguments of the step: the state, and a batch as :func:`parallel.shard_batch` returns it."""
    per_device = config.data.batch_size // devices
    leading = (devices, per_device) if config.train.backend == "pmap" else (config.data.batch_size,)
    batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct((*leading, *x.shape[1:]), x.dtype), random_batch(config.data, 1))
    return jax.eval_shape(lambda: create_state(config)), batch


def account(compiled: Any, memory_bytes: int | None) -> dict[str, Any]:
    """The fields of :class:`Needs` that a compiled program reports."""
    memory, cost, text = compiled.memory_analysis(), compiled.cost_analysis(), compiled.as_text()
    cost = (cost[0] if isinstance(cost, list) else cost) or {}
    total = memory.peak_memory_in_bytes + memory.generated_code_size_in_bytes
    return {
        "fits": memory_bytes is None or total <= memory_bytes,
        "total_bytes": total,
        "argument_bytes": memory.argument_size_in_bytes,
        "output_bytes": memory.output_size_in_bytes,
        "alias_bytes": memory.alias_size_in_bytes,
        "temporary_bytes": memory.temp_size_in_bytes,
        "code_bytes": memory.generated_code_size_in_bytes,
        "flops": cost.get("flops"),
        "bytes_accessed": cost.get("bytes accessed"),
        "collectives": hlo.collectives_of(text),
        "compiled": hlo.by_kind(hlo.operations(text)),
    }


def requested_bytes(message: str) -> int | None:
    """Bytes requested, from the compiler's out-of-memory message; None for other messages."""
    words = r"Used ([0-9.]+)([KMG]) of [0-9.]+[KMG] hbm|HLO temporaries \(([0-9.]+)([KMG])\) exceeds available HBM"
    match = re.search(words, message)
    if match is None:
        return None
    number, unit = filter(None, match.groups())
    return round(float(number) * 1024 ** (1 + "KMG".index(unit)))


FITS = {True: "yes", False: "no", None: "-"}


def table(columns: list[Needs]) -> str:
    """Markdown table with one column per topology; rows of which nothing is known are left out."""
    kinds = sorted({kind for needs in columns for kind in needs.collectives})
    slow = sorted({kind for needs in columns for kind in needs.given | (needs.compiled or {})})
    rows = {
        "devices": [f"{needs.devices} x {needs.device_kind}" for needs in columns],
        "global batch": [str(needs.batch_size) for needs in columns],
        "arguments (state and batch)": [_mib(needs.argument_bytes) for needs in columns],
        "outputs": [_mib(needs.output_bytes) for needs in columns],
        "outputs in the memory of arguments": [_mib(needs.alias_bytes) for needs in columns],
        "program": [_mib(needs.code_bytes) for needs in columns],
        "**peak total**": [f"**{_mib(needs.total_bytes)}**" for needs in columns],
        "memory of the device": [_mib(needs.memory_bytes) for needs in columns],
        "**fits**": [f"**{FITS[needs.fits]}**" for needs in columns],
        "GFLOP, loop bodies once": [_giga(needs.flops) for needs in columns],
        "GB accessed, loop bodies once": [_giga(needs.bytes_accessed) for needs in columns],
        **{kind: [_traffic(needs.collectives.get(kind)) for needs in columns] for kind in kinds},
        **{f"{kind}, before and after the compiler": [_before_and_after(needs, kind) for needs in columns] for kind in slow},
        "compiled in": ["-" if needs.compile_seconds is None else f"{needs.compile_seconds:.0f} s" for needs in columns],
    }
    lines = [["per device", *(needs.topology for needs in columns)], ["---", *("---:" for _ in columns)]]
    lines += [[name, *cells] for name, cells in rows.items() if {cell.strip("*") for cell in cells} != {"-"}]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def scatter_list(columns: list[Needs]) -> str:
    """Scatters of the programs given to the compiler, one line for each source line."""
    found = {(kind, source): number for needs in columns for kind, source, number in needs.scatters}
    return (
        "\n".join(f"{number} {kind}: {source or 'outside the package'}" for (kind, source), number in found.items())
        or "no scatter"
    )


def _mib(size: int | None) -> str:
    return "-" if size is None else f"{size / 2**20:,.0f} MiB"


def _giga(value: float | None) -> str:
    return "-" if value is None else f"{value / 1e9:,.1f}"


def _traffic(collectives: Collectives | None) -> str:
    if collectives is None:
        return "-"
    overlapped = f"{collectives.overlapped} of them, {collectives.overlapped_bytes / 2**20:,.1f} MiB, overlapped"
    return f"{collectives.count}, {collectives.bytes / 2**20:,.1f} MiB; {overlapped}"


def _before_and_after(needs: Needs, kind: str) -> str:
    return f"{needs.given.get(kind, 0)}, {'-' if needs.compiled is None else needs.compiled.get(kind, 0)}"
