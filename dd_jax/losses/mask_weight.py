"""Weight of each sample by the size of its dynamic-object mask (the poster, contribution 3)."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from dd_jax.config import LossConfig
from dd_jax.types import TARGET


def mask_weights(masks: Bool[Array, "b f h w"], loss: LossConfig) -> Float[Array, " b"]:
    """Weight of each sample's photometric error, from the share of its pixels on objects.

    "less": objects lower the weight. "more": samples without objects have weight 0. The weights are not normalised.
    """
    objects = masks[:, TARGET] if loss.mask_area == "target" else jnp.all(masks, axis=1)
    share = jnp.mean(objects.astype(jnp.float32), axis=(1, 2))
    return (1.0 - share if loss.mask_weight == "less" else share) ** loss.mask_power
