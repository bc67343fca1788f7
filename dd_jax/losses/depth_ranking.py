"""Depth order of pixel pairs, supervised by a prior depth: the dynamic-region ranking loss of SC-DepthV3 (Sun et al. 2023)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt32

from dd_jax.runtime import reduce
from dd_jax.runtime.random_streams import RandomStream, stream_key

UNRELIABLE = 0.2  # share of the pixels with the least weight, each paired with one of the others
ANYWHERE = 0.1  # random pairs of the whole image, as a share of the pixels
FARTHER = 1.15  # ratio of the prior's depths from which one pixel counts as farther


def depth_ranking(
    depth: Float[Array, "b h w"],
    prior: Float[Array, "b h w"],
    weight: Float[Array, "b h w"],
    seed: UInt32[Array, " b"],
    axis: str | None,
) -> Float[Array, ""]:
    """Mean of log(1 + exp(-order * (depth A - depth B))) over pixel pairs that the prior orders; 0 without pairs.

    ``weight`` is high where camera motion explains the pixel. Depth is in network units, so the term grows with the scene.
    """
    a, b = draw_pairs(weight, seed)
    return ranking_mean(*ranking(depth, prior, a, b), axis)


def draw_pairs(weight: Float[Array, "b h w"], seed: UInt32[Array, " b"]) -> tuple[Int[Array, "b p"], Int[Array, "b p"]]:
    """Flat indices: every unreliable pixel with a reliable one, then pairs from anywhere."""
    pixels = weight.shape[1] * weight.shape[2]
    few, anywhere = int(UNRELIABLE * pixels), int(ANYWHERE * pixels)

    def one(weight, seed):
        order = jnp.argsort(weight)
        keys = jax.random.split(stream_key(seed, RandomStream.DEPTH_RANKING), 3)
        reliable = order[jax.random.randint(keys[0], (few,), few, pixels)]
        first, second = (jax.random.randint(key, (anywhere,), 0, pixels) for key in keys[1:])
        return jnp.concatenate([order[:few], first]), jnp.concatenate([reliable, second])

    return jax.vmap(one)(weight.reshape(len(weight), -1), seed)


def ranking(
    depth: Float[Array, "b h w"], prior: Float[Array, "b h w"], a: Int[Array, "b p"], b: Int[Array, "b p"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Sum over the pairs that the prior orders, and their number."""

    def pick(x, index):
        return jnp.take_along_axis(x.reshape(len(x), -1), index, axis=1)

    ratio = pick(prior, a) / pick(prior, b)
    order = jnp.where(ratio >= FARTHER, 1.0, jnp.where(ratio < 1 / FARTHER, -1.0, 0.0))
    cost = jax.nn.softplus(-order * (pick(depth, a) - pick(depth, b)))
    return jnp.sum(jnp.where(order == 0, 0.0, cost)), jnp.sum(jnp.abs(order))


def ranking_mean(total: Float[Array, ""], count: Float[Array, ""], axis: str | None) -> Float[Array, ""]:
    """Over all devices."""
    return reduce.psum(total, axis) / jnp.maximum(reduce.psum(count, axis), 1)
