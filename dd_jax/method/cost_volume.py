"""Plane sweep of the lookup frames' features against the target's (ManyDepth), and the adaptive depth bins.

For each depth bin every target pixel is moved to that depth and projected into the lookup frame; the cost is the mean
absolute difference of the features found there. Nothing in here carries a gradient: callers stop it.
"""

import functools
from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from dd_jax.config import CostVolumeConfig
from dd_jax.geometry.camera import divide
from dd_jax.geometry.sampling import corner_weights, corners, interpolate, pad_zeros, reduce_image
from dd_jax.geometry.warp import pixel_rays, plane_motion
from dd_jax.losses import ssim
from dd_jax.method.occlusion_filling import fill_costs, pool_features
from dd_jax.runtime import forms, reduce
from dd_jax.types import CostVolume

T = TypeVar("T")

CONTRAST_RADIUS = 4
"""Of the surroundings by which colours are normalised, in pixels at a quarter of the image size."""


def normalised_colours(image: Float[Array, "*n h w 3"]) -> Float[Array, "*n hq wq 3"]:
    """Colours at a quarter of the size, normalised by their surroundings: features without training."""
    small = reduce_image(image, 2)
    stacked = small.reshape(-1, *small.shape[-3:])
    surroundings = ssim.windowed(stacked, CONTRAST_RADIUS)
    deviation = jnp.sqrt(jnp.maximum(surroundings.variance, 0.0)) + 0.03
    return ((stacked - 0.5 - surroundings.mean) / deviation).reshape(small.shape)


def depth_bins(depth_range: Float[Array, "2"], config: CostVolumeConfig) -> Float[Array, " k"]:
    """Increasing bin depths from the nearest to the farthest tracked depth, evenly spaced in depth, 1 / depth or log depth."""
    near, far = depth_range[0], depth_range[1]
    step = jnp.arange(config.bins, dtype=jnp.float32) / max(config.bins - 1, 1)
    if config.binning == "inverse":
        return 1.0 / (1.0 / near + step * (1.0 / far - 1.0 / near))
    if config.binning == "log":
        return near * (far / near) ** step
    return near + step * (far - near)


def update_depth_range(
    depth_range: Float[Array, "2"],
    teacher_depth: Float[Array, "b h w"],
    config: CostVolumeConfig,
    min_depth: float,
    axis: str | None,
) -> Float[Array, "2"]:
    """Moving average of the (nearest, farthest) depth of the teacher, with a margin of 10 % (ManyDepth, section 3.2).

    Extremes, or the outer ``range_percentile`` of every fourth row and column, are taken per image and averaged over the samples
    of all devices of ``axis``.
    """
    if config.range_percentile > 0:
        outer = jnp.array([config.range_percentile, 100 - config.range_percentile])
        nearest, farthest = jnp.percentile(teacher_depth[:, ::4, ::4], outer, axis=(1, 2))
    else:
        nearest, farthest = jnp.min(teacher_depth, axis=(1, 2)), jnp.max(teacher_depth, axis=(1, 2))
    near = jnp.maximum(min_depth, 0.9 * reduce.mean(nearest, axis))
    far = 1.1 * reduce.mean(farthest, axis)
    return config.tracker_momentum * depth_range + (1.0 - config.tracker_momentum) * jnp.stack([near, far])


def build(
    target_features: Float[Array, "b hq wq c"],
    lookup_features: Float[Array, "b n hq wq c"],
    T_lookup_from_target: Float[Array, "b n 4 4"],
    present: Bool[Array, "b n"],
    holes: Float[Array, "b n hq wq"] | None,
    K_quarter: Float[Array, "b 3 3"],
    bins: Float[Array, " k"],
    config: CostVolumeConfig,
) -> CostVolume:
    """Cost of every depth bin at every pixel.

    Args:
      present: whether the sample has this lookup frame; a missing one observes nothing.
      holes: 1 where DOMD removed an object from the lookup frame and nothing is known; None if frames have no holes.
      K_quarter: intrinsics in pixels of the feature maps.
      bins: increasing depths.

    Costs are averaged over ``window``. A pixel that no lookup frame observes at a depth takes its largest observed cost (0 where
    there is none). A frame observes a pixel if it exists and both ends of the match lie ``margin`` pixels inside. Source:
    ManyDepth eq. 2 and 3; occlusion filling: DynamicDepth section 3.3.
    """
    batch, frames, *size, channels = lookup_features.shape
    fill = config.occlusion if holes is not None else "none"
    sweep = _Sweep(
        target=jnp.repeat(target_features, frames, axis=0),
        lookup=lookup_features.reshape(-1, *size, channels),
        T=T_lookup_from_target.reshape(-1, 4, 4),
        K=jnp.repeat(K_quarter, frames, axis=0),
        holes=None if fill == "none" else holes.reshape(-1, *size),
        bins=bins,
        config=config,
    )
    costs, occluded, seen = over_bins(sweep.match, bins)
    if fill == "feature_pool":
        features = functools.partial(sweep.visible_features, occluded)
        costs = pool_features(costs, occluded, seen, features, sweep.cost_at, config.pool_radius)
    if fill == "cost_fill":
        costs, seen = fill_costs(costs, seen & ~occluded, seen, config.pool_radius)

    costs = window_mean(costs, seen, config.window)
    by_frame = (bins.shape[0], batch, frames, *size)
    costs, seen = costs.reshape(by_frame), seen.reshape(by_frame) & present[:, :, None, None]
    observed = jnp.any(seen, axis=2)
    if config.aggregate == "mean":
        costs = jnp.sum(jnp.where(seen, costs, 0.0), axis=2) / jnp.maximum(jnp.sum(seen, axis=2), 1)
    else:
        costs = jnp.min(jnp.where(seen, costs, jnp.inf), axis=2)
    return fill_unobserved(costs, observed, bins)


