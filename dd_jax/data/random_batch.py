"""A random batch without a data set, for measuring cost."""

import numpy as np

from dd_jax.config import DataConfig
from dd_jax.types import Batch


def random_batch(data: DataConfig, batch_size: int, num_frames: int = 3) -> Batch:
    """A batch in the loader's format: smooth random images that shift slightly between frames, a third of each an object.

    Args:
      data: sets the size and whether there are masks and prior depth.
      num_frames: 2 for (t-k, t), or 3.
    """
    rng = np.random.default_rng(0)
    height, width = data.height, data.width
    noise = rng.integers(0, 256, (batch_size, height // 8, width // 8 + 2, 3), np.uint8)
    wide = noise.repeat(8, axis=1).repeat(8, axis=2)
    images = np.stack([wide[:, :, 4 + 2 * f : 4 + 2 * f + width] for f in range(num_frames)], axis=1)
    masks = np.zeros((batch_size, num_frames, height, width), bool)
    masks[..., height // 3 : 2 * height // 3, width // 4 : 3 * width // 4] = data.masks != "none"
    K = np.array([[0.58 * width, 0, 0.5 * width], [0, 1.92 * height, 0.5 * height], [0, 0, 1]], np.float32)
    prior = None
    if data.priors != "none":
        prior = rng.integers(1, 2**16, (batch_size, height // 8, width // 8), np.uint16).repeat(8, axis=1).repeat(8, axis=2)
    return Batch(
        images=images,
        masks=masks,
        K=np.broadcast_to(K, (batch_size, 3, 3)).copy(),
        exists=np.ones((batch_size, num_frames), bool),
        seed=np.arange(batch_size, dtype=np.uint32),
        prior=prior,
    )
