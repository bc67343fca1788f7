"""Convolution, batch normalisation, pooling and padding with PyTorch's conventions; published weights import exactly.

A layer computes in the precision of its kernel; batch statistics are always float32.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

from dd_jax.runtime import forms, reduce

BN_EPS = 1e-5
CONVOLUTIONS, STATISTICS = "convolutions", "statistics"
"""Names of intermediate results, for :func:`rematerialised`."""

BN_MOMENTUM = 0.9  # share of the old running value that is kept; PyTorch calls the other 0.1 "momentum"


def normalise(image: Float[Array, "*b h w c"]) -> Float[Array, "*b h w c"]:
    """RGB in [0, 1] -> roughly zero mean and unit variance; the same two constants for every channel (Monodepth2)."""
    return (image - 0.45) / 0.225


class Draws:
    """Source of initial parameters: numpy's generator, because compiling hundreds of random draws would slow the start.

    Without a seed it yields zeros, which is enough for abstract evaluation.
    """

    def __init__(self, seed: int | None = None):
        self._rng = None if seed is None else np.random.default_rng(seed)

    def torch_uniform(self, fan_in: int, shape: tuple[int, ...]) -> jax.Array:
        """PyTorch's default for kernels and biases: uniform in +- 1 / sqrt(fan_in)."""
        if self._rng is None:
            return jnp.zeros(shape)
        return jnp.asarray((2 * self._rng.random(shape, np.float32) - 1) / math.sqrt(fan_in))

    def kaiming_normal(self, fan_out: int, shape: tuple[int, ...]) -> jax.Array:
        """Normal distribution with ReLU gain, as in ResNet (He et al. 2015)."""
        if self._rng is None:
            return jnp.zeros(shape)
        return jnp.asarray(self._rng.standard_normal(shape, np.float32) * np.float32(math.sqrt(2 / fan_out)))


def rematerialised(kept: str, part: Callable, module: nnx.Module, *inputs: jax.Array) -> jax.Array:
    """``part(module, *inputs)``, with some intermediate results recomputed for the gradient instead of kept.

    Args:
      kept: "none" = all, nothing is recomputed | "convolutions" = results of convolutions | "blocks" = the last result.
    """
    if kept == "none":
        return part(module, *inputs)
    names = {"convolutions": (CONVOLUTIONS, STATISTICS), "blocks": (STATISTICS,)}[kept]
    return nnx.remat(part, policy=jax.checkpoint_policies.save_only_these_names(*names))(module, *inputs)


class Conv(nnx.Module):
    """Square convolution with bias and PyTorch's default initialisation; HWIO kernel, zero padding."""

    def __init__(self, inputs: int, outputs: int, size: int, *, stride: int = 1, padding: int = 0, draws: Draws):
        self.stride, self.padding = stride, padding
        fan_in = inputs * size * size
        self.kernel = nnx.Param(draws.torch_uniform(fan_in, (size, size, inputs, outputs)))
        self.bias = nnx.Param(draws.torch_uniform(fan_in, (outputs,)))

    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b h2 w2 o"]:
        return plus(conv(x, self.kernel[...], self.stride, self.padding), self.bias[...])


class TransposedConv(nnx.Module):
    """Transposed 3x3 convolution that exactly doubles the size (stride 2, PyTorch's output padding 1), with bias.

    The kernel is that of the convolution whose gradient this is: (row, column, outputs, inputs).
    """

    def __init__(self, inputs: int, outputs: int, *, draws: Draws):
        fan_in = outputs * 9  # as PyTorch counts it
        self.kernel = nnx.Param(draws.torch_uniform(fan_in, (3, 3, outputs, inputs)))
        self.bias = nnx.Param(draws.torch_uniform(fan_in, (outputs,)))

    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b 2*h 2*w o"]:
        kernel = self.kernel[...]
        grown = jax.lax.conv_transpose(x.astype(kernel.dtype), kernel, (2, 2), ((1, 2), (1, 2)), transpose_kernel=True)
        return plus(checkpoint_name(grown, CONVOLUTIONS), self.bias[...])


