"""Measurements for tests of ``benchmarks/accelerator``; their processes import them by this name."""

import os
import subprocess
import sys
import time

from dd_jax.config import ConfigError


def device(task):
    yield {"what": "devices", "platform": "gpu"}


def told(task):
    """What the task says."""
    yield {"what": task.platform, "precision": task.config.model.precision, "sizes": list(task.sizes()), "left": task.left()}


def printing(task):
    print("not a row", flush=True)
    subprocess.run([sys.executable, "-c", "print('nor this')"], check=True)
    yield {"what": "memory", "peak_bytes": 2**30}


def failing(task):
    yield {"what": "first", "run_seconds": 0.5}
    raise ValueError("no such thing\nand more")


def refusing(task):
    raise ConfigError("PyTorch is not installed")
    yield


def crashing(task):
    yield {"what": "first", "run_seconds": 0.5}
    os.abort()


def hanging(task):
    """Starts a process, and both wait."""
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield {"what": "processes", "pids": [str(os.getpid()), str(other.pid)]}
    time.sleep(600)
