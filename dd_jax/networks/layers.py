"""Convolution, batch normalisation, pooling and padding with PyTorch's conventions, so that published weights import exactly."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from dd_jax import reduce

BN_EPS = 1e-5
BN_MOMENTUM = 0.9  # share of the old running value that is kept; PyTorch calls the other 0.1 "momentum"


def normalise(image: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    """RGB in [0, 1] -> roughly zero mean and unit variance; the same two constants for every channel (Monodepth2)."""
    return (image - 0.45) / 0.225


def torch_uniform(fan_in: int) -> Callable:
    """PyTorch's default initialiser of kernels and biases: uniform in +- 1 / sqrt(fan_in)."""
    bound = 1 / math.sqrt(fan_in)

    def init(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        return jax.random.uniform(key, shape, minval=-bound, maxval=bound)

    return init


def kaiming_normal(fan_out: int) -> Callable:
    """Normal initialiser with the gain of a ReLU, the residual network's own (He et al. 2015)."""
    std = math.sqrt(2 / fan_out)

    def init(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        return std * jax.random.normal(key, shape)

    return init


class Conv(nnx.Module):
    """Square convolution, HWIO kernel, explicit zero padding (XLA's "SAME" would shift stride-2 features by a pixel)."""

    def __init__(self, inputs: int, outputs: int, size: int, *, stride: int = 1, padding: int = 0, rngs: nnx.Rngs):
        self.stride, self.padding = stride, padding
        init = torch_uniform(inputs * size * size)
        self.kernel = nnx.Param(init(rngs.params(), (size, size, inputs, outputs)))
        self.bias = nnx.Param(init(rngs.params(), (outputs,)))

    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b h2 w2 o"]:
        return conv(x, self.kernel[...], self.stride, self.padding) + self.bias[...]


def conv(x: Float[Array, "b h w i"], kernel: Float[Array, "s s i o"], stride: int, padding: int) -> Float[Array, "b h2 w2 o"]:
    """Cross-correlation with ``padding`` zeros on each side."""
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), ((padding, padding),) * 2, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


class ConvBN(nnx.Module):
    """Bias-free convolution and batch normalisation."""

    def __init__(self, inputs: int, outputs: int, size: int, *, stride: int = 1, rngs: nnx.Rngs, axis: str | None = None):
        self.stride, self.padding = stride, size // 2
        self.kernel = nnx.Param(kaiming_normal(outputs * size * size)(rngs.params(), (size, size, inputs, outputs)))
        self.norm = BatchNorm(outputs, axis=axis)

    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b h2 w2 o"]:
        return self.norm(conv(x, self.kernel[...], self.stride, self.padding))


class BatchNorm(nnx.Module):
    """Batch normalisation over all samples and pixels of all devices (``axis``), with PyTorch's running statistics.

    Normalises with the biased variance, keeps the unbiased one. ``.eval()`` switches to the running statistics.
    """

    def __init__(self, channels: int, *, axis: str | None = None):
        self.axis = axis
        self.use_running_average = False
        self.scale = nnx.Param(jnp.ones(channels))
        self.bias = nnx.Param(jnp.zeros(channels))
        self.mean = nnx.BatchStat(jnp.zeros(channels))
        self.var = nnx.BatchStat(jnp.ones(channels))

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        if self.use_running_average:
            mean, var = self.mean[...], self.var[...]
        else:
            mean = reduce.mean(x, self.axis, (0, 1, 2))
            var = reduce.mean(jnp.square(x - mean), self.axis, (0, 1, 2))
            count = x.size // x.shape[-1] * (1 if self.axis is None else jax.lax.axis_size(self.axis))
            self._remember(self.mean, mean)
            self._remember(self.var, var * (count / (count - 1)))
        factor = self.scale[...] * jax.lax.rsqrt(var + BN_EPS)
        return x * factor + (self.bias[...] - mean * factor)

    @staticmethod
    def _remember(running: nnx.BatchStat, batch: jax.Array) -> None:
        running[...] = BN_MOMENTUM * running[...] + (1 - BN_MOMENTUM) * jax.lax.stop_gradient(batch)


def max_pool(x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
    """3x3 maximum, stride 2, outside = -inf."""
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), ((0, 0), (1, 1), (1, 1), (0, 0)))


def reflect_pad(x: Float[Array, "b h w c"]) -> Float[Array, "b h+2 w+2 c"]:
    """One pixel of reflection on each side; the border pixel itself is not repeated."""
    x = jnp.concatenate([x[:, 1:2], x, x[:, -2:-1]], axis=1)
    return jnp.concatenate([x[:, :, 1:2], x, x[:, :, -2:-1]], axis=2)


def upsample(x: Float[Array, "b h w c"]) -> Float[Array, "b 2*h 2*w c"]:
    """Each pixel becomes a 2x2 block."""
    b, h, w, c = x.shape
    return jnp.broadcast_to(x[:, :, None, :, None], (b, h, 2, w, 2, c)).reshape(b, 2 * h, 2 * w, c)