def plus(x: Float[Array, "*b c"], bias: Float[Array, " c"]) -> Float[Array, "*b c"]:
    """The sum in the precision of ``x``."""
    return x + bias.astype(x.dtype)


def conv(x: Float[Array, "b h w i"], kernel: Float[Array, "s s i o"], stride: int, padding: int) -> Float[Array, "b h2 w2 o"]:
    """Cross-correlation with ``padding`` zeros on every side; XLA's "SAME" would shift stride-2 features by a pixel."""
    x = x.astype(kernel.dtype)
    if kernel.shape[:2] != (1, 1):
        y = _conv(x, kernel, stride, padding)
    elif stride == 1:
        y = x @ kernel[0, 0]
    else:
        y = _strided_product(stride)(x, kernel)
    return checkpoint_name(y, CONVOLUTIONS)


def _xla_conv(x: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), ((padding, padding),) * 2, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


_conv = jax.custom_vjp(_xla_conv, nondiff_argnums=(2, 3))


def _conv_forward(x: jax.Array, kernel: jax.Array, stride: int, padding: int) -> tuple:
    return _xla_conv(x, kernel, stride, padding), (x, kernel)


def _conv_backward(stride: int, padding: int, saved: tuple, grad: jax.Array) -> tuple:
    x, kernel = saved
    size, _, inputs, outputs = kernel.shape

    def by_convolution(x: jax.Array, grad: jax.Array, padding: int) -> jax.Array:
        return jax.linear_transpose(lambda kernel: _xla_conv(x, kernel, stride, padding), kernel)(grad)[0]

    def products(x: jax.Array, grad: jax.Array) -> jax.Array:
        # The plain transpose convolves with a kernel as large as the image, 2 to 20 times slower than the forward pass. Eigen is
        # fast if the padding is explicit and the stride is 1; otherwise one matrix product per kernel row is.
        x = _zero_pad(x, padding)
        if size == 3 and stride == 1:
            return by_convolution(x, grad, 0)
        rows = [_row(x, i, size, stride, grad.shape).reshape(-1, size * inputs) for i in range(size)]
        return jnp.stack([row.T @ grad.reshape(-1, outputs) for row in rows]).reshape(kernel.shape)

    def transpose(x: jax.Array, grad: jax.Array) -> jax.Array:
        return by_convolution(x, grad, padding)

    (grad_x,) = jax.linear_transpose(lambda x: _xla_conv(x, kernel, stride, padding), x)(grad)
    return grad_x, forms.choose("kernel_gradient", {"products": products, "transpose": transpose}, x, grad)


_conv.defvjp(_conv_forward, _conv_backward)


def _with_forms(operation: str, by_form: dict[str, Callable[..., jax.Array]]) -> Callable[..., jax.Array]:
    """A function of an image and a kernel, which takes the form of the backend forward and backward."""

    def transposed(form: Callable[..., jax.Array]) -> Callable[..., tuple[jax.Array, ...]]:
        return lambda x, kernel, grad: jax.vjp(form, x, kernel)[1](grad)

    backward = {name: transposed(form) for name, form in by_form.items()}
    apply = jax.custom_vjp(lambda x, kernel: forms.choose(operation, by_form, x, kernel))
    apply.defvjp(
        lambda x, kernel: (apply(x, kernel), (x, kernel)), lambda saved, grad: forms.choose(operation, backward, *saved, grad)
    )
    return apply


@functools.cache
def _strided_product(stride: int) -> Callable[..., jax.Array]:
    """Convolution with a kernel of one pixel. The compiler of jaxlib 0.10.2 for GPUs aborts on the product of a strided slice."""
    by_form = {
        "product": lambda x, kernel: x[:, ::stride, ::stride] @ kernel[0, 0],
        "convolution": lambda x, kernel: _conv(x, kernel, stride, 0),
    }
    return _with_forms("strided_product", by_form)


def _zero_pad(x: jax.Array, border: int) -> jax.Array:
    return jnp.pad(x, ((0, 0), (border, border), (border, border), (0, 0)))


