"""The same bits on a CPU, run after run and on any cores, if the number of threads is the same."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

PROGRAM = """
import hashlib, os, sys
os.sched_setaffinity(0, map(int, sys.argv[2].split(",")))
import jax, numpy as np
from dd_jax.runtime import cpu_flags, parallel
sys.path.insert(0, "tests")
import tiny
from dd_jax.method import compiled_steps
from dd_jax.method.train_step import create_state

cpu_flags.set_defaults()
config, device = tiny.system(sys.argv[1]), jax.devices()[:1]
state, step = parallel.replicate(create_state(config), device), compiled_steps.compile_train_step(config, False, device)
for seed in range(3):
    state, metrics = step(state, parallel.shard_batch(tiny.batch(config.data.batch_size, seed), config, device))
digest = hashlib.sha256()
for leaf in jax.tree.leaves((parallel.on_host(state), jax.device_get(metrics))):
    digest.update(np.ascontiguousarray(leaf).tobytes())
print(digest.hexdigest())
"""


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 3])
def test_three_steps_have_the_same_bits_on_one_core_and_on_all(threads):
    """With the same number of threads: XLA divides sums among them."""

    def bits(cores):
        return subprocess.run(
            [sys.executable, "-c", PROGRAM, "dynamic_depth", ",".join(map(str, cores))],
            env=os.environ | {"NPROC": str(threads), "PYTHONPATH": str(ROOT)},
            cwd=ROOT,
            capture_output=True,
            check=True,
        ).stdout

    cores = os.sched_getaffinity(0)
    assert bits({min(cores)}) == bits(cores)
