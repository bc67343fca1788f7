"""SC-Depth: photometric error and depth inconsistency between two frames (Bian et al., IJCV 2021)."""

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float

from dd_jax.config import ScDepthConfig
from dd_jax.losses import ssim
from dd_jax.runtime import reduce

_RADIUS = 3  # of SSIM's window
_FEWEST = 100  # valid pixels, of all devices, below which no mean is taken


@struct.dataclass
class Comparison:
    """One frame of a pair against the other, on the image plane of the first; ``n`` may be any axes."""

    colour: Float[Array, "*n b h w"]  # mean absolute difference of the colours
    photometric: Float[Array, "*n b h w"]  # with SSIM; smaller weight where the depths disagree
    inconsistency: Float[Array, "*n b h w"]  # |a - b| / (a + b) of the two depths of a point, in [0, 1]
    valid: Bool[Array, "*n b h w"]  # the other frame shows the point, and warping it reduces the error


def compare(
    reference: Float[Array, "b h w 3"],
    neighbour: Float[Array, "b h w 3"],
    warped: Float[Array, "b h w 3"],
    projected: Float[Array, "b h w"],
    computed: Float[Array, "b h w"],
    seen: Bool[Array, "b h w"],
    config: ScDepthConfig,
) -> Comparison:
    """``reference`` against ``neighbour``; both are normalised like the networks' inputs.

    Args:
      warped: ``neighbour`` warped to ``reference``.
      projected: depth map of the neighbour, sampled at the point.
      computed: depth of the point in the neighbour's camera, from the reference's depth and the relative pose.
      seen: pixels inside the neighbour.
    """
    difference = jnp.abs(reference - warped)
    colour = jnp.mean(difference, axis=-1)
    photometric = jax.lax.clamp(0.0, difference, 1.0)
    if config.ssim > 0:
        similar = ssim.distance(warped, ssim.windowed(reference, _RADIUS), _RADIUS)
        photometric = config.ssim * similar + (1 - config.ssim) * photometric
    photometric = jnp.mean(photometric, axis=-1)
    inconsistency = jnp.abs(computed - projected) / (computed + projected)
    if config.weight_mask:
        photometric = photometric * jax.lax.stop_gradient(1 - inconsistency)
    if config.auto_mask:
        seen = seen & (colour < jnp.mean(jnp.abs(reference - neighbour), axis=-1))
    return Comparison(colour, photometric, inconsistency, seen)


def best_source(pairs: Comparison) -> Comparison:
    """Per pixel the valid one of two comparisons (first axis) with the smallest colour difference."""
    first, second = jnp.where(pairs.valid, pairs.colour, jnp.inf)
    return jax.tree.map(lambda x: jnp.where(second < first, x[1], x[0]), pairs)  # indexing has a scatter as gradient


@struct.dataclass
class ValidComparisons:
    """All comparisons in one stack, and the pixels that count."""

    pairs: Comparison
    valid: Float[Array, "n b h w"]
    enough: Bool[Array, ""]  # valid pixels of all devices suffice for a mean


def valid_planes(target: Comparison, sources: Comparison, config: ScDepthConfig, axis: str | None) -> ValidComparisons:
    """Comparisons of the target frame with the sources, and of the sources with the target (first axis of both: source).

    With ``config.source_min`` only the better source counts at every pixel of the target.
    """
    pairs = [best_source(target) if config.source_min else target, sources]
    pairs = jax.tree.map(lambda *maps: jnp.concatenate([m.reshape(-1, *m.shape[-3:]) for m in maps]), *pairs)
    valid = pairs.valid.astype(jnp.float32)
    return ValidComparisons(pairs, valid, reduce.psum(jnp.sum(valid), axis) > _FEWEST)


def mean_photometric(planes: ValidComparisons, axis: str | None) -> Float[Array, ""]:
    """Photometric error over the valid pixels of all planes; 0 if hardly any is valid."""
    return jnp.where(planes.enough, reduce.masked_mean(planes.pairs.photometric, planes.valid, axis), 0.0)


def mean_inconsistency(planes: ValidComparisons, axis: str | None) -> Float[Array, ""]:
    """Depth inconsistency over the valid pixels of all planes; 0 if hardly any is valid."""
    return jnp.where(planes.enough, reduce.masked_mean(planes.pairs.inconsistency, planes.valid, axis), 0.0)


def static_weight(target: Comparison) -> Float[Array, "b h w"]:
    """1 where the depths of all valid sources agree, less where they do not; no gradient."""
    return jax.lax.stop_gradient(jnp.mean(1 - target.inconsistency * target.valid, axis=0))
