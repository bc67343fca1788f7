"""Surface normals compared with those of a prior depth: directly, and relative to each other across edges.

The prior is the teacher's depth (the poster, contribution 1), or a file's. Source of the ranking loss: Xian et al.,
"Structure-Guided Ranking Loss for Single Image Depth Prediction" (CVPR 2020), in the form of SC-DepthV3 (Sun et al. 2023).
"""

from typing import no_type_check

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int, UInt32

from dd_jax.config import LossConfig
from dd_jax.runtime import reduce
from dd_jax.runtime.random_streams import RandomStream, stream_key

_LUMINANCE = (0.299, 0.587, 0.114)
_EDGE = 0.1  # of the strongest edge
_NEAREST, _FARTHEST = 3, 19  # pixels between an anchor and its four points
_FRAME = 5  # border pixels without normal edges: the Sobel filters have no full support there


@no_type_check
@struct.dataclass
class Edges:
    """Edge strength of a map and direction ``(u, v)`` of its gradient: unit vectors, (1, 0) for a zero gradient."""

    strength: Float[Array, "b h w"]
    direction: Float[Array, "b h w 2"]


@no_type_check
@struct.dataclass
class Surfaces:
    """Normals of the same pixels from two depth maps."""

    student: Float[Array, "s b h w 3"]
    prior: Float[Array, "#s b h w 3"]  # no gradient; one for all scales if it is from a file


def normal_l1(surfaces: Surfaces, axis: str | None) -> Float[Array, " s"]:
    """Mean absolute difference of the components (the poster, contribution 1)."""
    return reduce.mean(jnp.abs(surfaces.student - surfaces.prior), axis, dims=(1, 2, 3, 4))


def normal_ranking(
    surfaces: Surfaces,
    prior_depth: Float[Array, "b h w"],
    image: Float[Array, "b h w 3"],
    seed: UInt32[Array, " b"],
    loss: LossConfig,
    axis: str | None,
) -> Float[Array, ""]:
    """Difference of the relative normals of both surfaces between points on either side of an edge; full size only.

    Edges of the image and of the prior's normals, except depth edges of the prior, where the surface ends.
    """
    image_edges, normal_edges = find_edges(image, jax.lax.stop_gradient(prior_depth), surfaces.prior[0], axis)
    totals, counts = [], []
    for edge_kind, edges in enumerate((image_edges, normal_edges)):
        candidates = edge_pixels(edges.strength)
        count = jnp.sum(candidates, axis=(1, 2), dtype=jnp.int32)
        ranks, distances = draw(seed, edge_kind, count, loss.normal_anchors)
        chain = sample_across_edges(candidates, edges.direction, ranks, distances)
        totals.append(count * jnp.mean(relative_normal_error(surfaces.student[0], surfaces.prior[0], chain), axis=(1, 2)))
        counts.append(count)
    total = reduce.psum(jnp.sum(jnp.stack(totals)), axis)
    return total / reduce.psum(jnp.sum(jnp.stack(counts)), axis)


def find_edges(
    image: Float[Array, "b h w 3"], depth: Float[Array, "b h w"], normals: Float[Array, "b h w 3"], axis: str | None
) -> tuple[Edges, Edges]:
    """Edges of the luminance and of the normals, without depth edges."""
    ends = depth_edges(depth, axis)
    gx, gy = sobel(jnp.matmul(image, jnp.array(_LUMINANCE, image.dtype), precision="highest"))
    image_edges = edges_from(gx, gy)

    gx, gy = sobel(jnp.moveaxis(normals, -1, 0))
    side = jnp.where(jnp.sum(gx * gy, axis=0) < 0, -1.0, 1.0)
    surface = edges_from(jnp.mean(jnp.abs(gx), axis=0), side * jnp.mean(jnp.abs(gy), axis=0))
    h, w = depth.shape[1:]
    inner = jnp.zeros((h, w), bool).at[_FRAME : h - _FRAME, _FRAME : w - _FRAME].set(True)
    return (
        image_edges.replace(strength=jnp.where(ends, 0.0, image_edges.strength)),
        surface.replace(strength=jnp.where(ends | ~inner, 0.0, surface.strength)),
    )


