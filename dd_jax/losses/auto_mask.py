"""Auto-mask of Monodepth2: drops pixels that an unwarped source explains better."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from dd_jax.config import LossConfig
from dd_jax.losses import ssim
from dd_jax.losses.photometric import UNUSABLE, combine_sources, photometric_error


def auto_mask(
    error: Float[Array, "s b h w"],
    originals: Float[Array, "f b h w 3"],
    target: ssim.Reference,
    exists: Bool[Array, "b f"],
    noise: Float[Array, "b h w"],
    loss: LossConfig,
) -> Bool[Array, "s b h w"]:
    """Pixels whose warped error is below that of every unwarped source (Monodepth2, eq. 5).

    Drops frames of a standing camera and objects that move with it. ``noise`` is added to the identity error to break ties.
    """
    identity, seen = combine_sources(photometric_error(originals, target, loss.ssim), exists, None, loss)
    return error <= jnp.where(seen, identity, UNUSABLE) + noise
