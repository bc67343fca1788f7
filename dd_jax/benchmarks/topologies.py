"""Devices of machines that are not at hand, only for compilation: TPUs (package ``libtpu``) and NVIDIA's GPUs (a CUDA plugin)."""

import dataclasses
import importlib.util
import os
import re

import jax
from jax.experimental import topologies

from dd_jax.config import ConfigError

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Gpu:
    """Numbers of a card that the compiler asks for, as its driver reports them. Bytes and bytes/s."""

    name: str
    compute_capability: int  # major
    processors: int
    units_per_processor: int  # for float32
    clock_ghz: float
    memory: int
    memory_bandwidth: int
    cache: int  # L2
    shared_memory: int  # of a processor
    shared_memory_of_block: int  # at most, on request


GPUS = {
    "h100": Gpu("NVIDIA H100 80GB HBM3", 9, 132, 128, 1.98, 84_942_979_072, 3_352_320_000_000, 50 * 2**20, 233_472, 232_448),
    "a100": Gpu("NVIDIA A100-SXM4-80GB", 8, 108, 64, 1.41, 85_100_068_864, 2_039_040_000_000, 40 * 2**20, 167_936, 166_912),
}
"""Source: the compiler's own descriptions of these cards (openxla/xla, ``xla/backends/gpu/target_config/specs``)."""

MEMORY = {"TPU v5 lite": 16 * GIB, "TPU v5": 95 * GIB, "TPU v6 lite": 32 * GIB} | {gpu.name: gpu.memory for gpu in GPUS.values()}
"""Memory of one device in bytes, by kind, including what the compiler reserves."""

CUDA_PLUGINS = ("jax_cuda12_plugin", "jax_cuda13_plugin")


def devices_of(topology: str) -> list[jax.Device]:
    """Devices of ``KIND:SHAPE``: a TPU's kind and grid (``v5e:2x4``), or a GPU's and machines x cards (``h100:8``, ``a100:2x8``);
    for ``cpu`` the local device, for ``cpu:8`` eight virtual ones.

    Raises:
      ConfigError: no compiler for the kind, or an unknown topology.
    """
    kind, _, shape = topology.partition(":")
    if kind == "cpu":
        return _cpus(shape)
    return _gpus(kind, shape) if kind in GPUS else _tpus(topology)


def target_config(gpu: Gpu) -> str:
    """Description of a card for XLA: text of a ``GpuTargetConfigProto``, with CUDA 12.9 and cuDNN 9.10."""
    return f"""
gpu_device_info {{
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: {gpu.shared_memory}
  threads_per_core_limit: 2048
  core_count: {gpu.processors}
  fpus_per_core: {gpu.units_per_processor}
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: {gpu.memory_bandwidth}
  l2_cache_size: {gpu.cache}
  clock_rate_ghz: {gpu.clock_ghz}
  device_memory_size: {gpu.memory}
  shared_memory_per_block_optin: {gpu.shared_memory_of_block}
  cuda_compute_capability {{ major: {gpu.compute_capability} }}
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  thread_dim_limit_x: 1024
  thread_dim_limit_y: 1024
  thread_dim_limit_z: 64
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 10 }}
runtime_version {{ major: 12 minor: 9 }}
device_description_str: "{gpu.name}"
"""


def _cpus(shape: str) -> list[jax.Device]:
    if not re.fullmatch(r"|[1-9]\d*", shape):
        raise ConfigError(f"--topology=cpu:{shape} is invalid: use cpu, or cpu:DEVICES as cpu:8")
    number, devices = int(shape or 1), jax.devices("cpu")
    if number > len(devices):
        flag = f"XLA_FLAGS=--xla_force_host_platform_device_count={number}"
        raise ConfigError(f"--topology=cpu:{number} needs {number} virtual devices, not {len(devices)}: set {flag}")
    return devices[:number]


def _gpus(kind: str, shape: str) -> list[jax.Device]:
    match = re.fullmatch(r"(?:([1-9]\d*)x)?([1-9]\d*)", shape)
    if match is None:
        raise ConfigError(
            f"--topology={kind}:{shape} is invalid: use {kind}:CARDS or {kind}:MACHINESxCARDS, as {kind}:8, {kind}:2x8"
        )
    if not any(importlib.util.find_spec(plugin) for plugin in CUDA_PLUGINS):
        raise ConfigError("compiling for a GPU needs the CUDA plugin of JAX: pip install -e '.[cuda-aot]'")
    shape = f"1x{match[1] or 1}x{match[2]}"
    return list(topologies.get_topology_desc(platform="cuda", target_config=target_config(GPUS[kind]), topology=shape).devices)


def _tpus(topology: str) -> list[jax.Device]:
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
