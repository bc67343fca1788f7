"""Depth at training size, and every source frame as the target camera would see it."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from dd_jax.config import ModelConfig
from dd_jax.geometry.camera import disp_to_depth
from dd_jax.geometry.normals import depth_to_normals
from dd_jax.geometry.sampling import sample_border
from dd_jax.geometry.warp import reproject
from dd_jax.networks.model import Networks
from dd_jax.types import NEXT, PREVIOUS, TARGET, Views, frames_at


def full_size_depth(disp: Float[Array, "b hs ws"], size: tuple[int, int], config: ModelConfig) -> Float[Array, "b h w"]:
    """Depth at training size from sigmoid disparity of any scale (bilinear, half-pixel centres)."""
    full = disp if disp.shape[1:] == size else jax.image.resize(disp, (disp.shape[0], *size), "bilinear", antialias=False)
    return disp_to_depth(full, config.min_depth, config.max_depth)


def full_size_depths(disps: tuple[Float[Array, "b _ _"], ...], config: ModelConfig) -> Float[Array, "s b h w"]:
    """:func:`full_size_depth` of every scale."""
    return jnp.stack([full_size_depth(disp, disps[0].shape[1:], config) for disp in disps])


def full_size_flow(flow: Float[Array, "*n hs ws 2"], size: tuple[int, int]) -> Float[Array, "*n h w 2"]:
    """Flow in pixels of an image of ``size``, from flow of any size in units of half an image (bilinear, half-pixel centres)."""
    half = jnp.array([size[1] - 1, size[0] - 1], flow.dtype) / 2
    full = flow if flow.shape[-3:-1] == size else jax.image.resize(flow, (*flow.shape[:-3], *size, 2), "bilinear")
    return full * half


def normals_of(depths: Float[Array, "s b h w"], K: Float[Array, "b 3 3"]) -> Float[Array, "s b h w 3"]:
    """Surface normals of every scale."""
    return depth_to_normals(depths, jnp.broadcast_to(K, (len(depths), *K.shape)))


def predict_offsets(
    model: Networks, inputs: Float[Array, "b f h w 3"], config: ModelConfig
) -> Float[Array, "b sources h w 3"] | None:
    """Motion of every target point until each source frame, in the target camera's frame (the poster's flow network).

    None without a flow network.
    """
    if not config.flow:
        return None
    sources = frames_at(inputs, (PREVIOUS, NEXT)[: inputs.shape[1] - 1])
    b, n, *image = sources.shape
    with jax.named_scope("flow"):
        flow = model.flow(jnp.repeat(inputs[:, TARGET], n, axis=0), sources.reshape(-1, *image))[0]
    return config.flow_scale * flow.reshape(b, n, *image)


def synthesize(
    depths: Float[Array, "s b h w"],
    T_source_from_target: Float[Array, "b f 4 4"],
    sources: Float[Array, "b f h w 3"],
    holes: Bool[Array, "b f h w"] | None,
    K: Float[Array, "b 3 3"],
    offsets: Float[Array, "b f h w 3"] | None = None,
    residual_flows: tuple[Float[Array, "b f _ _ 2"], ...] | None = None,
) -> Views:
    """Warps each source frame into the target camera through ``depths``, all scales at full size (Monodepth2, eq. 1).

    Args:
      holes: pixels of the sources without content, which are black; None where sources have no holes.
      offsets: motion of the points before the camera motion; None for a rigid scene.
      residual_flows: a second view is sampled this much further (DS-Depth).

    A sample next to a hole is the mean of the pixels outside it, as in DOMD; where most of the sample lies in the hole, the
    view has a hole.
    """
    s, b, h, w = depths.shape
    f = sources.shape[1]
    if holes is not None:
        sources = jnp.concatenate([sources, holes[..., None].astype(sources.dtype)], axis=-1)
    offsets = None if offsets is None else jnp.moveaxis(offsets, 1, 0)
    coords = reproject(depths, K, jnp.moveaxis(T_source_from_target, 1, 0), offsets).reshape(s, f * b, h, w, 2)
    images = jnp.moveaxis(sources, 1, 0).reshape(f * b, h, w, -1)
    warped = sample_border(images, coords).reshape(s, f, b, h, w, -1)
    moved = None
    if residual_flows is not None:
        shifts = jnp.stack([jnp.moveaxis(full_size_flow(flow, (h, w)), 1, 0) for flow in residual_flows])  # (s, f, b, h, w, 2)
        moved = sample_border(images[..., :3], coords + shifts.reshape(coords.shape)).reshape(s, f, b, h, w, 3)
    if holes is None:
        return Views(depths=depths, warped=warped, holes=None, moved=moved)
    hole_share = warped[..., 3:]
    colour = warped[..., :3] / jnp.where(hole_share > 0.5, 1.0, 1 - hole_share)
    return Views(depths=depths, warped=colour, holes=jax.lax.stop_gradient(hole_share[..., 0]) > 0.5, moved=moved)
