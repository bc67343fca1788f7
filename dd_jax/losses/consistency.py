"""Reliable pixels of the student's matching, and the terms that compare depths and poses with each other."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from dd_jax.runtime import reduce
from dd_jax.types import CostVolume


def reliable_pixels(volume: CostVolume, teacher_depth: Float[Array, "b h w"]) -> Bool[Array, "b h w"]:
    """Pixels observed at every depth bin whose cheapest bin is within a factor 2 of the teacher (ManyDepth, eq. 8).

    The volume is a quarter of the size of ``teacher_depth`` and enlarged by nearest neighbour.
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
    logarithmic: bool = False,
) -> Float[Array, " s"]:
    """Mean over all pixels of |student - teacher|, counted as 0 where ``photometric`` is set (ManyDepth, sec. 3.3).

    The teacher gets no gradient. Depth is in network units, so the term grows with the scene, unless it is ``logarithmic``.
    """
    teacher_depths = jax.lax.stop_gradient(teacher_depths)
    difference = jnp.abs(jnp.log(depths / teacher_depths) if logarithmic else depths - teacher_depths)
    return reduce.mean(jnp.where(photometric, 0, difference), axis, dims=(1, 2, 3))


def pyramid_distillation(disps: Float[Array, "s b h w"], axis: str | None) -> Float[Array, " s"]:
    """Distance of the coarser scales' disparities from the finest, mean of (|difference| + 0.01) ** 0.4.

    Both sides get gradients; 0 for the finest scale (announced for DS-Depth, commented out in its code).
    """
    terms = reduce.mean((jnp.abs(disps[1:] - disps[:1]) + 0.01) ** 0.4, axis, dims=(1, 2, 3))
    return jnp.concatenate([jnp.zeros(1), terms])


def dynamic_cycle(
    teacher_depths: Float[Array, "s b h w"], depths: Float[Array, "s b h w"], masks: Bool[Array, "b h w"], axis: str | None
) -> Float[Array, " s"]:
    """Mean of |teacher - student| over object pixels where the two differ by less than the smaller one; 0 without such pixels.

    The student's depth gets no gradient: it supervises the teacher's depth that DOMD uses (DynamicDepth, sec. 3.4).
    """
    depths = jax.lax.stop_gradient(depths)
    difference = jnp.abs(teacher_depths - depths)
    close = masks & (jax.lax.stop_gradient(difference) < jnp.minimum(jax.lax.stop_gradient(teacher_depths), depths))
    return reduce.masked_mean(difference, close.astype(difference.dtype), axis, dims=(1, 2, 3))


def pose_cycle(forward_backward: Float[Array, "b f 4 4"], axis: str | None) -> Float[Array, ""]:
    """Forward and backward pose compose to the identity (the poster, contribution 2).

    Absolute difference from the identity, summed over matrix entries and source frames, mean over samples.
    """
    return reduce.mean(jnp.sum(jnp.abs(forward_backward - jnp.eye(4)), axis=(1, 2, 3)), axis)
