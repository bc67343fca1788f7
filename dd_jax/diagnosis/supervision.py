"""Which pixels train which network by the photometric error; by the training objective's own masks."""

import functools
from collections.abc import Sequence
from typing import no_type_check

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float
from tqdm import tqdm

from dd_jax.config import Config
from dd_jax.data.loader import TripletSource, eval_batches
from dd_jax.method.augment import augment
from dd_jax.method.forward import forward
from dd_jax.method.objective import LossInputs
from dd_jax.networks import model as networks
from dd_jax.runtime import parallel
from dd_jax.types import Batch, TrainState


@no_type_check  # trees of arrays of jax or of numpy
@struct.dataclass
class Shares:
    """Shares of the pixels of each sample."""

    reliable: Float[Array, " b"] | None  # the student learns from the photometric error; None without student
    masked: Float[Array, " b"]  # auto-masked for the teacher, at the finest scale


def shares(state: TrainState, batch: Batch, config: Config) -> Shares:
    """Of a batch of triplets as the loader yields it, without augmentation and with the running batch statistics."""
    model = networks.merge(state.params, state.batch_stats, config, None, train=False)
    batch = augment(batch, config.augment, train=False)
    inputs = LossInputs(model, forward(model, batch, state.depth_range, config, train=False), batch, config, None)
    error, counted = inputs.teacher_errors
    reliable = None if inputs.outputs.student is None else jnp.mean(inputs.reliable, axis=(1, 2))
    return Shares(reliable, 1 - jnp.mean(jnp.broadcast_to(counted, error.shape)[0], axis=(1, 2)))


def measure(
    state: TrainState, config: Config, source: TripletSource, indices: Sequence[int], devices: list[jax.Device], bar: tqdm
) -> dict[str, float | None] | None:
    """Mean shares over the samples ``indices`` that have both neighbours; None if there are none.

    ``reliable_in_training`` also counts the samples that the matching augmentation leaves without photometric error. ``bar``
    counts batches.
    """
    step = parallel.compile_predict(functools.partial(shares, config=config), devices)
    reliable, masked = [], []
    for real, batch in eval_batches(source, indices, config.eval.batch_size, 3):
        found, whole = jax.device_get(step(state, batch)), batch.exists[: len(real)].all(axis=1)
        masked += found.masked[: len(real)][whole].tolist()
        bar.update()
        reliable += [] if found.reliable is None else found.reliable[: len(real)][whole].tolist()
    if not masked:
        return None
    unaugmented = max(0.0, 1 - config.cost_volume.static_probability - config.cost_volume.zero_pose_probability)
    mean = float(np.mean(reliable)) if reliable else None
    in_training = None if mean is None else unaugmented * mean
    return {"reliable": mean, "reliable_in_training": in_training, "auto_masked": float(np.mean(masked))}
