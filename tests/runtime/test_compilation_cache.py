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
    """No cache folder is set; restored afterwards."""
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", None)
    yield
    jax.config.update("jax_compilation_cache_dir", before)


def test_folder_below_xdg_cache_home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert compilation_cache.enable() == tmp_path / "cache" / "dd_jax"
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "cache" / "dd_jax")
    assert (tmp_path / "cache" / "dd_jax").is_dir()


def test_folder_below_home(tmp_path, monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert compilation_cache.enable() == tmp_path / ".cache" / "dd_jax"


def test_configured_folder_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "own"))
    assert compilation_cache.enable() == tmp_path / "own"
    assert not (tmp_path / "dd_jax").exists()


def test_unwritable_home_means_no_cache(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert compilation_cache.enable() is None
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert compilation_cache.enable() is None
    assert jax.config.jax_compilation_cache_dir is None


def test_cache_disabled(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        assert compilation_cache.enable() is None
    finally:
        jax.config.update("jax_enable_compilation_cache", True)
    assert not list(tmp_path.iterdir())


def test_second_process_reuses_compiled_program(tmp_path):
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