def _row(x: jax.Array, i: int, size: int, stride: int, shape: tuple[int, ...]) -> jax.Array:
    """Inputs of kernel row ``i`` for each of the ``shape[1:3]`` outputs, concatenated: (b, h, w, size * c)."""
    h, w = (stride * (n - 1) + 1 for n in shape[1:3])
    return jnp.concatenate([x[:, i : i + h : stride, j : j + w : stride] for j in range(size)], axis=-1)


_FOLD_AXIS = np.array([[[1, 1, 0], [0, 0, 1]], [[1, 0, 0], [0, 1, 1]]], np.float32)
FOLD = np.einsum("pyr,qxc->yxpqrc", _FOLD_AXIS, _FOLD_AXIS).reshape(16, 9)
"""Taps of a 3x3 kernel that fall on the same pixel after up-sampling: [small taps y, x; odd or even output y, x] of 9 taps."""


def upsampled_conv(x: Float[Array, "b h w i"], kernel: Float[Array, "3 3 i o"]) -> Float[Array, "b 2*h 2*w o"]:
    """``conv(reflect_pad(upsample(x)), kernel)`` with nearest up-sampling by two."""
    return checkpoint_name(_upsampled_conv(x.astype(kernel.dtype), kernel), CONVOLUTIONS)


def _plain(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return _conv(reflect_pad(jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)), kernel, 1, 0)


def _folded(x: jax.Array, kernel: jax.Array) -> jax.Array:
    # In 4/9 of the products: a 3x3 window on the up-sampled image covers 2x2 different pixels, so the nine taps fold into four,
    # differently for even and odd rows and columns: four kernels at the corners of the small image. Reflection of the large
    # image equals edge padding of the small one.
    b, h, w, inputs = x.shape
    outputs = kernel.shape[3]
    folded = jnp.dot(FOLD, kernel.reshape(9, -1), precision="highest").reshape(2, 2, 2, 2, inputs, outputs)
    folded = folded.transpose(0, 1, 4, 2, 3, 5).reshape(2, 2, inputs, 4 * outputs).astype(kernel.dtype)
    corners = _conv(edge_pad(x), folded, 1, 0).reshape(b, h + 1, w + 1, 2, 2, outputs)
    return corners.transpose(0, 1, 3, 2, 4, 5).reshape(b, 2 * h + 2, 2 * w + 2, outputs)[:, 1:-1, 1:-1]


_upsampled_conv = _with_forms("upsampled_conv", {"folded": _folded, "plain": _plain})


class ConvBN(nnx.Module):
    """Bias-free convolution and batch normalisation."""

    def __init__(self, inputs: int, outputs: int, size: int, *, stride: int = 1, draws: Draws, axis: str | None = None):
        self.stride, self.padding = stride, size // 2
        self.kernel = nnx.Param(draws.kaiming_normal(outputs * size * size, (size, size, inputs, outputs)))
        self.norm = BatchNorm(outputs, axis=axis)

    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b h2 w2 o"]:
        return self.norm(conv(x, self.kernel[...], self.stride, self.padding))


