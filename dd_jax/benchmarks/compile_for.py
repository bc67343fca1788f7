"""What a training step needs of a TPU that is not there: compiled ahead of time for a topology, and the result read.

The compiler is the real one (package ``libtpu``, extra ``tpu-aot``); nothing is executed. Bytes and operations are those of one
device. Neither the compiler's count of operations nor that of bytes knows how often a loop turns: its body counts once.
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
from dd_jax.method import on_devices
from dd_jax.method.train_step import create_state
from dd_jax.types import Batch, TrainState

GIB = 2**30

MEMORY = {"TPU v5 lite": 16 * GIB, "TPU v5": 95 * GIB, "TPU v6 lite": 32 * GIB}
"""Of one device, by kind; what the compiler reserves for itself comes off."""

COLLECTIVES = ("all-reduce", "all-gather", "all-to-all", "reduce-scatter", "collective-permute")

ITEM_BYTES = {"pred": 1, "bf16": 2, "s8": 1, "u8": 1, "c64": 8, "c128": 16} | {
    f"{kind}{8 * size}": size for kind in "fsu" for size in (2, 4, 8)
}


@dataclasses.dataclass(frozen=True)
class Collectives:
    """All communication of one kind."""

    count: int
    bytes: int  # results, on each device: what a device gets, whatever way the network takes to bring it


@dataclasses.dataclass(frozen=True)
class Needs:
    """What one device needs for a step. What the compiler did not get to say, because the step does not fit, is None."""

    topology: str
    devices: int
    device_kind: str
    batch_size: int  # global
    fits: bool
    memory_bytes: int | None  # of the device; None: not known here, the compiler decides alone
    total_bytes: int  # at the fullest moment: arguments, results, temporaries, and the program
    compile_seconds: float
    argument_bytes: int | None = None  # state and batch
    output_bytes: int | None = None
    alias_bytes: int | None = None  # outputs that take the place of arguments
    temporary_bytes: int | None = None  # of all memories a device has, and not all at once
    code_bytes: int | None = None
    flops: float | None = None
    bytes_accessed: float | None = None
    collectives: dict[str, Collectives] = dataclasses.field(default_factory=dict)


def needs(config: Config, topology: str, batch_per_device: int, frozen: bool = False) -> Needs:
    """Compiles the step of ``config`` for every device of a topology such as ``v5e:2x4``; takes some twenty minutes of a core,
    a minute for ``cpu``. Devices of several machines get backend "jit", as training requires of them.

    Args:
      frozen: the step in which teacher and pose are fixed.

    Raises:
      ConfigError: no libtpu, an unknown topology, or a config that cannot work.
    """
    if batch_per_device < 1:
        raise ConfigError(f"--batch_per_device={batch_per_device} must be positive")
    devices = topology_devices(topology)
    config.data.batch_size = batch_per_device * len(devices)
    machines = len({device.process_index for device in devices})
    if machines > 1:
        config.train.backend = "jit"
    validate(config, len(devices), machines)
    lowered = on_devices.compile_train_step(config, frozen, devices).lower(*abstract_arguments(config, len(devices)))
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
        total = bytes_asked_for(str(error))
        if total is None:
            raise
        return Needs(**known, fits=False, total_bytes=total, compile_seconds=time.perf_counter() - start)
    seconds = time.perf_counter() - start
    return Needs(**known, compile_seconds=seconds, **account(compiled, known["memory_bytes"]))


def topology_devices(topology: str) -> list[jax.Device]:
    """The devices of ``KIND:SHAPE``, which can be compiled for and nothing else; of ``cpu`` the one that is here.

    Raises:
      ConfigError: no libtpu, or one that does not know the topology.
    """
    if topology == "cpu":
        return jax.devices("cpu")[:1]
    if importlib.util.find_spec("libtpu") is None:
        raise ConfigError("compiling for a TPU needs its compiler, the package libtpu: pip install -e '.[tpu-aot]'")
    for name, value in {
        "TPU_SKIP_MDS_QUERY": "1",  # there is no metadata server to ask what machine this is
        "TPU_ACCELERATOR_TYPE": "v5litepod-8",
        "TPU_WORKER_HOSTNAMES": "localhost",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # there is no TPU that two processes could fight for
    }.items():
        os.environ.setdefault(name, value)
    try:
        if not topology:  # libtpu would take the oldest kind there is
            raise ValueError("it is empty")
        return list(topologies.get_topology_desc(topology, platform="tpu").devices)
    except (jax.errors.JaxRuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0].removeprefix("INVALID_ARGUMENT: ")
        raise ConfigError(
            f"--topology={topology} cannot be compiled for ({reason}); for instance v5e:2x4, v5e:16x16, v6e:8x8, v5p:4x4x4"
        ) from error


def abstract_arguments(config: Config, devices: int) -> tuple[TrainState, Batch]:
    """Shapes and types of what the compiled step takes: the state, and a batch as :func:`parallel.shard_batch` returns it."""
    per_device = config.data.batch_size // devices
    leading = (devices, per_device) if config.train.backend == "pmap" else (config.data.batch_size,)
    batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct((*leading, *x.shape[1:]), x.dtype), random_batch(config.data, 1))
    return jax.eval_shape(lambda: create_state(config)), batch


def account(compiled: Any, memory_bytes: int | None) -> dict[str, Any]:
    """The fields of :class:`Needs` that a compiled program knows."""
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
    """Communication in the text of a compiled module, by kind; that of loops apart, once per turn (``all-reduce in loops``)."""
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
        # The asynchronous form of all but the all-reduce carries its operand along, besides the result.
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


def bytes_asked_for(message: str) -> int | None:
    """Of a compiler that refused because the device's memory does not suffice; None where it said something else."""
    words = r"Used ([0-9.]+)([KMG]) of [0-9.]+[KMG] hbm|HLO temporaries \(([0-9.]+)([KMG])\) exceeds available HBM"
    match = re.search(words, message)
    if match is None:
        return None
    number, unit = filter(None, match.groups())
    return round(float(number) * 1024 ** (1 + "KMG".index(unit)))


def table(columns: list[Needs]) -> str:
    """A Markdown table with a column for each topology."""
    kinds = sorted({kind for needs in columns for kind in needs.collectives})
    rows = {
        "devices": [f"{needs.devices} x {needs.device_kind}" for needs in columns],
        "batch, of all devices": [str(needs.batch_size) for needs in columns],
        "arguments (state and batch)": [_mib(needs.argument_bytes) for needs in columns],
        "outputs": [_mib(needs.output_bytes) for needs in columns],
        "of these in the place of arguments": [_mib(needs.alias_bytes) for needs in columns],
        "program": [_mib(needs.code_bytes) for needs in columns],
        "**total at the fullest moment**": [f"**{_mib(needs.total_bytes)}**" for needs in columns],
        "memory of the device": [_mib(needs.memory_bytes) for needs in columns],
        "**fits**": [f"**{'yes' if needs.fits else 'no'}**" for needs in columns],
        "GFLOP, loops once": [_giga(needs.flops) for needs in columns],
        "GB accessed, loops once": [_giga(needs.bytes_accessed) for needs in columns],
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


def _traffic(all_of_a_kind: Collectives | None) -> str:
    return "-" if all_of_a_kind is None else f"{all_of_a_kind.count}, {all_of_a_kind.bytes / 2**20:,.1f} MiB"
