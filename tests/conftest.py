"""Settings that hold for every test: the CPU split into four devices, and the ledger of the parity tests."""

import os
import sys
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = (os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4").strip()

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "parity"))  # `from harness import ...` in parity tests; importlib mode adds no paths itself

import harness  # noqa: E402


def pytest_addoption(parser):
    parser.addoption(
        "--golden", metavar="DIR", default=str(HERE / "golden"), help="folder of golden arrays (default: the committed subset)"
    )


def pytest_configure(config):
    config.pluginmanager.register(harness.Ledger(config), "golden-ledger")
