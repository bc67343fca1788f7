import numpy as np

from dd_jax.config import DataConfig
from dd_jax.data.random_batch import random_batch


def test_random_batch_matches_loader_format():
    batch = random_batch(DataConfig(height=64, width=96), 3)
    assert {name: (x.shape, x.dtype) for name, x in vars(batch).items() if x is not None} == {
        "images": ((3, 3, 64, 96, 3), np.uint8),
        "masks": ((3, 3, 64, 96), bool),
        "K": ((3, 3, 3), np.float32),
        "exists": ((3, 3), bool),
        "seed": ((3,), np.uint32),
    }
    np.testing.assert_allclose(batch.masks.mean(), 1 / 6, atol=0.01)  # a third of the rows, half of the columns
    np.testing.assert_array_equal(batch.images[:, 0, :, 2:], batch.images[:, 1, :, :-2])  # the images drift by two pixels


def test_masks_and_priors_follow_config():
    batch = random_batch(DataConfig(height=64, width=96, masks="none", priors="files"), 2, num_frames=2)
    assert not batch.masks.any() and batch.images.shape[1] == batch.exists.shape[1] == 2
    assert batch.prior.shape == (2, 64, 96) and batch.prior.dtype == np.uint16 and batch.prior.min() > 0
