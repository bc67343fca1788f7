"""Photometric error between warped source frames and the target frame, and the pixels it is taken over."""

import functools

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float

from dd_jax.config import LossConfig
from dd_jax.losses import ssim
from dd_jax.runtime import forms, reduce
from dd_jax.types import Views

UNUSABLE = 1e6  # error of a source that must not win a minimum; finite, so that gradients stay finite


@struct.dataclass
class Target:
    """The target frame as every network, scale and source is compared with it."""

    image: Float[Array, "b h w 3"]
    statistics: ssim.Reference
    weights: Float[Array, " b"] | None = None  # of the samples' photometric errors; None: all equal


def reprojection_error(
    views: Views, target: Target, exists: Bool[Array, "b f"], loss: LossConfig
) -> tuple[Float[Array, "s b h w"], Bool[Array, "*#s b #h #w"]]:
    """Photometric error of every target pixel, reduced over the sources, and the pixels that any source shows."""
    warped = views.warped
    if views.holes is not None and loss.occlusion_rule != "min":
        # SSIM windows around a hole reach into it. Filled with the target's own pixels, the hole adds no difference.
        warped = jnp.where(views.holes[..., None], target.image, warped)
    if views.moved is None:
        error = photometric_error(warped, target.statistics, loss.ssim)
    else:
        error = adaptive_error(warped, views.moved, target.statistics, loss.ssim)
    return combine_sources(error, exists, views.holes, loss)


def photometric_mean(
    error: Float[Array, "s b h w"], mask: Bool[Array, "*#s b #h #w"], target: Target, axis: str | None
) -> jax.Array:
    """Mean of the (weighted) error over the pixels of ``mask``, per scale."""
    if target.weights is not None:
        error = error * target.weights[:, None, None]
    mask = jnp.broadcast_to(mask, error.shape).astype(error.dtype)
    return reduce.masked_mean(error, mask, axis, dims=(1, 2, 3))


def photometric_error(pred: Float[Array, "*n b h w 3"], target: ssim.Reference, ssim_share: float) -> Float[Array, "*n b h w"]:
    """``ssim_share`` * SSIM distance + (1 - ``ssim_share``) * absolute difference, averaged over channels (Monodepth2, eq. 3).

    The gradient goes to ``pred`` alone.
    """
    if ssim_share == 0:
        return _channel_mean(jnp.abs(jnp.moveaxis(pred, -1, -3) - _target_planes(target)))
    return _mixed_error(pred, (target.values, target.mean, target.variance), ssim_share)


def adaptive_error(
    rigid: Float[Array, "*n b h w 3"], moved: Float[Array, "*n b h w 3"], target: ssim.Reference, ssim_share: float
) -> Float[Array, "*n b h w"]:
    """Mean SSIM distance of two views, and per channel the smaller of their absolute differences (DS-Depth, section 3.4)."""
    similar = (photometric_error(rigid, target, 1.0) + photometric_error(moved, target, 1.0)) / 2
    nearest = _smaller(*(jnp.abs(jnp.moveaxis(view, -1, -3) - _target_planes(target)) for view in (rigid, moved)))
    return ssim_share * similar + (1 - ssim_share) * _channel_mean(nearest)


def _target_planes(target: ssim.Reference) -> Float[Array, "b 3 h w"]:
    return jax.lax.stop_gradient(ssim.inside(target.values) + ssim.GREY)


def _channel_mean(planes: Float[Array, "*n 3 h w"]) -> Float[Array, "*n h w"]:
    return sum(planes[..., channel, :, :] for channel in range(3)) * (1 / 3)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _mixed_error(pred: jax.Array, target: tuple[jax.Array, ...], ssim_share: float) -> jax.Array:
    return _mixed_error_forward(pred, target, ssim_share)[0]


def _mixed_error_forward(pred, target, ssim_share):
    planes, target = ssim.planes(pred), ssim.Reference(*target)

    def error(planes):
        similar = ssim.distance_of(ssim.moments(planes, target), target)
        return _channel_mean(ssim_share * similar + (1 - ssim_share) * jnp.abs(ssim.inside(planes) - ssim.inside(target.values)))

    return forms.image_by_image(error, 4, planes), (planes, target)


def _mixed_error_backward(ssim_share, residuals, gradient):
    planes, target = residuals
    gradient = (gradient * (1 / 3))[..., None, :, :]

    def of_difference(planes, gradient):
        return (1 - ssim_share) * gradient * jnp.sign(ssim.inside(planes) - ssim.inside(target.values))

    by_difference = forms.image_by_image(of_difference, 4, planes, gradient)
    return ssim.interleaved(ssim.distance_gradient(planes, target, ssim_share * gradient) + by_difference), None


_mixed_error.defvjp(_mixed_error_forward, _mixed_error_backward)


def combine_sources(
    errors: Float[Array, "*n f b h w"],
    exists: Bool[Array, "b f"],
    holes: Bool[Array, "*n f b h w"] | None,
    loss: LossConfig,
) -> tuple[Float[Array, "*n b h w"], Bool[Array, "*#n b #h #w"]]:
    """One error per pixel from those of all sources, and the mask of pixels that have one.

    Missing source frames are ignored. ``loss.occlusion_rule`` decides about holes (a removed object with nothing known behind
    it): "switch" uses the other sources (DynamicDepth, sec. 3.4), "union" drops the pixel, "min" treats a hole like any other
    content. Pixels without an error have the value 0 and are False in the mask.
    """
    present = exists.T[:, :, None, None]  # (f, b, 1, 1)
    use_holes = holes is not None and loss.occlusion_rule != "min"
    usable = present & ~holes if use_holes else present
    if loss.source_reduce == "min":
        chosen = _smallest(jax.lax.stop_gradient(jnp.where(usable, errors, UNUSABLE)))
        error = jnp.sum(jnp.where(chosen, errors, 0), axis=-4)
    else:
        count = jnp.maximum(jnp.sum(usable, axis=-4), 1)
        error = jnp.sum(jnp.where(usable, errors, 0), axis=-4) / count
    if use_holes and loss.occlusion_rule == "union":
        seen = jnp.all(usable | ~present, axis=-4) & jnp.any(present, axis=-4)
    else:
        seen = jnp.any(usable, axis=-4)
    return jnp.where(seen, error, 0), seen


def _smallest(candidates: Float[Array, "*n f b h w"]) -> Bool[Array, "*n f b h w"]:
    """Where each source is the first that has the smallest value. The gradient of a minimum would be a concatenation."""
    best, *others = jnp.unstack(candidates, axis=-4)
    winner = jnp.zeros(best.shape, jnp.int32)
    for index, other in enumerate(others, 1):
        closer = other < best
        best, winner = jnp.where(closer, other, best), jnp.where(closer, index, winner)
    return jnp.expand_dims(winner, -4) == jnp.arange(1 + len(others))[:, None, None, None]


def _smaller(a: jax.Array, b: jax.Array) -> jax.Array:
    """``jnp.minimum``, whose gradient does not depend on two computations of one number being equal (see ``max_pool``)."""
    return jnp.where(b < a, b, a)
