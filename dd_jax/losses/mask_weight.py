"""How much a sample counts, by how much of it could be moving."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from dd_jax.config import LossConfig
from dd_jax.types import TARGET


def mask_weights(masks: Bool[Array, "b f h w"], loss: LossConfig) -> Float[Array, " b"]:
    """Weight of each sample's photometric error, from the share of its pixels that are objects (the poster, contribution 3).

    "less": objects lower the weight, "more": without objects a sample does not count. The weights are not normalised.
    """
    objects = masks[:, TARGET] if loss.mask_area == "target" else jnp.all(masks, axis=1)
    share = jnp.mean(objects.astype(jnp.float32), axis=(1, 2))
    return (1.0 - share if loss.mask_weight == "less" else share) ** loss.mask_power
