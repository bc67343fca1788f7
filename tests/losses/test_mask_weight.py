import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax.config import LossConfig
from dd_jax.losses.mask_weight import mask_weights


@pytest.fixture
def masks():
    """Sample 0: no object; 1: half of the target, a quarter of it in all frames; 2: only objects."""
    masks = np.zeros((3, 3, 4, 8), bool)
    masks[1, :, :, :2] = True
    masks[1, 1, :, :4] = True
    masks[2] = True
    return jnp.asarray(masks)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"mask_weight": "less"}, [1, 0.5, 0]),
        ({"mask_weight": "more"}, [0, 0.5, 1]),
        ({"mask_weight": "less", "mask_area": "intersection", "mask_power": 0.5}, [1, 0.75**0.5, 0]),
        ({"mask_weight": "more", "mask_area": "intersection"}, [0, 0.25, 1]),
    ],
)
def test_weight_depends_on_the_object_share(masks, fields, expected):
    np.testing.assert_allclose(mask_weights(masks, LossConfig(**fields)), expected, rtol=1e-6)