def over_bins(match: Callable[[Float[Array, ""]], T], bins: Float[Array, " k"]) -> T:
    """``match(depth)`` of every bin, stacked: in a loop over as many bins per round as the backend takes."""
    at_once = {form: None if form == "1" else int(form) for form in forms.OPERATIONS["bins"]}
    by_form = {form: functools.partial(jax.lax.map, match, batch_size=count) for form, count in at_once.items()}
    return forms.choose("bins", by_form, bins)


def window_mean(costs: Float[Array, "*n h w"], seen: Bool[Array, "*n h w"], window: int) -> Float[Array, "*n h w"]:
    """Mean cost of the seen pixels in a square of ``window`` pixels, an odd number, around each pixel; 0 if there are none."""
    if window == 1:
        return costs
    sums = jnp.where(seen, costs, 0.0), seen.astype(costs.dtype)
    for axis in (-1, -2):
        sums = [sliding_sum(x, window, axis) for x in sums]
    return sums[0] / jnp.maximum(sums[1], 1.0)


def sliding_sum(x: Float[Array, "*n h w"], window: int, axis: int) -> Float[Array, "*n h w"]:
    """Sum of the ``window`` values around each one along an axis; outside the array they are 0."""
    axis %= x.ndim
    padding = [(window // 2, window // 2) if a == axis else (0, 0) for a in range(x.ndim)]
    padded = jnp.pad(x, padding)
    return sum(jax.lax.slice_in_dim(padded, start, start + x.shape[axis], axis=axis) for start in range(window))


def fill_unobserved(costs: Float[Array, "k b h w"], observed: Bool[Array, "k b h w"], bins: Float[Array, " k"]) -> CostVolume:
    """The volume of one cost per bin and pixel, with unobserved entries filled."""
    largest = jnp.max(jnp.where(observed, costs, 0.0), axis=0)
    costs = jnp.where(observed, costs, largest)
    cheapest = costs <= jnp.min(costs, axis=0)
    return CostVolume(
        costs=jnp.moveaxis(costs, 0, -1),
        observed=jnp.moveaxis(observed, 0, -1),
        confidence=jnp.all(observed, axis=0).astype(jnp.float32),
        lowest=jnp.max(jnp.where(cheapest, 1.0 / bins[:, None, None, None], 0.0), axis=0),  # bins increase: first of equals
    )


class _Sweep:
    """One target and one lookup image per entry ``m`` (sample and lookup frame)."""

    def __init__(self, target, lookup, T, K, holes, bins, config):
        self.target, self.holes, self.bins, self.config = target, holes, bins, config
        self.lookup = pad_zeros(lookup)
        homography, self.shift = plane_motion(K, T)
        self.rays = jnp.stack(pixel_rays(homography, *target.shape[1:3]), axis=-1)  # (m, h, w, 3), shared by all bins

    def match(self, depth):
        """Costs, occlusion and visibility at a depth: (m, h, w) each. Occluded features count as 0 (set_one: as 1)."""
        height, width = self.target.shape[1:3]
        points = depth * self.rays + self.shift[:, None, None]
        coords = divide(points[..., 0], points[..., 1], points[..., 2])
        u, v = jnp.arange(width), jnp.arange(height)[:, None]
        margin = self.config.margin
        inner = (u >= margin) & (u < width - margin) & (v >= margin) & (v < height - margin)
        limits = jnp.array([width, height], jnp.float32) - margin
        seen = inner & jnp.all((coords >= margin) & (coords <= limits), axis=-1)

        corner, fx, fy = corners(self.lookup.shape, coords + 1.0)
        weights = corner_weights(fx, fy)
        if self.holes is None:
            return _difference(interpolate(self.lookup, corner, weights), self.target), jnp.zeros_like(seen), seen
        occluded = interpolate(pad_zeros(self.holes[..., None]), corner, weights)[..., 0] > self.config.pool_threshold
        if self.config.occlusion != "cost_fill":
            weights = [jnp.where(occluded, 0.0, weight) for weight in weights]
        warped = interpolate(self.lookup, corner, weights)
        if self.config.occlusion == "set_one":
            warped = warped + occluded[..., None]
        return _difference(warped, self.target), occluded, seen

    def visible_features(self, occluded, k, m, y, x):
        """Warped features (p, c) at positions given by four index vectors (p,), 0 where occluded."""
        point = self.bins[k][:, None] * self.rays[m, y, x] + self.shift[m]
        coords = divide(point[:, 0], point[:, 1], point[:, 2])[None, :, None] + 1.0
        corner, fx, fy = corners(self.lookup.shape, coords)
        first = m[None, :, None] * (self.lookup.shape[1] * self.lookup.shape[2])
        hidden = occluded[k, m, y, x][None, :, None]
        weights = [jnp.where(hidden, 0.0, weight) for weight in corner_weights(fx, fy)]
        in_a_row = self.lookup.reshape(1, -1, *self.lookup.shape[2:])
        return interpolate(in_a_row, first + corner, weights)[0, :, 0]

    def cost_at(self, features, m, y, x):
        """Cost (p,) of features (p, c) against the target at positions given by three index vectors."""
        return _difference(features, self.target[m, y, x])


def _difference(a, b):
    # A product with a constant vector: a reduction over the minor axis is slower on a CPU.
    share = jnp.full((a.shape[-1],), 1.0 / a.shape[-1], a.dtype)
    return jnp.einsum("...c,c->...", jnp.abs(a - b), share, precision=jax.lax.Precision.HIGHEST)
