"""Compiled programs are kept where the environment says, and a folder that cannot be written stops nothing."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from dd_jax.runtime import compilation_cache

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def no_folder():
    """As at the start of a program; afterwards as before."""
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", None)
    yield
    jax.config.update("jax_compilation_cache_dir", before)


def test_folder_is_made_below_the_cache_home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert compilation_cache.enable() == tmp_path / "cache" / "dd_jax"
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "cache" / "dd_jax")
    assert (tmp_path / "cache" / "dd_jax").is_dir()


def test_without_a_cache_home_it_is_in_the_users(tmp_path, monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert compilation_cache.enable() == tmp_path / ".cache" / "dd_jax"


def test_a_folder_that_is_set_stays(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "own"))
    assert compilation_cache.enable() == tmp_path / "own"
    assert not (tmp_path / "dd_jax").exists()


def test_home_that_cannot_be_written_means_no_cache(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert compilation_cache.enable() is None
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert compilation_cache.enable() is None
    assert jax.config.jax_compilation_cache_dir is None


def test_it_can_be_turned_off(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        assert compilation_cache.enable() is None
    finally:
        jax.config.update("jax_enable_compilation_cache", True)
    assert not list(tmp_path.iterdir())


def test_a_second_program_finds_what_the_first_compiled(tmp_path):
    program = (
        "import jax; from dd_jax.runtime import compilation_cache; compilation_cache.enable();"
        "jax.config.update('jax_persistent_cache_min_compile_time_secs', 0);"
        "jax.jit(lambda x: x * 2 + 1)(1.0)"
    )
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    kept = []
    for _ in range(2):
        subprocess.run([sys.executable, "-c", program], env=environment, check=True)
        kept.append(sorted(path.name for path in (tmp_path / "dd_jax").rglob("*") if path.is_file()))
    assert kept[0] and kept[0] == kept[1]
