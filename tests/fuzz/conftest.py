"""Options and report of the fuzzing; the helpers of this folder are imported by their names."""

import importlib.metadata
import json
import platform
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

VERSIONS = ("numpy", "opencv-python-headless", "pillow", "av", "simplejpeg", "safetensors", "orbax-checkpoint", "onnxruntime")


def pytest_addoption(parser):
    parser.addoption("--fuzz-seed", type=int, default=0, help="another seed gives other variants")
    parser.addoption("--fuzz-count", type=int, default=100_000, help="variants per reader (default: 100000)")
    parser.addoption("--fuzz-seconds", type=float, default=60.0, help="seconds for each reader that is slow (default: 60)")
    parser.addoption("--fuzz-report", metavar="FILE", help="write the results as JSON")


@pytest.fixture(scope="session")
def record(request):
    """A function that adds the result of a reader to ``--fuzz-report``."""
    file, results = request.config.getoption("--fuzz-report"), {}
    commit = subprocess.run(["git", "-C", HERE, "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    versions = {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in VERSIONS}

    def add(name, result):
        results[name] = result
        if file is not None:
            about = {
                "seed": request.config.getoption("--fuzz-seed"),
                "commit": commit,
                "versions": versions,
                "inputs": sum(result["inputs"] for result in results.values()),
                "faults": sum(len(result["faults"]) for result in results.values()),
                "readers": results,
            }
            Path(file).parent.mkdir(parents=True, exist_ok=True)
            Path(file).write_text(json.dumps(about, indent=1) + "\n")

    return add
