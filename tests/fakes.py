"""A source with known depth and predictors that return it, for tests of the evaluation."""

import jax.numpy as jnp
import numpy as np
from tiny import HEIGHT, WIDTH, batch, config

from dd_jax.data.frames import GroundTruth
from dd_jax.data.loader import TripletSource
from dd_jax.types import Predictions


class FakeSource(TripletSource):
    """Images that carry their index, and ground truth at training size, so that nothing is resized."""

    out_of_order = ""

    def __init__(self, samples, measured=True, moving=True, dynamic=True):
        rng = np.random.default_rng(7)
        self.depth = rng.uniform(3, 60, (samples, HEIGHT, WIDTH)).astype(np.float32)
        self.depth[rng.uniform(size=self.depth.shape) < 0.3] = 0
        self.dynamic = rng.uniform(size=self.depth.shape) < 0.3 if dynamic else None
        self.moving = self.dynamic & (rng.uniform(size=self.depth.shape) < 0.5) if moving else None
        self.measured = measured
        self.asked = []

    def __len__(self):
        return len(self.depth)

    def gather(self, indices, num_frames):
        sample = batch(len(indices), frames=num_frames)
        sample.images[:, :, 0, 0, 0] = np.asarray(indices)[:, None]
        return {"images": sample.images, "masks": sample.masks, "K": sample.K, "exists": sample.exists}

    def ground_truth(self, index, kind):
        assert kind == "annotated"
        self.asked.append(index)
        if not self.measured:
            return None
        pick = [None if masks is None else masks[index] for masks in (self.dynamic, self.moving)]
        return GroundTruth(self.depth[index], *pick)

    def name(self, index):
        return f"sample {index}"


def settings(**changes):
    return config(eval={"ground_truth": "annotated", "crop": "none", "batch_size": 4} | changes)


def oracle(source, factor=1 / 30, student=True):
    """Predicts the ground truth up to a factor; identifies the sample by its image."""

    def predict(images):
        index = images.images[:, 1, 0, 0, 0].astype(int)
        depth = np.where(source.depth[index] > 0, source.depth[index], 11.0)
        disp = jnp.asarray(1 / (factor * depth), jnp.float32)
        return Predictions(
            teacher=disp,
            student=disp if student else None,
            disentangled=None,
            holes=None,
            T_previous_from_target=jnp.zeros((len(index), 4, 4)),
        )

    return predict
