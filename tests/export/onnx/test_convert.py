import jax
import jax.numpy as jnp
import numpy as np
import onnx_agreement
import pytest

from dd_jax.config import ConfigError

X = np.random.default_rng(0).standard_normal((2, 4)).astype(np.float32)


def test_programs_in_programs_leave_no_trace():
    @jax.custom_vjp
    def twice(x):
        return 2 * x

    twice.defvjp(lambda x: (twice(x), None), lambda _, gradient: (gradient,))
    function = lambda x: jax.lax.stop_gradient(jax.jit(twice)(jax.nn.relu(x)))  # noqa: E731
    onnx_agreement.check(function, X, symbolic=True)
    assert [node.op_type for node in onnx_agreement.model(function, X).graph.node] == ["Max", "Mul", "Identity"]


def test_what_is_known_is_computed_once():
    """Of weights alone nothing is left but the result; a result that would fill the file stays an operation."""
    weights = np.random.default_rng(0).standard_normal((4, 4)).astype(np.float32)
    small = onnx_agreement.model(lambda x: x @ jnp.flip(weights * 2, 0).T, X)
    assert [node.op_type for node in small.graph.node] == ["MatMul", "Identity"]
    large = onnx_agreement.model(lambda x: x[0, 0] + jnp.zeros((1000, 1000)).reshape(-1), X)
    assert large.ByteSize() < 10_000


def test_an_output_may_be_an_input_or_a_constant():
    onnx_agreement.check(lambda x: (x, jnp.ones((2, 3)), jnp.arange(3)), X)


def test_of_forms_for_single_devices_the_common_one_is_taken():
    function = lambda x: jax.lax.platform_dependent(x, tpu=jnp.sort, default=lambda x: 2 * x)  # noqa: E731
    onnx_agreement.check(function, X, symbolic=True)
    assert [node.op_type for node in onnx_agreement.model(function, X).graph.node] == ["Mul", "Identity"]


def test_an_unknown_operation_is_named():
    with pytest.raises(ConfigError, match=r"ONNX export knows no counterpart of the operation 'sort'.*use --format=stablehlo"):
        onnx_agreement.model(jnp.sort, X)
