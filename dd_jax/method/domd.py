"""Dynamic object motion disentanglement: source frames in which only the camera has moved (DynamicDepth, section 3.2).

Each potentially dynamic object is removed from a source frame and re-rendered from the target frame through the teacher's
depth, or that of the ground below it, and the camera's motion, so that geometry for static scenes holds for it too. Masks decide,
not motion: a parked car is re-rendered where it was.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from dd_jax.config import DomdConfig
from dd_jax.geometry.sampling import sample_zeros
from dd_jax.geometry.splat import splat_coords
from dd_jax.types import TARGET, Batch, Disentangled, frames_at


def object_depth(depth: Float[Array, "*s b h w"], objects: Bool[Array, "b h w"], source: str) -> Float[Array, "*s b h w"]:
    """``depth``, at object pixels from ``source`` (``config.domd.depth``).

    "teacher" changes nothing. With "ground" and "ground_or_border" an object pixel gets the depth of the nearest pixel below it
    that belongs to no object: objects stand on the ground. Where the lower border cuts the object, "ground" keeps the depth and
    "ground_or_border" takes that of the lowest row. Source: the prior of Moon et al., "From-Ground-To-Objects" (CVPR 2024),
    which trains a network with it; here it replaces what the teacher has learnt of moving objects.
    """
    if source == "teacher":
        return depth
    known, found, height, shift = ~objects, depth, depth.shape[-2], 1
    while shift < height:  # the nearest known row of the next 2, 4, 8, ...
        below_known, below_found = (jnp.concatenate([x[..., shift:, :], x[..., :shift, :]], axis=-2) for x in (known, found))
        below_known &= jnp.arange(height)[:, None] < height - shift
        found = jnp.where(known, found, below_found)
        known |= below_known
        shift *= 2
    return jnp.where(known, found, depth[..., -1:, :] if source == "ground_or_border" else depth)


def disentangle(
    batch: Batch,
    frames: tuple[int, ...],
    lookups: int,
    depth: Float[Array, "b h w"],
    T_source_from_target: Float[Array, "b f 4 4"],
    apply_to_lookup: Bool[Array, " b"],
    config: DomdConfig,
) -> Disentangled:
    """Replaces moving objects in the source frames of the loss and in the lookup frames of the cost volume.

    Args:
      batch: augmented (``inputs`` is filled).
      frames: positions of the sources on the frame axis of ``batch``, previous first.
      lookups: number of frames, from the first, that the cost volume matches with (colour-jittered).
      depth: of the whole target frame, with objects at their :func:`object_depth`; nearer static surfaces occlude objects.
      T_source_from_target: poses of ``frames``, in the same order.
      apply_to_lookup: samples whose lookup frames are disentangled; the others keep them, without holes.

    A pixel where an object is removed and none is rendered is unknown: black, and a hole. Missing frames are not changed. No
    gradient passes through.
    """
    count, (size, channels) = len(frames), (depth.shape[1:], 3)
    poses = jnp.moveaxis(T_source_from_target, 1, 0).reshape(-1, 4, 4)
    coords, _, valid = jax.lax.stop_gradient(
        splat_coords(jnp.tile(depth, (count, 1, 1)), poses, jnp.tile(batch.K, (count, 1, 1)), config.upscale)
    )
    coords, valid = coords.reshape(count, -1, *size, 2), valid.reshape(count, -1, *size)

    # Colours are sampled together with the mask and divided by it, so that objects get no dark rim.
    mask = batch.masks[:, TARGET, ..., None].astype(jnp.float32)
    drawn = sample_zeros(jnp.concatenate([batch.images[:, TARGET] * mask, mask], axis=-1), coords)
    drawn_lookups = sample_zeros(batch.inputs[:, TARGET] * mask, coords[:lookups])
    share = drawn[..., channels]
    paste = jnp.moveaxis(valid & (share > 0.5), 0, 1)
    share = jnp.maximum(jnp.moveaxis(share, 0, 1), 1e-6)[..., None]
    colours = jnp.moveaxis(drawn[..., :channels], 0, 1) / share

    sources, removed, exists = (frames_at(x, frames) for x in (batch.images, batch.masks, batch.exists[..., None, None]))
    if config.exclude_from_loss:
        holes = exists & (removed | paste)
        images = jnp.where(holes[..., None], 0.0, sources)
    else:
        images, holes = _composite(sources, colours, paste, removed, exists)
    lookup_images, lookup_holes = _composite(
        frames_at(batch.inputs, frames[:lookups]),
        jnp.moveaxis(drawn_lookups, 0, 1) / share[:, :lookups],
        paste[:, :lookups],
        removed[:, :lookups],
        exists[:, :lookups] & apply_to_lookup[:, None, None, None],
    )
    return jax.lax.stop_gradient(Disentangled(images=images, holes=holes, lookups=lookup_images, lookup_holes=lookup_holes))


def _composite(
    image: Float[Array, "*b h w 3"],
    colours: Float[Array, "*b h w 3"],
    paste: Bool[Array, "*b h w"],
    removed: Bool[Array, "*b h w"],
    applies: Bool[Array, "*b 1 1"],
) -> tuple[Float[Array, "*b h w 3"], Bool[Array, "*b h w"]]:
    """The image without the ``removed`` objects and with the pasted ones, and the holes that remain."""
    paste, holes = applies & paste, applies & removed & ~paste
    image = jnp.where(holes[..., None], 0.0, image)
    return jnp.where(paste[..., None], colours, image), holes
