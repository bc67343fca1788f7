import sys

import jax
import jax.numpy as jnp
import pytest

from dd_jax.benchmarks import memory


def test_the_peak_is_that_of_running_alone():
    """A hundred megabytes are held, and four times as much is returned besides."""
    state = jnp.ones((25_000_000,), jnp.float32)
    small = jax.jit(lambda state, batch: (state + batch, jnp.sum(state)), donate_argnums=0).lower(state, 1.0).compile()

    large = jax.jit(lambda state, batch: (state + batch, jnp.tile(state, 4)), donate_argnums=0).lower(state, 1.0).compile()
    low, high = memory.peak_bytes(small, state, 1.0), memory.peak_bytes(large, state, 1.0)
    assert 100e6 < low < 1.5e9
    assert 250e6 < high - low < 550e6


def test_a_process_that_fails_says_why(monkeypatch):
    compiled = jax.jit(lambda state, batch: (state, batch)).lower(1.0, 1.0).compile()
    monkeypatch.setattr(memory.serialize_executable, "serialize", lambda compiled: ())
    with pytest.raises(RuntimeError, match=r"measuring the resident memory failed: TypeError: .*deserialize_and_load"):
        memory.peak_bytes(compiled, 1.0, 1.0)


def test_this_process_has_a_peak():
    assert memory.resident_peak() > (10e6 if sys.platform == "linux" else 0)
