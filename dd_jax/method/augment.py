"""Augmentation on the device: one horizontal flip, zoom and colour jitter per triplet, drawn from the sample's seed."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Shaped, UInt16, UInt32

from dd_jax.config import AugmentConfig
from dd_jax.geometry.camera import flip_intrinsics, zoom_intrinsics
from dd_jax.runtime import forms
from dd_jax.runtime.random_streams import RandomStream, stream_key
from dd_jax.types import Batch

GREY = (0.2989, 0.587, 0.114)
"""Weights of red, green and blue in torchvision's grey."""

PRIOR_FARTHEST = 100.0

ColourPlanes = tuple[Float[Array, "f h w"], Float[Array, "f h w"], Float[Array, "f h w"]]
"""Red, green and blue as separate arrays, so that every operation runs over contiguous numbers."""


def augment(batch: Batch, config: AugmentConfig, train: bool) -> Batch:
    """Float images in [0, 1]: ``images`` are flipped and zoomed, ``inputs`` also colour-jittered (nothing in evaluation).

    Masks, prior and intrinsics move with the images. Missing frames stay zero. The result depends only on each sample's
    seed, so it is the same on any number of devices.
    """
    if not train:
        images = batch.images.astype(jnp.float32) / 255
        return batch.replace(images=images, inputs=images)
    draws = jax.vmap(lambda seed: jax.random.uniform(stream_key(seed, RandomStream.AUGMENT), (10,)))(batch.seed)
    images, masks, K, prior = batch.images, batch.masks, batch.K, batch.prior
    if config.flip > 0:
        flip = draws[:, 0] < config.flip
        images = jnp.where(flip[:, None, None, None, None], images[..., ::-1, :], images)
        masks = jnp.where(flip[:, None, None, None], masks[..., ::-1], masks)
        K = jnp.where(flip[:, None, None], flip_intrinsics(K, images.shape[-2]), K)
        prior = None if prior is None else jnp.where(flip[:, None, None], prior[..., ::-1], prior)
    images = images.astype(jnp.float32) / 255
    if config.zoom > 1:
        images, masks, K, prior = jax.vmap(partial(zoom, limit=config.zoom))(images, masks, K, prior, batch.seed)
    inputs = jitter(images, draws[:, 1:], config) if config.jitter > 0 else images
    prior = None if prior is None else prior_depth(prior)
    return batch.replace(images=images, masks=masks, K=K, prior=prior, inputs=inputs)


def zoom(
    images: Float[Array, "f h w 3"],
    masks: Bool[Array, "f h w"],
    K: Float[Array, "3 3"],
    prior: UInt16[Array, "h w"] | None,
    seed: UInt32[Array, ""],
    limit: float,
) -> tuple[Float[Array, "f h w 3"], Bool[Array, "f h w"], Float[Array, "3 3"], UInt16[Array, "h w"] | None]:
    """One sample enlarged by factors in [1, limit], drawn separately for x and y, and randomly cropped to its size (SC-DepthV3).

    Images are interpolated linearly; masks and prior by nearest neighbour.
    """
    height, width = masks.shape[-2:]
    draws = jax.random.uniform(stream_key(seed, RandomStream.ZOOM), (2, 2))
    factor = 1 + (limit - 1) * draws[0]
    offset = draws[1] * (factor - 1) * jnp.array([width, height])
    images = jax.image.scale_and_translate(images, images.shape, (2, 1), factor, -offset, "linear", antialias=False)
    columns, rows = (((jnp.arange(n) + 0.5 + offset[i]) / factor[i]).astype(int) for i, n in enumerate((width, height)))

    def nearest(values: Shaped[Array, "*f h w"]) -> Shaped[Array, "*f h w"]:
        return values[..., rows[:, None], columns]

    return images, nearest(masks), zoom_intrinsics(K, factor, offset), None if prior is None else nearest(prior)


def prior_depth(stored: UInt16[Array, "b h w"]) -> Float[Array, "b h w"]:
    """Depth between 1 and 100, in units of the nearest depth that 16-bit inverse depth can store; sky (0) is at 100."""
    return 1 / jnp.maximum(stored.astype(jnp.float32) / 65535, PRIOR_FARTHEST**-1)


def jitter(images: Float[Array, "b f h w 3"], draws: Float[Array, "b 9"], config: AugmentConfig) -> Float[Array, "b f h w 3"]:
    """Brightness, contrast, saturation and hue of whole triplets, in random order (torchvision's ColorJitter).

    draws: numbers in [0, 1): whether to jitter; the four strengths; the order of the four operations.

    Samples without jitter keep their exact values. Sample by sample, only the drawn operation is computed; a whole batch at once
    needs all four operations at each of the four positions, but no decisions, for each of which a GPU waits.
    """

    def one(image: Float[Array, "f h w 3"], draw: Float[Array, "9"]) -> Float[Array, "f h w 3"]:
        spread = 2 * draw[1:5] - 1
        brightness, contrast, saturation = (
            1 + limit * spread[i] for i, limit in enumerate((config.brightness, config.contrast, config.saturation))
        )
        operations = (
            lambda planes: _blend(planes, brightness, 0.0),
            lambda planes: _blend(planes, contrast, jnp.mean(_grey(planes), axis=(1, 2), keepdims=True)),
            lambda planes: _blend(planes, saturation, _grey(planes)),
            lambda planes: _turn_hue(planes, config.hue * spread[3]),
        )
        order = jnp.argsort(draw[5:9])

        def jittered(planes: ColourPlanes) -> ColourPlanes:
            return jax.lax.fori_loop(0, 4, lambda place, planes: jax.lax.switch(order[place], operations, planes), planes)

        planes = tuple(image[..., channel] for channel in range(3))
        return jnp.stack(jax.lax.cond(draw[0] < config.jitter, jittered, lambda planes: planes, planes), axis=-1)

    by_form = {"samples": lambda *batch: jax.lax.map(lambda sample: one(*sample), batch), "batch": jax.vmap(one)}
    return forms.choose("jitter", by_form, images, draws)


def _blend(planes: ColourPlanes, factor: jax.Array, other: jax.Array | float) -> ColourPlanes:
    return tuple(jnp.clip(factor * plane + (1 - factor) * other, 0.0, 1.0) for plane in planes)


def _grey(planes: ColourPlanes) -> Float[Array, "f h w"]:
    return sum(weight * plane for weight, plane in zip(GREY, planes))


def _turn_hue(planes: ColourPlanes, turn: Float[Array, ""]) -> ColourPlanes:
    """The hue of HSV moved by ``turn`` (1 = once around); value and chroma do not change, so nothing needs clamping."""
    r, g, b = planes
    value = jnp.maximum(jnp.maximum(r, g), b)
    chroma = value - jnp.minimum(jnp.minimum(r, g), b)
    scale = 1.0 / jnp.where(chroma > 0, chroma, 1.0)
    sixth = jnp.where(value == r, (g - b) * scale, jnp.where(value == g, 2 + (b - r) * scale, 4 + (r - g) * scale))

    def channel(offset: float) -> Float[Array, "f h w"]:
        k = sixth + (6 * turn + offset)
        k = k - 6 * jnp.floor(k / 6)
        return value - chroma * jnp.clip(jnp.minimum(k, 4 - k), 0.0, 1.0)

    return channel(5.0), channel(3.0), channel(1.0)
