import jax
import jax.numpy as jnp
import numpy as np

from dd_jax.runtime import reduce


def devices():
    return jax.local_device_count()


def test_masked_mean_over_devices_equals_global_mean():
    # One device has almost no valid pixels, so a mean of means would be wrong.
    n = devices()
    x = jax.random.uniform(jax.random.key(0), (n, 3, 8))
    keep = jax.random.uniform(jax.random.key(1), x.shape) < jnp.linspace(0.05, 0.95, n)[:, None, None]
    mask = keep.astype(jnp.float32)
    everywhere = jax.pmap(lambda x, m: reduce.masked_mean(x, m, "d"), axis_name="d")(x, mask)
    np.testing.assert_allclose(everywhere, jnp.full(n, x[keep].mean()), rtol=1e-5)
    mean_of_means = ((x * mask).sum((1, 2)) / mask.sum((1, 2))).mean()
    assert n == 1 or abs(mean_of_means - x[keep].mean()) > 1e-3
    np.testing.assert_allclose(reduce.masked_mean(x, mask, None), x[keep].mean(), rtol=1e-5)


def test_gradients_over_devices_equal_global_gradient():
    n = devices()
    x = jax.random.uniform(jax.random.key(2), (n, 5))
    mask = (jax.random.uniform(jax.random.key(3), x.shape) < 0.5).astype(jnp.float32)
    slope = jnp.float32(1.5)

    def loss(slope, x, m, axis):
        return reduce.masked_mean((slope * x) ** 2, m, axis) + reduce.mean(slope * x, axis)

    split = jax.pmap(lambda s, x, m: jax.lax.pmean(jax.grad(loss)(s, x, m, "d"), "d"), axis_name="d", in_axes=(None, 0, 0))(
        slope, x, mask
    )
    np.testing.assert_allclose(split, jnp.full(n, jax.grad(loss)(slope, x, mask, None)), rtol=1e-5)


def test_mean_over_dims():
    x = jnp.arange(24.0).reshape(2, 3, 4)
    np.testing.assert_allclose(reduce.mean(x, None, dims=(1, 2)), x.mean((1, 2)))
    mask = (x % 2 == 0).astype(jnp.float32)
    np.testing.assert_allclose(reduce.masked_mean(x, mask, None, dims=(2,)), (x * mask).sum(2) / mask.sum(2), rtol=1e-6)


def test_empty_mask_gives_zero_and_finite_gradient():
    x, empty = jnp.ones(7), jnp.zeros(7)
    assert reduce.masked_mean(x, empty, None) == 0
    np.testing.assert_array_equal(jax.grad(lambda x: reduce.masked_mean(x, empty, None))(x), 0)
