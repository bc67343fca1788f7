"""Settings of all tests: the CPU as eight devices, products in float32, and the ledger of the parity tests."""

import importlib.metadata
import os
import sys
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_DEFAULT_MATMUL_PRECISION", "highest")  # tolerances are for float32, not the default everywhere
# Tests compile much and compute little: compilation is three times as fast with these flags, the code slower.
FLAGS = [
    "--xla_force_host_platform_device_count=8",
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
]
if importlib.metadata.version("jax").startswith("0.10."):  # later versions do not know it and would refuse to start
    FLAGS.append("--xla_cpu_use_fusion_emitters=false")
os.environ["XLA_FLAGS"] = " ".join([*FLAGS, os.environ.get("XLA_FLAGS", "")])

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE / "parity")]  # importlib mode adds no paths itself: `import tiny`, `from harness import ...`

import harness  # noqa: E402
import pytest  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

from dd_jax.runtime import cpu_flags  # noqa: E402

SLOW_MACHINE = [HealthCheck.too_slow]  # the first example compiles
settings.register_profile(
    "fast", max_examples=20, deadline=None, derandomize=True, database=None, suppress_health_check=SLOW_MACHINE
)
settings.register_profile(
    "thorough", max_examples=3000, deadline=None, database=None, print_blob=True, suppress_health_check=SLOW_MACHINE
)
settings.load_profile("fast")  # --hypothesis-profile=thorough: make test-thorough

cpu_flags.set_defaults()  # as the scripts do, so that tests compute the numbers of the jobs


@pytest.fixture(scope="session")
def drives(tmp_path_factory):
    """Folder of four rendered drives of 12 frames, 96x320; tests change copies of it only."""
    from dd_jax.data.synthetic import make  # later than jaxtyping's hook

    root = tmp_path_factory.mktemp("drives")
    make(str(root), preset="tiny", workers=1, progress=False)
    return root


def pytest_addoption(parser):
    parser.addoption(
        "--golden", metavar="DIR", default=str(HERE / "golden"), help="folder of golden arrays (default: the committed subset)"
    )
    parser.addoption("--faults-report", metavar="FILE", default="", help="JSON file for the figures of the tests marked faults")
    parser.addoption("--faults-trials", metavar="N", type=int, default=50, help="runs that are killed (default: 50)")
    parser.addoption("--faults-seed", metavar="N", type=int, default=0, help="of the first of them (default: 0)")


LONGEST = ("e2e", "test_parallel.py", "method")
"""Folders and files that take longest: they come first, so that no process waits for another at the end."""


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: not any(name in item.path.parts for name in LONGEST))


def pytest_configure(config):
    config.pluginmanager.register(harness.Ledger(config), "golden-ledger")
