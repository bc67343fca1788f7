import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from dd_jax.networks import layers
from dd_jax.networks.layers import BatchNorm, Conv, ConvBN, Draws
from dd_jax.runtime import forms

AXIS = "devices"


def random(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape, np.float32))


def naive_conv(x, kernel, stride, padding):
    """Cross-correlation, one output pixel after the other."""
    size = kernel.shape[0]
    x = np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    rows = range(0, x.shape[1] - size + 1, stride)
    columns = range(0, x.shape[2] - size + 1, stride)
    pixels = [[np.einsum("bijc,ijco->bo", x[:, r : r + size, c : c + size], kernel) for c in columns] for r in rows]
    return np.moveaxis(np.array(pixels), 2, 0)


@pytest.mark.parametrize(
    ("size", "stride", "padding", "outputs"), [(3, 1, 1, 5), (3, 1, 0, 1), (3, 2, 1, 5), (7, 2, 3, 5), (2, 1, 0, 5), (1, 2, 0, 5)]
)
@pytest.mark.parametrize("form", forms.OPERATIONS["kernel_gradient"])
def test_convolution_and_its_gradients(form, size, stride, padding, outputs):
    x, kernel = random(2, 8, 10, 4), random(size, size, 4, outputs, seed=1)
    y = layers.conv(x, kernel, stride, padding)
    np.testing.assert_allclose(y, naive_conv(x, kernel, stride, padding), atol=1e-4)

    def objective(conv):
        return lambda x, kernel: jnp.sum(conv(x, kernel) * random(*y.shape, seed=2))

    def plain(x, kernel):
        return jax.lax.conv_general_dilated(
            x, kernel, (stride, stride), [(padding, padding)] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    with forms.use(kernel_gradient=form):
        ours = jax.grad(objective(lambda x, kernel: layers.conv(x, kernel, stride, padding)), (0, 1))(x, kernel)
    for a, b in zip(ours, jax.grad(objective(plain), (0, 1))(x, kernel)):
        np.testing.assert_allclose(a, b, atol=1e-4)


@pytest.mark.parametrize(("pad", "mode"), [(layers.reflect_pad, "reflect"), (layers.edge_pad, "edge")])
@pytest.mark.parametrize("shape", [(2, 5, 6, 3), (1, 2, 3, 2)])
def test_padding_and_its_gradient(pad, mode, shape):
    x = random(*shape)
    expected = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode=mode)
    np.testing.assert_array_equal(pad(x), expected)
    # The gradient is the transpose: <pad x, g> = <x, pad' g>.
    g = random(*expected.shape, seed=1)
    (back,) = jax.vjp(pad, x)[1](g)
    np.testing.assert_allclose(np.sum(expected * g), np.sum(x * back), rtol=1e-4)
    (back,) = jax.vjp(pad, x)[1](jnp.zeros_like(expected).at[0, 0, 0, 0].set(1))
    source = 1 if mode == "reflect" else 0
    assert back[0, source, source, 0] == 1
    assert np.count_nonzero(back) == 1


