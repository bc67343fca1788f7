"""SC-DepthV3: every frame of a pair is warped to the other, and their depths must agree (Bian et al., IJCV 2021)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from dd_jax.config import Config, ScDepthConfig
from dd_jax.geometry.camera import backproject
from dd_jax.geometry.sampling import sample_zeros
from dd_jax.geometry.warp import reproject
from dd_jax.losses.sc_depth import Comparison, compare
from dd_jax.method.poses import predict_direct_poses
from dd_jax.method.view_synthesis import full_size_depth
from dd_jax.networks.layers import normalise
from dd_jax.networks.model import Networks
from dd_jax.types import NEXT, PREVIOUS, TARGET, Batch

NEAREST = 1e-3
"""Depth of points in another camera is at least this, in network units."""


def compare_frames(
    model: Networks, batch: Batch, T_source_from_target: Float[Array, "b 2 4 4"], depth: Float[Array, "b h w"], config: Config
) -> tuple[Comparison, Comparison]:
    """The target frame against both sources, and both sources against the target; first axis (previous, next)."""
    with jax.named_scope("poses"):
        T_target_from_source = predict_direct_poses(model, batch.inputs, from_source=True)
    images, size = normalise(batch.images), batch.images.shape[2:4]
    forward, backward = [], []
    for place, source in enumerate((PREVIOUS, NEXT)):
        target = images[:, TARGET], depth
        with jax.named_scope("teacher"):
            disp = model.teacher(batch.inputs[:, source])[0]
        neighbour = images[:, source], full_size_depth(disp, size, config.model)
        exists = batch.exists[:, source]
        forward.append(compare_pair(target, neighbour, batch.K, T_source_from_target[:, place], exists, config.sc))
        backward.append(compare_pair(neighbour, target, batch.K, T_target_from_source[:, place], exists, config.sc))
    return tuple(jax.tree.map(lambda *maps: jnp.stack(maps), *found) for found in (forward, backward))


def compare_pair(
    reference: tuple[Float[Array, "b h w 3"], Float[Array, "b h w"]],
    neighbour: tuple[Float[Array, "b h w 3"], Float[Array, "b h w"]],
    K: Float[Array, "b 3 3"],
    T_neighbour_from_reference: Float[Array, "b 4 4"],
    exists: Bool[Array, " b"],
    config: ScDepthConfig,
) -> Comparison:
    """Reference frame (normalised image, depth) against the neighbour frame warped to it."""
    image, depth = reference
    T = T_neighbour_from_reference
    coords = reproject(depth, K, T)
    u, v = coords[..., 0], coords[..., 1]
    z = jnp.sum(T[:, None, None, 2, :3] * backproject(depth, K), axis=-1) + T[:, 2, 3, None, None]
    in_view = (z > 0) & (u >= 0) & (u <= depth.shape[2] - 1) & (v >= 0) & (v <= depth.shape[1] - 1)
    sampled = sample_zeros(jnp.concatenate([neighbour[0], neighbour[1][..., None]], axis=-1), coords)
    computed = jnp.where(z > NEAREST, z, NEAREST)
    return compare(image, neighbour[0], sampled[..., :3], sampled[..., 3], computed, in_view & exists[:, None, None], config)
