import jax
import jax.numpy as jnp
import numpy as np
import onnx_agreement
import pytest

from dd_jax.config import ConfigError

RNG = np.random.default_rng(0)
X = RNG.standard_normal((2, 6, 8, 4)).astype(np.float32)
KERNEL = RNG.standard_normal((3, 3, 4, 5)).astype(np.float32)
NUMBERS = ("NHWC", "HWIO", "NHWC")


@pytest.mark.parametrize(("stride", "padding", "dilation"), [(1, (1, 1), 1), (2, (1, 1), 1), (1, (0, 2), 2)])
def test_convolution(stride, padding, dilation):
    def function(x):
        return jax.lax.conv_general_dilated(
            x, KERNEL, (stride,) * 2, (padding,) * 2, rhs_dilation=(dilation,) * 2, dimension_numbers=NUMBERS
        )

    onnx_agreement.check(function, X, symbolic=True, atol=1e-5)


def test_transposed_convolution():
    def function(x):
        return jax.lax.conv_transpose(x, KERNEL.swapaxes(2, 3), (2, 2), ((1, 2), (1, 2)), transpose_kernel=True)

    onnx_agreement.check(function, X, symbolic=True, atol=1e-5)


def test_kernels_are_transposed_once():
    """At conversion, not at every run of the model."""
    model = onnx_agreement.model(
        lambda x: jax.lax.conv_general_dilated(x, 2 * KERNEL, (1, 1), "SAME", dimension_numbers=NUMBERS), X, symbolic=True
    )
    assert [node.op_type for node in model.graph.node] == ["Transpose", "Conv", "Transpose", "Identity"]
    assert [tuple(tensor.dims) for tensor in model.graph.initializer] == [(5, 4, 3, 3)]


def test_matrix_products():
    onnx_agreement.check(
        lambda x: [
            x @ KERNEL[0, 0],
            jnp.einsum("...c,c->...", x, KERNEL[0, 0, :, 0]),
            jnp.einsum("bhwc,hd->bdwc", x, KERNEL.reshape(6, -1)),
            jnp.einsum("bhwc,bhvc->bhwv", x, x),
            jax.image.resize(x, (x.shape[0], 12, 16, 4), "bilinear"),
        ],
        X,
        symbolic=True,
        atol=1e-5,
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"padding": ((-1, 1), (0, 0))}, "negative padding of a convolution"),
        ({"padding": "SAME", "batch_group_count": 2}, "batch groups of a convolution"),
    ],
)
def test_unsupported_raises(given, message):
    kernel = KERNEL[..., :4]
    with pytest.raises(ConfigError, match=message):
        onnx_agreement.model(lambda x: jax.lax.conv_general_dilated(x, kernel, (1, 1), dimension_numbers=NUMBERS, **given), X)
