"""Memory and communication of a training step on TPUs, from ahead-of-time compilation for a topology, without a TPU.

The compiler is that of TPUs (package ``libtpu``, extra ``tpu-aot``); nothing is executed. Bytes and operations are per device.
The compiler counts the body of a loop once, whatever the number of iterations.
"""

import dataclasses
import importlib.util
import math
import os
import re
import time
from typing import Any

import jax
from jax.experimental import topologies

from dd_jax.config import Config, ConfigError
from dd_jax.config.rules import validate
from dd_jax.data.random_batch import random_batch
from dd_jax.method import compiled_steps
from dd_jax.method.train_step import create_state
from dd_jax.types import Batch, TrainState

GIB = 2**30

MEMORY = {"TPU v5 lite": 16 * GIB, "TPU v5": 95 * GIB, "TPU v6 lite": 32 * GIB}
"""Memory of one device, by kind, including what the compiler reserves."""

COLLECTIVES = ("all-reduce", "all-gather", "all-to-all", "reduce-scatter", "collective-permute")

ITEM_BYTES = {"pred": 1, "bf16": 2, "s8": 1, "u8": 1, "c64": 8, "c128": 16} | {
    f"{kind}{8 * size}": size for kind in "fsu" for size in (2, 4, 8)
}


@dataclasses.dataclass(frozen=True)
class Collectives:
    """All collectives of one kind."""

    count: int
    bytes: int  # of the results on each device, whatever the network topology transfers


@dataclasses.dataclass(frozen=True)
class Needs:
    """Resources of one device for a step; None for values that the compiler does not report because the step does not fit."""

    topology: str
    devices: int
    device_kind: str
    batch_size: int  # global
    fits: bool
    memory_bytes: int | None  # of the device; None: unknown
    total_bytes: int  # peak: arguments, results, temporaries and the program
    compile_seconds: float
    argument_bytes: int | None = None  # state and batch
    output_bytes: int | None = None
    alias_bytes: int | None = None  # outputs that reuse the memory of arguments
    temporary_bytes: int | None = None  # in all memory spaces, not all live at once
    code_bytes: int | None = None
    flops: float | None = None
    bytes_accessed: float | None = None
    collectives: dict[str, Collectives] = dataclasses.field(default_factory=dict)


def needs(config: Config, topology: str, batch_per_device: int, frozen: bool = False) -> Needs:
    """Compiles the step of ``config`` for all devices of a topology such as ``v5e:2x4``: about 20 minutes of one core, one
    minute for ``cpu``. Devices of several hosts get backend "jit", as training requires.

    Args:
      frozen: compile the step in which teacher and pose are fixed.

    Raises:
      ConfigError: no libtpu, an unknown topology, or an invalid config.
    """
    if batch_per_device < 1:
        raise ConfigError(f"--batch_per_device={batch_per_device} must be positive: give the number of samples per device")
    devices = topology_devices(topology)
    config.data.batch_size = batch_per_device * len(devices)
    hosts = len({device.process_index for device in devices})
    if hosts > 1:
        config.train.backend = "jit"
    validate(config, len(devices), hosts)
    lowered = compiled_steps.compile_train_step(config, frozen, devices).lower(*abstract_arguments(config, len(devices)))
    known = {
        "topology": topology,
        "devices": len(devices),
        "device_kind": devices[0].device_kind,
        "batch_size": config.data.batch_size,
        "memory_bytes": MEMORY.get(devices[0].device_kind),
    }
    start = time.perf_counter()
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        total = requested_bytes(str(error))
        if total is None:
            raise
        return Needs(**known, fits=False, total_bytes=total, compile_seconds=time.perf_counter() - start)
    seconds = time.perf_counter() - start
    return Needs(**known, compile_seconds=seconds, **account(compiled, known["memory_bytes"]))


def topology_devices(topology: str) -> list[jax.Device]:
    """Devices of the topology ``KIND:SHAPE``, only for compilation; for ``cpu`` the local device.

    Raises:
      ConfigError: no libtpu, or an unknown topology.
    """
    if topology == "cpu":
        return jax.devices("cpu")[:1]
    if importlib.util.find_spec("libtpu") is None:
        raise ConfigError("compiling for a TPU needs the package libtpu: pip install -e '.[tpu-aot]'")
    for name, value in {
        "TPU_SKIP_MDS_QUERY": "1",  # there is no metadata server
        "TPU_ACCELERATOR_TYPE": "v5litepod-8",
        "TPU_WORKER_HOSTNAMES": "localhost",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # no TPU is used, so processes cannot conflict
    }.items():
        os.environ.setdefault(name, value)
    try:
        if not topology:  # libtpu would choose the oldest kind
            raise ValueError("it is empty")
        return list(topologies.get_topology_desc(topology, platform="tpu").devices)
    except (jax.errors.JaxRuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0].removeprefix("INVALID_ARGUMENT: ")
        raise ConfigError(
            f"--topology={topology} is invalid ({reason}): use for example v5e:2x4, v5e:16x16, v6e:8x8, v5p:4x4x4"
        ) from error


