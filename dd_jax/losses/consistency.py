"""Where the student trusts its matching, and what it learns elsewhere: the teacher's depth."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from dd_jax.runtime import reduce
from dd_jax.types import CostVolume


def reliable_pixels(volume: CostVolume, teacher_depth: Float[Array, "b h w"]) -> Bool[Array, "b h w"]:
    """Pixels observed at every depth bin whose cheapest bin is within a factor 2 of the teacher (ManyDepth, eq. 8).

    The volume is a quarter of the size of ``teacher_depth`` and brought up by repetition.
    """
    scale = teacher_depth.shape[1] // volume.lowest.shape[1]
    lowest, confidence = (jnp.repeat(jnp.repeat(x, scale, 1), scale, 2) for x in (volume.lowest, volume.confidence))
    ratio = jax.lax.stop_gradient(teacher_depth) * lowest
    return (confidence > 0.5) & (ratio > 0.5) & (ratio < 2)


def consistency(
    depths: Float[Array, "s b h w"],
    teacher_depths: Float[Array, "s b h w"],
    photometric: Bool[Array, "b h w"],
    axis: str | None,
) -> Float[Array, " s"]:
    """Mean over all pixels of |student - teacher| where no photometric error is asked for (ManyDepth, sec. 3.3).

    The teacher gets no gradient. Raw network depth, so the term grows with the scene.
    """
    difference = jnp.abs(depths - jax.lax.stop_gradient(teacher_depths))
    return reduce.mean(jnp.where(photometric, 0, difference), axis, dims=(1, 2, 3))


def pyramid_distillation(disps: Float[Array, "s b h w"], axis: str | None) -> Float[Array, " s"]:
    """How far the disparities of the coarser scales are from the finest, mean of (|difference| + 0.01) to the power of 0.4.

    Both sides learn; 0 for the finest scale (announced for DS-Depth, commented out in its code).
    """
    terms = reduce.mean((jnp.abs(disps[1:] - disps[:1]) + 0.01) ** 0.4, axis, dims=(1, 2, 3))
    return jnp.concatenate([jnp.zeros(1), terms])


def dynamic_cycle(
    teacher_depths: Float[Array, "s b h w"], depths: Float[Array, "s b h w"], masks: Bool[Array, "b h w"], axis: str | None
) -> Float[Array, " s"]:
    """Mean of |teacher - student| over object pixels where the two differ by less than the smaller one; 0 without such pixels.

    The student's depth gets no gradient: it teaches the prior that DOMD was made of (DynamicDepth, sec. 3.4).
    """
    depths = jax.lax.stop_gradient(depths)
    difference = jnp.abs(teacher_depths - depths)
    close = masks & (jax.lax.stop_gradient(difference) < jnp.minimum(jax.lax.stop_gradient(teacher_depths), depths))
    return reduce.masked_mean(difference, close.astype(difference.dtype), axis, dims=(1, 2, 3))


def pose_cycle(round_trips: Float[Array, "b f 4 4"], axis: str | None) -> Float[Array, ""]:
    """Distance from the identity of going to each source frame and back: absolute values summed over matrices and frames,
    mean over samples (the poster, contribution 2)."""
    return reduce.mean(jnp.sum(jnp.abs(round_trips - jnp.eye(4)), axis=(1, 2, 3)), axis)
