import sys

import jax
import jax.numpy as jnp
import pytest

from dd_jax.benchmarks import memory


def test_peak_of_running_only():
    """The state has 100 MB; the second function also returns 400 MB."""
    state = jnp.ones((25_000_000,), jnp.float32)
    small = jax.jit(lambda state, batch: (state + batch, jnp.sum(state)), donate_argnums=0).lower(state, 1.0).compile()

    large = jax.jit(lambda state, batch: (state + batch, jnp.tile(state, 4)), donate_argnums=0).lower(state, 1.0).compile()
    low, high = memory.peak_bytes(small, state, 1.0), memory.peak_bytes(large, state, 1.0)
    assert 100e6 < low < 1.5e9
    assert 250e6 < high - low < 550e6


def test_failed_process_raises_with_reason(monkeypatch):
    compiled = jax.jit(lambda state, batch: (state, batch)).lower(1.0, 1.0).compile()
    monkeypatch.setattr(memory.serialize_executable, "serialize", lambda compiled: ())
    with pytest.raises(RuntimeError, match=r"measuring the resident memory failed: TypeError: .*deserialize_and_load"):
        memory.peak_bytes(compiled, 1.0, 1.0)


def test_resident_peak_of_this_process():
    assert memory.resident_peak() > (10e6 if sys.platform == "linux" else 0)
