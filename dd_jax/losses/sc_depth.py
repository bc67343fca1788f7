"""SC-Depth: every frame explains its neighbour and the neighbour it, and their depths must agree (Bian et al., IJCV 2021)."""

import functools

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float

from dd_jax.config import ScDepthConfig
from dd_jax.losses import ssim
from dd_jax.runtime import reduce

_REACH = 3  # pixels on either side in SSIM's window
_FEWEST = 100  # valid pixels, of all devices, below which a mean says nothing


@struct.dataclass
class Comparison:
    """What one frame of a pair says about the other, on the plane of the first; ``n`` may be any axes."""

    colour: Float[Array, "*n b h w"]  # mean absolute difference of the colours
    photometric: Float[Array, "*n b h w"]  # with SSIM, and less where the depths disagree
    inconsistency: Float[Array, "*n b h w"]  # |a - b| / (a + b) of the two depths of a point, in [0, 1]
    valid: Bool[Array, "*n b h w"]  # the other frame shows the point, and the way there explains it better than none


def compare(
    image: Float[Array, "b h w 3"],
    other: Float[Array, "b h w 3"],
    warped: Float[Array, "b h w 3"],
    projected: Float[Array, "b h w"],
    computed: Float[Array, "b h w"],
    seen: Bool[Array, "b h w"],
    config: ScDepthConfig,
) -> Comparison:
    """``image`` against ``other``, from what was found there; pictures are normalised like the networks' inputs.

    warped: ``other`` as seen from here; projected: what the other frame's depth says of a point; computed: what this frame's
    depth and the motion say of it.
    """
    difference = jnp.abs(image - warped)
    colour = jnp.mean(difference, axis=-1)
    photometric = jax.lax.clamp(0.0, difference, 1.0)
    if config.ssim > 0:
        similar = ssim.distance(warped, ssim.moments(image, _REACH), _REACH)
        photometric = config.ssim * similar + (1 - config.ssim) * photometric
    photometric = jnp.mean(photometric, axis=-1)
    inconsistency = jnp.abs(computed - projected) / (computed + projected)
    if config.weight_mask:
        photometric = photometric * jax.lax.stop_gradient(1 - inconsistency)
    if config.auto_mask:
        seen = seen & (colour < jnp.mean(jnp.abs(image - other), axis=-1))
    return Comparison(colour, photometric, inconsistency, seen)


def best(pairs: Comparison) -> Comparison:
    """Of several views of one plane (first axis), per pixel the valid one with the nearest colour."""
    colour = jnp.where(pairs.valid, pairs.colour, jnp.inf)
    winner = jnp.argmin(colour, axis=0)[None]
    return jax.tree.map(lambda x: jnp.take_along_axis(x, winner, axis=0)[0], pairs)


def sc_terms(
    target: Comparison, sources: Comparison, config: ScDepthConfig, axis: str | None
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Photometric error and depth inconsistency, each a mean over the valid pixels of all planes; 0 where hardly any is valid.

    target: the target frame against each source (first axis); sources: each source against the target.
    """
    planes = [best(target) if config.source_min else target, sources]
    planes = jax.tree.map(lambda *maps: jnp.concatenate([m.reshape(-1, *m.shape[-3:]) for m in maps]), *planes)
    valid = planes.valid.astype(jnp.float32)
    enough = reduce.psum(jnp.sum(valid), axis) > _FEWEST
    mean = functools.partial(reduce.masked_mean, mask=valid, axis=axis)
    return jnp.where(enough, mean(planes.photometric), 0.0), jnp.where(enough, mean(planes.inconsistency), 0.0)


def static_weight(target: Comparison) -> Float[Array, "b h w"]:
    """1 where every source agrees about the depth of the target's pixel, or says nothing; without gradient."""
    return jax.lax.stop_gradient(jnp.mean(1 - target.inconsistency * target.valid, axis=0))
