import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax.losses import ssim


def arrays(channels, seed=0):
    x, y = np.random.default_rng(seed).uniform(size=(2, 2, 12, 16, channels)).astype(np.float32)
    return jnp.asarray(x), jnp.asarray(y)


def test_both_layouts_agree():
    x, y = arrays(3)
    reference = ssim.reference(y)
    planes = ssim.distance_of(ssim.moments(ssim.planes(x), reference), reference)
    np.testing.assert_allclose(ssim.distance(x, ssim.windowed(y, 1), 1), jnp.moveaxis(planes, 1, -1), atol=1e-5)


@pytest.mark.parametrize("radius", [1, 3])
def test_distance_is_zero_for_equal_arrays_and_at_most_one(radius):
    x, y = arrays(5)
    np.testing.assert_allclose(ssim.distance(x, ssim.windowed(x, radius), radius), 0, atol=1e-5)
    far = ssim.distance(x, ssim.windowed(-y, radius), radius)
    assert far.min() >= 0 and far.max() <= 1


def test_gradient_is_finite_for_constant_images():
    flat = jnp.full((1, 8, 8, 3), 0.5)
    gradient = jax.grad(lambda x: ssim.distance(x, ssim.windowed(flat, 1), 1).sum())(flat)
    assert jnp.isfinite(gradient).all()