def abstract_arguments(config: Config, devices: int) -> tuple[TrainState, Batch]:
    """Shapes and types of the arguments of the step: the state, and a batch as :func:`parallel.shard_batch` returns it."""
    per_device = config.data.batch_size // devices
    leading = (devices, per_device) if config.train.backend == "pmap" else (config.data.batch_size,)
    batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct((*leading, *x.shape[1:]), x.dtype), random_batch(config.data, 1))
    return jax.eval_shape(lambda: create_state(config)), batch


def account(compiled: Any, memory_bytes: int | None) -> dict[str, Any]:
    """The fields of :class:`Needs` that a compiled program reports."""
    memory, cost = compiled.memory_analysis(), compiled.cost_analysis()
    cost = cost[0] if isinstance(cost, list) else cost
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
        "collectives": collectives(compiled.as_text()),
    }


def collectives(hlo: str) -> dict[str, Collectives]:
    """Collectives in the text of a compiled module, by kind; those in loops separately (``all-reduce in loops``)."""
    found: dict[str, Collectives] = {}
    pattern = re.compile(rf" = (.+?) ({'|'.join(COLLECTIVES)})(-start)?\(")
    for line in hlo.splitlines():
        match = pattern.search(line)
        if not match:
            continue
        result, kind, start = match.groups()
        name = re.search(r'op_name="([^"]*)"', line)
        if name and "/while/" in name[1]:
            kind += " in loops"
        sizes = shape_bytes(result)
        # The asynchronous form, except of the all-reduce, returns its operand in addition to the result.
        size = max(sizes) if start and not kind.startswith("all-reduce") else sum(sizes)
        before = found.get(kind, Collectives(0, 0))
        found[kind] = Collectives(before.count + 1, before.bytes + size)
    return found


def shape_bytes(text: str) -> list[int]:
    """Bytes of every array in the text of a shape such as ``(f32[8,3]{1,0:T(8,128)}, pred[])``."""
    return [
        ITEM_BYTES.get(kind, 1) * math.prod(int(size) for size in sizes.split(",") if size)
        for kind, sizes in re.findall(r"\b([a-z][a-z0-9]*)\[([0-9,]*)\]", text)
    ]


def requested_bytes(message: str) -> int | None:
    """Bytes requested, from the compiler's out-of-memory message; None for other messages."""
    words = r"Used ([0-9.]+)([KMG]) of [0-9.]+[KMG] hbm|HLO temporaries \(([0-9.]+)([KMG])\) exceeds available HBM"
    match = re.search(words, message)
    if match is None:
        return None
    number, unit = filter(None, match.groups())
    return round(float(number) * 1024 ** (1 + "KMG".index(unit)))


def table(columns: list[Needs]) -> str:
    """Markdown table with one column per topology."""
    kinds = sorted({kind for needs in columns for kind in needs.collectives})
    rows = {
        "devices": [f"{needs.devices} x {needs.device_kind}" for needs in columns],
        "global batch": [str(needs.batch_size) for needs in columns],
        "arguments (state and batch)": [_mib(needs.argument_bytes) for needs in columns],
        "outputs": [_mib(needs.output_bytes) for needs in columns],
        "outputs in the memory of arguments": [_mib(needs.alias_bytes) for needs in columns],
        "program": [_mib(needs.code_bytes) for needs in columns],
        "**peak total**": [f"**{_mib(needs.total_bytes)}**" for needs in columns],
        "memory of the device": [_mib(needs.memory_bytes) for needs in columns],
        "**fits**": [f"**{'yes' if needs.fits else 'no'}**" for needs in columns],
        "GFLOP, loop bodies once": [_giga(needs.flops) for needs in columns],
        "GB accessed, loop bodies once": [_giga(needs.bytes_accessed) for needs in columns],
        **{kind: [_traffic(needs.collectives.get(kind)) for needs in columns] for kind in kinds},
        "compiled in": [f"{needs.compile_seconds:.0f} s" for needs in columns],
    }
    lines = [["per device", *(needs.topology for needs in columns)], ["---", *("---:" for _ in columns)]]
    lines += [[name, *cells] for name, cells in rows.items()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _mib(size: int | None) -> str:
    return "-" if size is None else f"{size / 2**20:,.0f} MiB"


def _giga(value: float | None) -> str:
    return "-" if value is None else f"{value / 1e9:,.1f}"


def _traffic(collectives: Collectives | None) -> str:
    return "-" if collectives is None else f"{collectives.count}, {collectives.bytes / 2**20:,.1f} MiB"
