import importlib.metadata
import os
import platform
import subprocess
import sys

import pytest

from dd_jax.runtime import command_line, cpu_flags


@pytest.mark.parametrize("version", ["0.10.2", "0.12.0.1"])
def test_flags_of_the_user_kept(version, monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", lambda name: version)
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_scheduler_type=CPU_SCHEDULER_TYPE_DEFAULT --other=1")
    for _ in range(2):
        cpu_flags.set_defaults()
        assert os.environ["XLA_FLAGS"] == (
            "--xla_cpu_scheduler_type=CPU_SCHEDULER_TYPE_DEFAULT --other=1 "
            "--xla_cpu_experimental_ynn_fusion_type=-individual_convolution"
        )


def test_unknown_jax_version_gets_no_flags(monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.99.0")
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    cpu_flags.set_defaults()
    assert "XLA_FLAGS" not in os.environ


def test_job_sets_flags(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "")
    with command_line.job():
        assert all(f"{flag}={value}" in os.environ["XLA_FLAGS"] for flag, value in cpu_flags.CPU_FLAGS.items())


def test_import_neither_sets_flags_nor_initialises_the_backend():
    """Otherwise the flags that a job sets after its imports would be ignored."""
    program = (
        "import os\n"
        "from jax._src import xla_bridge\n"
        "import dd_jax.training.train, dd_jax.evaluation.evaluate, dd_jax.inference.predict\n"
        "import dd_jax.benchmarks.step, dd_jax.export.artifacts\n"
        "assert 'XLA_FLAGS' not in os.environ and not xla_bridge.backends_are_initialized()\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)


KEPT = "glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=1099511627776:glibc.malloc.arena_max=1"


def test_command_starts_again_once_with_kept_memory_and_the_same_arguments(tmp_path):
    (tmp_path / "offered").write_text("always [madvise] never")
    program = (
        "import os, pathlib, sys\n"
        "from dd_jax.runtime import cpu_flags\n"
        "cpu_flags.THP = pathlib.Path(sys.argv[1])\n"
        "print('starts', flush=True)\n"
        "cpu_flags.restart_with_kept_memory()\n"
        "print(os.environ.get('GLIBC_TUNABLES'), *sys.argv[2:])\n"
    )

    def output(offered: str, **environment: str) -> list[str]:
        command = [sys.executable, "-c", program, str(tmp_path / offered), "a b", "--c=d"]
        everything = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"} | environment
        return subprocess.run(command, env=everything, check=True, capture_output=True, text=True).stdout.splitlines()

    if platform.libc_ver()[0] == "glibc":
        assert output("offered") == ["starts", "starts", f"{KEPT}:glibc.malloc.hugetlb=1 a b --c=d"]
        assert output("absent") == ["starts", "starts", f"{KEPT} a b --c=d"]
        others = "glibc.malloc.check=0"
        assert output("absent", GLIBC_TUNABLES=others)[-1] == f"{others}:{KEPT} a b --c=d"
    for own in ("glibc.malloc.hugetlb=0", "glibc.malloc.arena_max=4"):
        assert output("offered", GLIBC_TUNABLES=own) == ["starts", f"{own} a b --c=d"]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="settings of glibc")
def test_freed_memory_is_found_again_by_the_next_step():
    """A block of 256 MiB, allocated and freed by turns with small ones that stay: no page is fetched after the first round."""
    program = (
        "import ctypes, resource\n"
        "libc = ctypes.CDLL(None)\n"
        "libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]\n"
        "for step in range(5):\n"
        "    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "    block = libc.malloc(ctypes.c_size_t(256 << 20))\n"
        "    ctypes.memset(ctypes.c_void_p(block), 1, 256 << 20)\n"
        "    stays = libc.malloc(ctypes.c_size_t(1000))\n"
        "    libc.free(block)\n"
        "    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)\n"
    )
    environment = os.environ | {"GLIBC_TUNABLES": KEPT}
    done = subprocess.run([sys.executable, "-c", program], env=environment, check=True, capture_output=True, text=True)
    first, *later = map(int, done.stdout.split())
    assert first > 50 and max(later) < 50
