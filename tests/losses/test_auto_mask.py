import jax
import jax.numpy as jnp
import numpy as np

from dd_jax.config import LossConfig
from dd_jax.losses import auto_mask as module
from dd_jax.losses import ssim


@jax.jit
def auto_mask(error, originals, statistics, exists, noise):
    return module.auto_mask(error, originals, statistics, exists, noise, LossConfig())


def noise(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).random(shape, np.float32))


def test_auto_mask_drops_static_pixels():
    target = noise(9, 1, 6, 8, 3)
    statistics, exists, silence = ssim.reference(target), jnp.ones((1, 2), bool), jnp.zeros((1, 6, 8))
    standing, other = jnp.stack([target, noise(10, 1, 6, 8, 3)]), noise(11, 2, 1, 6, 8, 3)
    error = jnp.full((1, 1, 6, 8), 0.05)
    assert not auto_mask(error, standing, statistics, exists, silence).any()
    assert auto_mask(error, other, statistics, exists, silence).all()
    # The static frame does not exist: only the other one can mask pixels.
    assert auto_mask(error, standing, statistics, jnp.array([[False, True]]), silence).all()
    # Equal errors: the noise decides.
    np.testing.assert_array_equal(
        auto_mask(jnp.zeros((1, 1, 6, 8)), standing, statistics, exists, silence.at[0, 0].set(-1.0))[0, 0, 0], False
    )
