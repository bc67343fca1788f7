"""How well warped source frames explain the target frame, and which pixels may be asked.

Pictures are handled as rows of ``w * 3`` numbers: a shift by one pixel is then a shift by three contiguous numbers, which
vectorises, whereas arrays whose last axis has length 3 do not.
"""

import functools

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float

from dd_jax.config import LossConfig

_C1, _C2 = 0.01**2, 0.03**2
_GREY = 0.5  # variances are taken of differences from it: of values near 1 they would lose ten times more digits
_UNUSABLE = 1e6  # error of a source that must not win a minimum; finite, so that gradients stay finite


@struct.dataclass
class TargetStatistics:
    """The target's side of SSIM, the same for every network, scale and source."""

    rows: Float[Array, "b h w3"]
    mean: Float[Array, "b h w3"]  # less mid-grey
    variance: Float[Array, "b h w3"]


def _part(x: jax.Array, start: int, stop: int, axis: int, step: int) -> jax.Array:
    return jax.lax.slice_in_dim(x, start * step, stop * step, axis=axis)


def _sum3(x: jax.Array, axis: int, step: int) -> jax.Array:
    """Sum over a pixel and its two neighbours, the border reflected."""
    n, part = x.shape[axis] // step, functools.partial(_part, x, axis=axis, step=step)
    first = part(0, 1) + 2 * part(1, 2)
    inner = part(0, n - 2) + part(1, n - 1) + part(2, n)
    last = part(n - 1, n) + 2 * part(n - 2, n - 1)
    return jnp.concatenate([first, inner, last], axis)


def _sum3_transposed(g: jax.Array, axis: int, step: int) -> jax.Array:
    n, part = g.shape[axis] // step, functools.partial(_part, g, axis=axis, step=step)
    first = part(0, 1) + part(1, 2)
    second = 2 * part(0, 1) + part(1, 2) + part(2, 3)
    inner = part(1, n - 3) + part(2, n - 2) + part(3, n - 1)
    before_last = part(n - 3, n - 2) + part(n - 2, n - 1) + 2 * part(n - 1, n)
    last = part(n - 2, n - 1) + part(n - 1, n)
    return jnp.concatenate([first, second, inner, before_last, last], axis)


def _box(rows: jax.Array) -> jax.Array:
    """3x3 mean of each channel, the border reflected; rows (..., h, w * 3)."""
    return _sum3(_sum3(rows, rows.ndim - 1, 3), rows.ndim - 2, 1) * (1 / 9)


def _box_transposed(g: jax.Array) -> jax.Array:
    return _sum3_transposed(_sum3_transposed(g, g.ndim - 1, 3), g.ndim - 2, 1) * (1 / 9)


def _rows(image: jax.Array) -> jax.Array:
    return image.reshape(*image.shape[:-2], -1)


def channel_mean(rows: Float[Array, "*n w3"]) -> Float[Array, "*n w"]:
    """Mean over the three interleaved channels of rows of pixels."""
    return (rows[..., 0::3] + rows[..., 1::3] + rows[..., 2::3]) * (1 / 3)


def target_statistics(target: Float[Array, "b h w 3"]) -> TargetStatistics:
    """Local mean and variance of the target.

    Raises:
      ValueError: an image with a side below 4 pixels.
    """
    if min(target.shape[1:3]) < 4:
        raise ValueError(f"SSIM needs images of at least 4x4 pixels, not {target.shape[1]}x{target.shape[2]}")
    rows = _rows(target)
    mean, square = _box(jnp.stack([rows - _GREY, (rows - _GREY) ** 2]))
    return TargetStatistics(rows, mean, square - mean * mean)


Moments = Float[Array, "3 *n b h w3"]
"""Local means of the prediction, its square and its product with the target, both less mid-grey."""


def _moments(rows: jax.Array, target: TargetStatistics) -> Moments:
    rows = rows - _GREY
    return _box(jnp.stack([rows, rows * rows, rows * (target.rows - _GREY)]))


def _ssim_factors(moments: Moments, target: TargetStatistics) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """SSIM is the product of the first two over the product of the last two."""
    mean, square, product = moments[0], moments[1], moments[2]
    light, target_light = mean + _GREY, target.mean + _GREY
    return (
        2 * light * target_light + _C1,
        2 * (product - mean * target.mean) + _C2,
        light * light + target_light * target_light + _C1,
        square - mean * mean + target.variance + _C2,
    )


def _ssim_distance(moments: Moments, target: TargetStatistics) -> jax.Array:
    n1, n2, d1, d2 = _ssim_factors(moments, target)
    return jnp.clip((1 - n1 * n2 / (d1 * d2)) * 0.5, 0, 1)


def ssim_distance(pred: Float[Array, "*n b h w 3"], target: TargetStatistics) -> Float[Array, "*n b h w 3"]:
    """(1 - SSIM) / 2 in [0, 1] per channel, 3x3 mean filter, reflected border (Monodepth2, eq. 3)."""
    return _ssim_distance(_moments(_rows(pred), target), target).reshape(pred.shape)


