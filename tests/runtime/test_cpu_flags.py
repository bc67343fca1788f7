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


def test_command_starts_again_once_with_huge_pages_and_the_same_arguments(tmp_path):
    (tmp_path / "offered").write_text("always [madvise] never")
    program = (
        "import os, pathlib, sys\n"
        "from dd_jax.runtime import cpu_flags\n"
        "cpu_flags.THP = pathlib.Path(sys.argv[1])\n"
        "print('starts', flush=True)\n"
        "cpu_flags.restart_with_huge_pages()\n"
        "print(os.environ.get('GLIBC_TUNABLES'), *sys.argv[2:])\n"
    )

    def output(offered: str, **environment: str) -> list[str]:
        command = [sys.executable, "-c", program, str(tmp_path / offered), "a b", "--c=d"]
        everything = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"} | environment
        return subprocess.run(command, env=everything, check=True, capture_output=True, text=True).stdout.splitlines()

    if platform.libc_ver()[0] == "glibc":
        assert output("offered") == ["starts", "starts", "glibc.malloc.hugetlb=1 a b --c=d"]
        others = "glibc.malloc.check=0"
        assert output("offered", GLIBC_TUNABLES=others)[-1] == f"{others}:glibc.malloc.hugetlb=1 a b --c=d"
    assert output("offered", GLIBC_TUNABLES="glibc.malloc.hugetlb=0") == ["starts", "glibc.malloc.hugetlb=0 a b --c=d"]
    assert output("absent") == ["starts", "None a b --c=d"]