class BatchNorm(nnx.Module):
    """Batch normalisation over all samples and pixels of all devices (``axis``), with PyTorch's running statistics.

    Normalises with the biased variance, keeps the unbiased one. ``.eval()`` switches to the running statistics. With
    ``groups`` = n the samples belong to n interleaved batches, each with its own statistics, as if the layer had been called
    once per batch.
    """

    def __init__(self, channels: int, *, axis: str | None = None):
        self.axis = axis
        self.use_running_average = False
        self.groups = 1
        self.scale = nnx.Param(jnp.ones(channels))
        self.bias = nnx.Param(jnp.zeros(channels))
        self.mean = nnx.BatchStat(jnp.zeros(channels))
        self.var = nnx.BatchStat(jnp.ones(channels))

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        if self.use_running_average:
            return self._apply(x, self.mean[...], self.var[...])
        grouped = x.reshape(-1, self.groups, *x.shape[1:])
        exact = grouped.astype(jnp.float32)
        mean = checkpoint_name(reduce.mean(exact, self.axis, (0, 2, 3), keepdims=True), STATISTICS)
        # The derivative of the variance by the mean is zero; stopping it saves a pass of the backward computation.
        var = reduce.mean(jnp.square(exact - jax.lax.stop_gradient(mean)), self.axis, (0, 2, 3), keepdims=True)
        var = checkpoint_name(var, STATISTICS)
        count = x.size // (x.shape[-1] * self.groups) * (1 if self.axis is None else jax.lax.axis_size(self.axis))
        for group in range(self.groups):
            self._update_running(self.mean, mean[0, group, 0, 0])
            self._update_running(self.var, var[0, group, 0, 0] * (count / (count - 1)))
        return self._apply(grouped, mean, var).reshape(x.shape)

    def _apply(self, x: jax.Array, mean: jax.Array, var: jax.Array) -> jax.Array:
        factor = self.scale[...] * jax.lax.rsqrt(var + BN_EPS)
        return (x * factor + (self.bias[...] - mean * factor)).astype(x.dtype)

    @staticmethod
    def _update_running(running: nnx.BatchStat, batch: jax.Array) -> None:
        # Not `running[...] = `: that queries the sharding of a tracer, which takes a third of the tracing time.
        running.set_value(BN_MOMENTUM * running[...] + (1 - BN_MOMENTUM) * jax.lax.stop_gradient(batch))


def max_pool(x: Float[Array, "b h w c"]) -> Float[Array, "b h/2 w/2 c"]:
    """3x3 maximum, stride 2, outside = -inf; even sides.

    Rows, then columns, by elementwise selection: the gradient of a windowed maximum is slow on a CPU, and that of `jnp.maximum`
    tests which argument equals the result, which fails when the compiler computes an argument twice with other rounding.
    """
    return _max_pool_axis(_max_pool_axis(x, 1), 2)


def _max_pool_axis(x: jax.Array, axis: int) -> jax.Array:
    even, odd = jnp.moveaxis(x.reshape(*x.shape[:axis], -1, 2, *x.shape[axis + 1 :]), axis + 1, 0)
    before = [(int(i == axis), -int(i == axis), 0) for i in range(x.ndim)]
    largest, previous = jnp.where(odd > even, odd, even), jax.lax.pad(odd, jnp.array(-jnp.inf, x.dtype), before)
    return jnp.where(previous >= largest, previous, largest)


def reflect_pad(x: Float[Array, "b h w c"]) -> Float[Array, "b h+2 w+2 c"]:
    """One pixel of reflection on each side; the border pixel itself is not repeated."""
    return _pad_from_inside(x, 1)


def edge_pad(x: Float[Array, "b h w c"]) -> Float[Array, "b h+2 w+2 c"]:
    """Repeats the border pixel once on each side."""
    return _pad_from_inside(x, 0)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _pad_from_inside(x: jax.Array, depth: int) -> jax.Array:
    """Pads one pixel on each side, copied from ``depth`` pixels inside the border."""
    for axis in (1, 2):
        n = x.shape[axis]
        first, last = (jax.lax.slice_in_dim(x, i, i + 1, axis=axis) for i in (depth, n - 1 - depth))
        x = jnp.concatenate([first, x, last], axis=axis)
    return x


def _pad_forward(x: jax.Array, depth: int) -> tuple[jax.Array, None]:
    return _pad_from_inside(x, depth), None


def _pad_backward(depth: int, _: None, grad: jax.Array) -> tuple[jax.Array]:
    # Autodiff would scatter; one elementwise pass is ten times faster.
    for axis in (2, 1):
        n = grad.shape[axis] - 2
        first, inner, last = jnp.split(grad, (1, n + 1), axis)
        position = jax.lax.broadcasted_iota(jnp.int32, inner.shape, axis)
        grad = inner + jnp.where(position == depth, first, 0) + jnp.where(position == n - 1 - depth, last, 0)
    return (grad,)


_pad_from_inside.defvjp(_pad_forward, _pad_backward)