def depth_edges(depth: Float[Array, "b h w"], axis: str | None) -> Bool[Array, "b h w"]:
    """Pixels next to a depth edge, which has at least a tenth of the strongest gradient of the whole batch."""
    strength = jnp.hypot(*sobel(depth))
    ends = strength >= _EDGE * reduce.maximum(strength, axis)
    return jax.lax.reduce_window(ends.astype(jnp.float32), 0.0, jax.lax.max, (1, 3, 3), (1, 1, 1), "SAME") > 0


def sobel(x: Float[Array, "*b h w"]) -> tuple[Float[Array, "*b h w"], Float[Array, "*b h w"]]:
    """Derivatives along columns and rows, times 8; 0 on the border."""
    smooth = x[..., :-2, :] + 2 * x[..., 1:-1, :] + x[..., 2:, :]
    along_u = smooth[..., 2:] - smooth[..., :-2]
    smooth = x[..., :-2] + 2 * x[..., 1:-1] + x[..., 2:]
    along_v = smooth[..., 2:, :] - smooth[..., :-2, :]
    border = [(0, 0)] * (x.ndim - 2) + [(1, 1), (1, 1)]
    return jnp.pad(along_u, border), jnp.pad(along_v, border)


def edges_from(along_u: Float[Array, "b h w"], along_v: Float[Array, "b h w"]) -> Edges:
    """Strength and direction of a gradient."""
    strength = jnp.hypot(along_u, along_v)
    none = strength == 0
    direction = jnp.stack([jnp.where(none, 1.0, along_u), along_v], axis=-1)
    return Edges(strength, direction / jnp.where(none, 1.0, strength)[..., None])


def edge_pixels(strength: Float[Array, "b h w"]) -> Bool[Array, "b h w"]:
    """Pixels with at least a tenth of the image's strongest edge; all pixels of an image without edges."""
    return strength >= _EDGE * jnp.max(strength, axis=(1, 2), keepdims=True)


def draw(
    seed: UInt32[Array, " b"], edge_kind: int, count: Int[Array, " b"], anchors: int
) -> tuple[Int[Array, "b a"], Int[Array, "b 4 a"]]:
    """Anchors drawn from ``count`` candidates, with replacement, and the distances of their four points in pixels."""

    def one(seed, count):
        key = jax.random.fold_in(stream_key(seed, RandomStream.NORMALS), edge_kind)
        place, distance = jax.random.split(key)
        ranks = (jax.random.uniform(place, (anchors,)) * count).astype(jnp.int32)
        return jnp.minimum(ranks, count - 1), jax.random.randint(distance, (4, anchors), _NEAREST, _FARTHEST + 1)

    return jax.vmap(one)(seed, count)


def sample_across_edges(
    candidates: Bool[Array, "b h w"],
    direction: Float[Array, "b h w 2"],
    ranks: Int[Array, "b a"],
    distances: Int[Array, "b 4 a"],
) -> Int[Array, "b 4 a"]:
    """Flat indices of two points before and two after each anchor, along the direction of its edge, kept inside the image.

    ranks: indices of the anchors in the row-major list of candidates.
    """
    b, h, w = candidates.shape
    counted = jnp.cumsum(candidates.reshape(b, -1), axis=1, dtype=jnp.int32)
    anchor = jax.vmap(jnp.searchsorted)(counted, ranks + 1)
    step = jnp.take_along_axis(direction.reshape(b, -1, 2), anchor[..., None], axis=1)
    signed = distances * jnp.array([-1, -1, 1, 1])[:, None]
    column = (anchor % w)[:, None] + jnp.round(signed * step[:, None, :, 0]).astype(jnp.int32)
    row = (anchor // w)[:, None] + jnp.round(signed * step[:, None, :, 1]).astype(jnp.int32)
    return jnp.clip(row, 0, h - 1) * w + jnp.clip(column, 0, w - 1)


def relative_normal_error(
    normals: Float[Array, "b h w 3"], prior: Float[Array, "b h w 3"], chain: Int[Array, "b 4 a"]
) -> Float[Array, "b 3 a"]:
    """Difference between student and prior of ``|cos|`` of the angle between successive points' normals."""

    def cosines(x):
        b, links, anchors = chain.shape
        points = jnp.take_along_axis(x.reshape(b, -1, 3), chain.reshape(b, -1, 1), axis=1).reshape(b, links, anchors, 3)
        return jnp.abs(jnp.sum(points[:, :-1] * points[:, 1:], axis=-1))

    return jnp.abs(cosines(prior) - cosines(normals))
