"""Files are data: reading them runs no code, reaches no other file and no network, except where the user says so."""

import ast
import functools
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted(path for folder in ("dd_jax", "scripts", "configs") for path in (ROOT / folder).rglob("*.py"))

RUNS_CODE = {
    "eval", "exec", "__import__", "pickle.load", "pickle.loads", "pickle.Unpickler", "marshal.loads", "marshal.load",
    "shelve.open", "cloudpickle.load", "cloudpickle.loads", "joblib.load", "os.system", "os.popen", "yaml.load",
    "yaml.unsafe_load", "torch.load", "np.load", "np.lib.format.read_array", "np.lib.format.open_memmap",
}  # fmt: skip
"""Calls that run code of a file, or may."""

UNPACKS = {"extract", "extractall", "unpack_archive"}
"""Names of calls that write files whose names an archive states."""

ALLOWED = {
    ("dd_jax/runtime/hosts.py", "pickle.loads"): "between the processes of one run, through JAX's own connection",
    ("dd_jax/benchmarks/memory.py", "pickle.load"): "a child process reads what its parent has just written",
    ("dd_jax/data/ground_truth_file.py", "np.load"): "pickled ground truth, only with data.allow_pickle",
    ("dd_jax/benchmarks/accelerator/continuing.py", "np.load"): "without allow_pickle, NumPy's default",
}

NETWORK = {"socket", "http", "urllib", "requests", "httpx", "ftplib", "smtplib", "aiohttp", "huggingface_hub", "transformers"}

CONNECTS = {
    "dd_jax/checkpoints/hub.py": "a model given as hf://",
    "dd_jax/prepare/networks.py": "masks and prior depth by a network that the user names",
}


def name_of(node: ast.AST) -> str:
    """``a.b.c`` of a call's function."""
    if isinstance(node, ast.Attribute):
        return f"{name_of(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def is_safe(call: ast.Call, name: str) -> bool:
    """Whether the arguments say that no code is run."""
    stated = {keyword.arg: getattr(keyword.value, "value", None) for keyword in call.keywords}
    return name == "np.lib.format.open_memmap" or {"torch.load": stated.get("weights_only") is True}.get(
        name, stated.get("allow_pickle") is False
    )


@functools.cache
def nodes(path: Path) -> list[ast.AST]:
    return list(ast.walk(ast.parse(path.read_text())))


def calls(path: Path) -> list[tuple[ast.Call, str]]:
    return [(node, name_of(node.func)) for node in nodes(path) if isinstance(node, ast.Call)]


def test_reading_files_runs_no_code():
    found = {
        (str(path.relative_to(ROOT)), name)
        for path in SOURCES
        for call, name in calls(path)
        if name.replace("numpy.", "np.") in RUNS_CODE and not is_safe(call, name)
    }
    assert found == {*ALLOWED}


def test_no_shell_and_no_archive_unpacked_to_the_names_it_states():
    for path in SOURCES:
        for call, name in calls(path):
            assert not any(keyword.arg == "shell" for keyword in call.keywords), path
            assert name.rpartition(".")[2] not in UNPACKS and not name.startswith("tarfile."), path


def test_only_named_files_import_what_connects():
    found = set()
    for path in SOURCES:
        for node in nodes(path):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            if {module.split(".")[0] for module in modules} & NETWORK:
                found.add(str(path.relative_to(ROOT)))
    assert found == {*CONNECTS}


PROGRAM = """
import importlib, pkgutil, sys

def refuse(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.bind", "socket.sendto", "urllib.Request"):
        raise AssertionError(f"{event} {arguments}")

sys.addaudithook(refuse)
import dd_jax
modules = [module.name for module in pkgutil.walk_packages(dd_jax.__path__, "dd_jax.")]
for name in modules:
    importlib.import_module(name)
import numpy as np
frame = np.random.default_rng(0).integers(0, 256, (128, 416, 3)).astype(np.uint8)
depth = dd_jax.load("rendered").predict(frame, K=dd_jax.camera_from_fov(81.0, (128, 416)))
assert depth.shape == (128, 416) and np.isfinite(depth).all()
print(len(modules))
"""


@pytest.mark.slow
def test_import_of_all_modules_and_prediction_connect_to_nothing():
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": ""}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout.split()[-1]) > 150
