import jax
import jax.numpy as jnp
import numpy as np
import onnx_agreement
import pytest

from dd_jax.config import ConfigError

X = np.array([[-3.5, -1.0, -1e-6, 0.0], [1e-6, 0.5, 1.0, 40.0]], np.float32)
Y = np.array([[2.0, -1.0, 3.0, 0.5], [-2.5, 4.0, 1.0, 0.25]], np.float32)
INTEGERS = np.array([[-7, -1, 0], [3, 8, 2**31 - 1]], np.int32)


def test_float_operations():
    onnx_agreement.check(
        lambda x, y: (
            [f(x) for f in (jnp.abs, jnp.floor, jnp.sign, jnp.sin, jnp.cos, jnp.tanh, jax.nn.sigmoid, jax.nn.relu, jax.nn.elu)],
            [f(jnp.abs(x) + 0.1) for f in (jnp.sqrt, jax.lax.rsqrt, jnp.log)],
            [x + y, x - y, x * y, x / y, jnp.maximum(x, y), jnp.minimum(x, y), jnp.abs(x) ** y, x**2, y**3, -x, jnp.square(x)],
            [x > y, x >= y, x < y, x <= y, x == y, x != y, (x > 0) & (y > 0), (x > 0) | (y > 0), ~(x > 0), (x > 0) ^ (y > 0)],
            [jnp.where(x > y, x, y), jnp.where(x > 0, y > 1, x < -1), jax.lax.clamp(-1.0, x, 1.0), jnp.exp(jnp.minimum(x, 2.0))],
        ),
        X,
        Y,
    )


def test_expm1_accuracy():
    small = np.array([-5.0, -1e-3, -1e-7, 0.0, 1e-7, 1e-3, 1.0], np.float32)
    onnx_agreement.check(lambda x: [jnp.expm1(x), jax.nn.elu(x)], small, atol=1.2e-7)


def test_integer_division():
    onnx_agreement.check(
        lambda x: [jax.lax.div(x, jnp.int32(3)), jax.lax.rem(x, jnp.int32(3)), x // 3, x % 3, jnp.sign(x), jnp.abs(x)], INTEGERS
    )


def test_type_conversions():
    onnx_agreement.check(
        lambda x: [x.astype(jnp.int32), x.astype(bool), (x > 0).astype(jnp.float32), x.astype(jnp.uint32)], np.abs(X)
    )
    onnx_agreement.check(lambda x: x.astype(jnp.float32) / 255, np.arange(256, dtype=np.uint8))


def test_isfinite():
    onnx_agreement.check(jnp.isfinite, np.array([np.nan, np.inf, -np.inf, 0], np.float32))


def test_broadcast_inputs_are_not_expanded():
    """Grids, biases and scalars need no ``Expand``, which would use much memory."""
    model = onnx_agreement.model(
        lambda x: x * jnp.arange(5.0)[:, None] + jnp.ones(4), np.ones((3, 5, 4), np.float32), symbolic=True
    )
    assert [node.op_type for node in model.graph.node] == ["Mul", "Add", "Identity"]


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: jax.lax.select_n(x.astype(jnp.int32), x, x, x), "select_n of 3 arrays"),
        (lambda x: jnp.bitwise_and(x.astype(jnp.int32), 3), "and of int32"),
        (lambda x: jnp.searchsorted(x[0], x[1]), "le_to of float32"),
    ],
)
def test_unsupported_raises(function, message):
    with pytest.raises(ConfigError, match=message):
        onnx_agreement.model(function, X)
