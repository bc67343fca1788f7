"""Devices, versions and host."""

import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Iterator

import jax

from dd_jax.benchmarks.accelerator.task import Row, Task

PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy")
VARIABLES = (
    "XLA_FLAGS", "LIBTPU_INIT_ARGS", "JAX_PLATFORMS", "JAX_DEFAULT_MATMUL_PRECISION", "XLA_PYTHON_CLIENT_MEM_FRACTION",
    "CUDA_VISIBLE_DEVICES", "DD_JAX_FORMS",
)  # fmt: skip


def describe(task: Task) -> Iterator[Row]:
    """The first row has the platform, which ``run`` reads."""
    device = jax.local_devices()[0]
    row = {"what": "devices", "count": jax.local_device_count(), "kind": device.device_kind, "platform": device.platform}
    memory = device.memory_stats() or {}
    yield row | ({"usable_bytes": memory["bytes_limit"]} if "bytes_limit" in memory else {})
    yield {"what": "backend", "note": " ".join(device.client.platform_version.split())}
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    yield {"what": "versions", "python": platform.python_version()} | versions
    yield {"what": "host", "cores": cores(), "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")}
    yield {"what": "environment"} | {name: os.environ[name] for name in VARIABLES if os.environ.get(name)}
    if driver := nvidia_driver():
        yield {"what": "driver", "note": driver}


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def nvidia_driver() -> str:
    """What ``nvidia-smi`` says about the GPUs; "" without it."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total,power.limit", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, check=False, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return "; ".join(done.stdout.splitlines()) if done.returncode == 0 else ""