@pytest.mark.parametrize("form", forms.OPERATIONS["upsampled_conv"])
@pytest.mark.parametrize("shape", [(2, 4, 6, 3), (1, 1, 2, 2)])
def test_upsampled_conv_equals_upsample_pad_convolve(shape, form):
    x, kernel = random(*shape), random(3, 3, shape[-1], 4, seed=1)

    def step_by_step(x, kernel):
        up = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
        return layers.conv(jnp.pad(up, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect"), kernel, 1, 0)

    expected, pullback = jax.vjp(step_by_step, x, kernel)
    g = random(*expected.shape, seed=2)
    with forms.use(upsampled_conv=form):
        value, our_pullback = jax.vjp(layers.upsampled_conv, x, kernel)
        ours = our_pullback(g)
    np.testing.assert_allclose(value, expected, atol=1e-5)
    for a, b in zip(ours, pullback(g)):
        np.testing.assert_allclose(a, b, atol=1e-4)


@pytest.mark.parametrize("form", forms.OPERATIONS["strided_product"])
def test_strided_kernel_of_one_pixel_equals_a_product_of_every_second_pixel(form):
    x, kernel, g = random(2, 5, 8, 3), random(1, 1, 3, 4, seed=1), random(2, 3, 4, 4, seed=2)
    expected, pullback = jax.vjp(lambda x, kernel: x[:, ::2, ::2] @ kernel[0, 0], x, kernel)
    with forms.use(strided_product=form):
        value, our_pullback = jax.vjp(lambda x, kernel: layers.conv(x, kernel, 2, 0), x, kernel)
        ours = our_pullback(g)
    np.testing.assert_allclose(value, expected, atol=1e-6)
    for a, b in zip(ours, pullback(g)):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_max_pool_pads_with_minus_infinity():
    x = -1 - jnp.abs(random(2, 6, 8, 3))  # zero padding would win against negative values
    expected = np.full((2, 3, 4, 3), -np.inf, np.float32)
    for r in range(3):
        for c in range(4):
            window = x[:, max(0, 2 * r - 1) : 2 * r + 2, max(0, 2 * c - 1) : 2 * c + 2]
            expected[:, r, c] = window.max(axis=(1, 2))
    np.testing.assert_array_equal(layers.max_pool(x), expected)
    gradient = jax.grad(lambda x: jnp.sum(layers.max_pool(x)))(x)
    assert set(np.unique(gradient)) <= {0, 1, 2, 3, 4}, "each maximum receives its window's gradient, whole"
    assert np.sum(gradient) == expected.size
    gradient = jax.grad(lambda x: jnp.sum(layers.max_pool(x)))(jnp.ones_like(x))
    assert np.sum(gradient) == expected.size and set(np.unique(gradient)) <= {0, 1, 2, 3, 4}, "of equal ones one has it all"


def test_stride_two_starts_at_the_first_pixel():
    """An even-sized image: PyTorch pads both sides alike, so output (0, 0) is centred on pixel (0, 0)."""
    kernel = jnp.zeros((3, 3, 1, 1)).at[1, 1].set(1)
    x = random(1, 6, 8, 1)
    np.testing.assert_array_equal(layers.conv(x, kernel, 2, 1), x[:, ::2, ::2])


def test_batch_norm_in_training_and_evaluation():
    x = 3 + 2 * random(2, 4, 5, 3)
    norm = BatchNorm(3)
    norm.scale[...], norm.bias[...] = jnp.array([1.0, 2.0, 3.0]), jnp.array([0.0, 0.5, 1.0])
    scale, bias = np.array([1.0, 2.0, 3.0]), np.array([0.0, 0.5, 1.0])
    pixels = np.asarray(x, np.float64)
    mean, var = pixels.mean(axis=(0, 1, 2)), pixels.var(axis=(0, 1, 2))
    np.testing.assert_allclose(norm(x), (x - mean) / np.sqrt(var + 1e-5) * scale + bias, atol=1e-5)
    count = 2 * 4 * 5
    np.testing.assert_allclose(norm.mean[...], 0.1 * mean, rtol=1e-5)
    np.testing.assert_allclose(norm.var[...], 0.9 + 0.1 * var * count / (count - 1), rtol=1e-5)

    norm.eval()
    before = np.array(norm.mean[...]), np.array(norm.var[...])
    np.testing.assert_allclose(norm(x), (x - before[0]) / np.sqrt(before[1] + 1e-5) * scale + bias, atol=1e-5)
    np.testing.assert_array_equal(norm.mean[...], before[0])
    np.testing.assert_array_equal(norm.var[...], before[1])


def test_batch_norm_gradient_matches_the_formula():
    x, g = random(2, 3, 4, 2), random(2, 3, 4, 2, seed=1)
    graph, *state = nnx.split(BatchNorm(2), nnx.Param, nnx.BatchStat)

    def ours(x):
        return jnp.sum(nnx.merge(graph, *state, copy=True)(x) * g)

    def formula(x):
        mean = jnp.mean(x, (0, 1, 2))
        return jnp.sum((x - mean) / jnp.sqrt(jnp.var(x, (0, 1, 2)) + 1e-5) * g)

    np.testing.assert_allclose(jax.grad(ours)(x), jax.grad(formula)(x), atol=1e-5)


def test_batch_norm_on_two_devices_equals_one():
    x, g = 1 + random(4, 3, 4, 2), random(4, 3, 4, 2, seed=1)

    def run(x, g, axis):
        graph, params, stats = nnx.split(ConvBN(2, 3, 3, draws=Draws(0), axis=axis), nnx.Param, nnx.BatchStat)

        def objective(params):
            layer = nnx.merge(graph, params, stats, copy=True)
            value = jnp.sum(jnp.tanh(layer(x))[..., :2] * g)
            return value, nnx.to_pure_dict(nnx.state(layer, nnx.BatchStat))

        grads, running = jax.grad(objective, has_aux=True)(nnx.to_pure_dict(params))
        return (grads if axis is None else jax.lax.psum(grads, axis)), running

    grads, running = run(x, g, None)
    split = [a.reshape(2, 2, *a.shape[1:]) for a in (x, g)]
    mapped = jax.pmap(lambda x, g: run(x, g, AXIS), AXIS, out_axes=None, devices=jax.devices()[:2])(*split)
    for one, two in zip(jax.tree.leaves((grads, running)), jax.tree.leaves(mapped)):
        np.testing.assert_allclose(one, two, atol=1e-5)


def test_initial_values_have_the_distribution_of_pytorch():
    conv = Conv(64, 128, 3, draws=Draws(0))
    bound = 1 / np.sqrt(64 * 9)
    for values in (conv.kernel[...], conv.bias[...]):
        assert np.max(np.abs(values)) <= bound
        np.testing.assert_allclose(np.std(values), bound / np.sqrt(3), rtol=0.1)
    kernel = ConvBN(32, 128, 3, draws=Draws(0)).kernel[...]
    np.testing.assert_allclose(np.std(kernel), np.sqrt(2 / (128 * 9)), rtol=0.02)


def test_batch_norm_groups_equal_separate_calls():
    x = jnp.asarray(np.random.default_rng(0).normal(1.0, 2.0, (6, 4, 5, 3)), jnp.float32)
    apart, together = (BatchNorm(3) for _ in range(2))
    together.groups = 2
    one_after_another = [apart(x[group::2]) for group in range(2)]
    at_once = together(x)
    for group in range(2):
        np.testing.assert_allclose(at_once[group::2], one_after_another[group], atol=1e-6)
    np.testing.assert_allclose(together.mean[...], apart.mean[...], rtol=1e-6)
    np.testing.assert_allclose(together.var[...], apart.var[...], rtol=1e-6)
