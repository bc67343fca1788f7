import jax
import jax.numpy as jnp
import numpy as np
import onnx_agreement
import pytest

from dd_jax.config import ConfigError

X = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)


def test_scan_reads_and_writes_rows():
    """With carried arrays, a constant, and broadcast outputs."""

    def function(x):
        def turn(carry, row):
            total, count = carry
            return (total + row * x[0], count + 1), (total, jnp.broadcast_to(count, (2,)), jnp.ones(3))

        return jax.lax.scan(turn, (jnp.zeros(4), 0), x)

    onnx_agreement.check(function, X)


def test_map_over_symbolic_batch():
    onnx_agreement.check(lambda x: jax.lax.map(lambda row: jnp.cumsum(row) * x.shape[1], x), X, symbolic=True)


def test_fori_loop_counter():
    onnx_agreement.check(lambda x: jax.lax.fori_loop(0, 5, lambda i, y: y * 0.5 + i, x), X, symbolic=True)


@pytest.mark.parametrize("start", [0.1, 100.0])
def test_nested_loops_in_while(start):
    """A start of 100 fails the condition at once: no iteration."""

    def function(x):
        def halve_twice(y):
            return jax.lax.fori_loop(0, 2, lambda _, z: z * 0.5, y)

        def turn(state):
            total, turns = state
            return total + jnp.sum(halve_twice(x) ** 2), turns + 1

        return jax.lax.while_loop(lambda state: state[0] < 5.0, turn, (jnp.float32(start), 0))

    onnx_agreement.check(function, X)


def test_reversed_scan_raises():
    with pytest.raises(ConfigError, match="a reversed scan"):
        onnx_agreement.model(lambda x: jax.lax.scan(lambda c, row: (c + row, c), x[0], x, reverse=True), X)
