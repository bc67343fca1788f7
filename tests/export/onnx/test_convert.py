import jax
import jax.numpy as jnp
import numpy as np
import onnx_agreement
import pytest

from dd_jax.config import ConfigError

X = np.random.default_rng(0).standard_normal((2, 4)).astype(np.float32)


def test_inner_programs_are_inlined():
    @jax.custom_vjp
    def twice(x):
        return 2 * x

    twice.defvjp(lambda x: (twice(x), None), lambda _, gradient: (gradient,))
    function = lambda x: jax.lax.stop_gradient(jax.jit(twice)(jax.nn.relu(x)))  # noqa: E731
    onnx_agreement.check(function, X, symbolic=True)
    assert [node.op_type for node in onnx_agreement.model(function, X).graph.node] == ["Max", "Mul", "Identity"]


def test_constant_folding():
    """Operations on weights are folded; a large result stays an operation."""
    weights = np.random.default_rng(0).standard_normal((4, 4)).astype(np.float32)
    small = onnx_agreement.model(lambda x: x @ jnp.flip(weights * 2, 0).T, X)
    assert [node.op_type for node in small.graph.node] == ["MatMul", "Identity"]
    large = onnx_agreement.model(lambda x: x[0, 0] + jnp.zeros((1000, 1000)).reshape(-1), X)
    assert large.ByteSize() < 10_000


def test_output_is_input_or_constant():
    onnx_agreement.check(lambda x: (x, jnp.ones((2, 3)), jnp.arange(3)), X)


def test_platform_dependent_uses_default():
    function = lambda x: jax.lax.platform_dependent(x, tpu=jnp.sort, default=lambda x: 2 * x)  # noqa: E731
    onnx_agreement.check(function, X, symbolic=True)
    assert [node.op_type for node in onnx_agreement.model(function, X).graph.node] == ["Mul", "Identity"]


def test_unknown_operation_raises():
    with pytest.raises(ConfigError, match=r"ONNX export does not support the operation 'sort'.*use --format=stablehlo"):
        onnx_agreement.model(jnp.sort, X)
