"""Costs of a lookup frame's holes: where DOMD removed an object and nothing is known (DynamicDepth, section 3.3)."""

import functools
import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32

from dd_jax.runtime import forms

CHUNK, WHOLE = 2048, 2**18
"""Occluded positions that are filled at a time, in small chunks and in as few as possible."""


def pool_features(
    costs: Float[Array, "k m h w"],
    occluded: Bool[Array, "k m h w"],
    seen: Bool[Array, "k m h w"],
    visible_features: Callable[..., Float[Array, "p c"]],
    cost_at: Callable[..., Float[Array, " p"]],
    radius: int,
) -> Float[Array, "k m h w"]:
    """Costs in which each occluded feature is the channelwise maximum of the visible features around it.

    Args:
      visible_features: (k, m, y, x), four index vectors (p,) -> warped features (p, c) there, 0 where occluded.
      cost_at: features (p, c) and (m, y, x) -> their cost (p,) against the target.
      radius: of the neighbourhood, over bins, rows and columns.

    Occluded features without visible neighbours stay 0, so only a thin rim of every hole needs work: its positions are
    counted, found and filled in chunks. Without holes this costs next to nothing.
    """
    rim = occluded & seen & _dilate(~occluded, radius)
    around = jnp.array(list(itertools.product(range(-radius, radius + 1), repeat=3)), jnp.int32)

    def pooled_costs(position):
        k, m, y, x = jnp.unravel_index(position, rim.shape)

        def visit(step, pooled):
            # A neighbour outside of the volume becomes the border's own position, which is already in the neighbourhood.
            near = [jnp.clip(i + around[step, a], 0, rim.shape[b] - 1) for a, (i, b) in enumerate([(k, 0), (y, 2), (x, 3)])]
            return jnp.maximum(pooled, visible_features(near[0], m, near[1], near[2]))

        none = jnp.zeros(jax.eval_shape(visible_features, k, m, y, x).shape)
        pooled = jax.lax.fori_loop(0, around.shape[0], visit, none)
        return cost_at(pooled, m, y, x)

    by_form = {"chunks": functools.partial(_in_chunks, pooled_costs), "whole": functools.partial(_as_a_whole, pooled_costs)}
    rank = jnp.cumsum(rim.ravel(), dtype=jnp.int32)
    return forms.choose("pooling", by_form, rim.ravel(), rank, costs.ravel()).reshape(costs.shape)


def _in_chunks(
    costs_at: Callable[[Int32[Array, " p"]], Float[Array, " p"]],
    rim: Bool[Array, " n"],
    rank: Int32[Array, " n"],
    costs: Float[Array, " n"],
) -> Float[Array, " n"]:
    """``costs``, with those of ``costs_at`` at all positions of ``rim``; ``rank`` counts them."""

    def one(chunk, costs):
        position = jnp.searchsorted(rank, chunk * CHUNK + 1 + jnp.arange(CHUNK, dtype=jnp.int32))
        return costs.at[position].set(costs_at(position), mode="drop")

    return jax.lax.fori_loop(0, (rank[-1] + CHUNK - 1) // CHUNK, one, costs)


def _as_a_whole(
    costs_at: Callable[[Int32[Array, " p"]], Float[Array, " p"]],
    rim: Bool[Array, " n"],
    rank: Int32[Array, " n"],
    costs: Float[Array, " n"],
) -> Float[Array, " n"]:
    # Positions are listed once and not searched; a GPU waits for the host before each round of a loop of unknown length.
    size = min(WHOLE, rim.size)
    chunks = -(-rim.size // size)
    position = jnp.arange(rim.size, dtype=jnp.int32)
    none = rim.size + jnp.arange(chunks * size, dtype=jnp.int32)  # positions beyond the volume, all different
    listed = none.at[jnp.where(rim, rank - 1, none.size + position)].set(position, mode="drop", unique_indices=True)

    def one(chunk, costs):
        position = jax.lax.dynamic_slice(listed, (chunk * size,), (size,))
        return costs.at[position].set(costs_at(position), mode="drop", unique_indices=True)

    return jax.lax.fori_loop(0, 1 if chunks == 1 else (rank[-1] + size - 1) // size, one, costs)


def fill_costs(
    costs: Float[Array, "k m h w"], known: Bool[Array, "k m h w"], seen: Bool[Array, "k m h w"], radius: int
) -> tuple[Float[Array, "k m h w"], Bool[Array, "k m h w"]]:
    """Unknown costs become the mean of their known 4-neighbours in the image, repeated ``radius`` times; the rest is unseen."""
    for _ in range(radius):
        near = functools.partial(_shifted, jnp.where(known, costs, 0.0)), functools.partial(_shifted, known.astype(costs.dtype))
        total, count = (sum(shift(dy, dx) for dy, dx in ((-1, 0), (1, 0), (0, -1), (0, 1))) for shift in near)
        costs = jnp.where(known, costs, total / jnp.maximum(count, 1.0))
        known = known | (count > 0)
    return costs, seen & known


def _dilate(mask: Bool[Array, "k m h w"], radius: int) -> Bool[Array, "k m h w"]:
    """Maximum over a cube of side ``2 radius + 1`` in (k, y, x)."""
    grown = mask.astype(jnp.float32)
    for axis in (0, 2, 3):
        window, margin = [1, 1, 1, 1], [(0, 0)] * 4
        window[axis], margin[axis] = 2 * radius + 1, (radius, radius)
        grown = jax.lax.reduce_window(grown, 0.0, jax.lax.max, window, (1, 1, 1, 1), margin)
    return grown > 0.5


def _shifted(volume: Float[Array, "k m h w"], dy: int, dx: int) -> Float[Array, "k m h w"]:
    height, width = volume.shape[-2:]
    padded = jnp.pad(volume, ((0, 0), (0, 0), (1, 1), (1, 1)))
    return padded[:, :, 1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width]
