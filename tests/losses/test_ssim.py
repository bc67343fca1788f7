import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax.losses import ssim
from dd_jax.losses.photometric import ssim_distance, target_statistics


def arrays(channels, seed=0):
    x, y = np.random.default_rng(seed).uniform(size=(2, 2, 12, 16, channels)).astype(np.float32)
    return jnp.asarray(x), jnp.asarray(y)


def test_small_windows_of_three_channels_are_what_the_losses_compute():
    x, y = arrays(3)
    np.testing.assert_allclose(ssim.distance(x, ssim.moments(y, 1), 1), ssim_distance(x, target_statistics(y)), atol=1e-5)


@pytest.mark.parametrize("reach", [1, 3])
def test_equal_arrays_have_no_distance_and_opposite_ones_at_most_one(reach):
    x, y = arrays(5)
    np.testing.assert_allclose(ssim.distance(x, ssim.moments(x, reach), reach), 0, atol=1e-5)
    far = ssim.distance(x, ssim.moments(-y, reach), reach)
    assert far.min() >= 0 and far.max() <= 1


def test_gradients_of_constant_pictures_are_finite():
    flat = jnp.full((1, 8, 8, 3), 0.5)
    gradient = jax.grad(lambda x: ssim.distance(x, ssim.moments(flat, 1), 1).sum())(flat)
    assert jnp.isfinite(gradient).all()