def photometric_error(pred: Float[Array, "*n b h w 3"], target: TargetStatistics, ssim: float) -> Float[Array, "*n b h w"]:
    """``ssim`` * SSIM distance + (1 - ``ssim``) * absolute difference, channels averaged (Monodepth2, eq. 3).

    The gradient goes to ``pred`` alone.
    """
    rows = _rows(pred)
    if ssim == 0:
        return channel_mean(jnp.abs(rows - jax.lax.stop_gradient(target.rows)))
    return _mixed_error(rows, (target.rows, target.mean, target.variance), ssim)


def adaptive_error(
    rigid: Float[Array, "*n b h w 3"], moved: Float[Array, "*n b h w 3"], target: TargetStatistics, ssim: float
) -> Float[Array, "*n b h w"]:
    """The mean of two views' SSIM distances, and per channel the smaller of their differences (DS-Depth, section 3.4)."""
    similar = (photometric_error(rigid, target, 1.0) + photometric_error(moved, target, 1.0)) / 2
    rows = jax.lax.stop_gradient(target.rows)
    nearest = channel_mean(_smaller(jnp.abs(_rows(rigid) - rows), jnp.abs(_rows(moved) - rows)))
    return ssim * similar + (1 - ssim) * nearest


# The gradient is written out: automatic differentiation turns each of the many slices into a padded copy of the whole array,
# which takes three times as long to compile, half as long again to run and twice the memory.
@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _mixed_error(rows: jax.Array, target: tuple[jax.Array, ...], ssim: float) -> jax.Array:
    return _mixed_error_forward(rows, target, ssim)[0]


def _mixed_error_forward(rows, target, ssim):
    target = TargetStatistics(*target)
    moments = _moments(rows, target)
    error = channel_mean(ssim * _ssim_distance(moments, target) + (1 - ssim) * jnp.abs(rows - target.rows))
    return error, (rows, target, moments)


def _mixed_error_backward(ssim, residuals, gradient):
    rows, target, moments = residuals
    mean = moments[0]
    gradient = jnp.broadcast_to((gradient * (1 / 3))[..., None], (*gradient.shape, 3)).reshape(rows.shape)
    n1, n2, d1, d2 = _ssim_factors(moments, target)
    scale = 1 / (d1 * d2)
    value = n1 * n2 * scale
    outer = jnp.where(jnp.abs(value) < 1, (-0.5 * ssim) * gradient, 0) * scale  # clipped elsewhere
    by_light, by_shift = (target.mean + _GREY) * n2 - (mean + _GREY) * value * d2, mean * value * d1 - target.mean * n1
    by_mean = 2 * outer * (by_light + by_shift)
    by_square, by_product = -outer * value * d1, 2 * outer * n1
    through = _box_transposed(jnp.stack([by_mean, by_square, by_product]))
    by_rows = through[0] + 2 * (rows - _GREY) * through[1] + (target.rows - _GREY) * through[2]
    return by_rows + (1 - ssim) * gradient * jnp.sign(rows - target.rows), None


_mixed_error.defvjp(_mixed_error_forward, _mixed_error_backward)


def combine_sources(
    errors: Float[Array, "*n f b h w"],
    exists: Bool[Array, "b f"],
    holes: Bool[Array, "*n f b h w"] | None,
    loss: LossConfig,
) -> tuple[Float[Array, "*n b h w"], Bool[Array, "*#n b #h #w"]]:
    """One error per pixel from those of all sources, and the pixels for which there is one.

    A source frame that does not exist never takes part. ``loss.occlusion_rule`` says what a hole (an object removed, nothing
    known behind it) does: "switch" asks the other sources (DynamicDepth, sec. 3.4), "union" gives the pixel up, "min" treats
    it like any other content. Pixels without an answer have error 0 and are False in the second result.
    """
    present = exists.T[:, :, None, None]  # (f, b, 1, 1)
    use_holes = holes is not None and loss.occlusion_rule != "min"
    usable = present & ~holes if use_holes else present
    if loss.source_reduce == "min":
        candidates = jnp.where(usable, errors, _UNUSABLE)
        error = functools.reduce(_smaller, jnp.unstack(candidates, axis=-4))
    else:
        count = jnp.maximum(jnp.sum(usable, axis=-4), 1)
        error = jnp.sum(jnp.where(usable, errors, 0), axis=-4) / count
    if use_holes and loss.occlusion_rule == "union":
        seen = jnp.all(usable | ~present, axis=-4) & jnp.any(present, axis=-4)
    else:
        seen = jnp.any(usable, axis=-4)
    return jnp.where(seen, error, 0), seen


def _smaller(a: jax.Array, b: jax.Array) -> jax.Array:
    """``jnp.minimum``, whose gradient does not depend on two computations of one number being equal (see ``max_pool``)."""
    return jnp.where(b < a, b, a)


def auto_mask(
    error: Float[Array, "s b h w"],
    originals: Float[Array, "f b h w 3"],
    target: TargetStatistics,
    exists: Bool[Array, "b f"],
    noise: Float[Array, "b h w"],
    loss: LossConfig,
) -> Bool[Array, "s b h w"]:
    """Pixels that no unwarped source explains better (Monodepth2, eq. 5); drops a standing camera and its fellow travellers.

    ``noise`` is added to the identity error and decides between equal errors.
    """
    identity, seen = combine_sources(photometric_error(originals, target, loss.ssim), exists, None, loss)
    return error <= jnp.where(seen, identity, _UNUSABLE) + noise
