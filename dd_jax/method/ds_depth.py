"""DS-Depth (Miao et al. 2023): residual flow in addition to the rigid flow, and a cost volume along each."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from dd_jax.config import DsDepthConfig
from dd_jax.geometry.camera import divide, pixel_grid
from dd_jax.geometry.sampling import sample_border, sample_zeros
from dd_jax.geometry.se3 import invert_pose
from dd_jax.geometry.warp import pixel_rays, plane_motion, reproject
from dd_jax.losses import ssim
from dd_jax.method.cost_volume import over_bins
from dd_jax.networks.model import Networks
from dd_jax.types import NEXT, PREVIOUS, TARGET, Batch, CostVolume

sg = jax.lax.stop_gradient


def predict_residual_flows(
    model: Networks, batch: Batch, T_source_from_target: Float[Array, "b f 4 4"], depth: Float[Array, "b h w"]
) -> tuple[Float[Array, "b f _ _ 2"], ...]:
    """Flow to each source frame that remains after the rigid motion, per scale, in units of half an image.

    The flow network sees both images, the target warped rigidly to the source, the rigid flow in pixels, and the photometric
    error of the warp. No gradient passes through these inputs.
    """
    size = depth.shape[1:]
    target = batch.inputs[:, TARGET]
    u, v = pixel_grid(*size)
    grid = jnp.stack(jnp.broadcast_arrays(u, v), axis=-1)
    flows = []
    for place, source in enumerate((PREVIOUS, NEXT)[: T_source_from_target.shape[1]]):
        image = batch.inputs[:, source]
        coords = reproject(depth, batch.K, invert_pose(T_source_from_target[:, place]))
        warped = sample_border(target, coords)
        error = 0.85 * ssim.distance(warped, ssim.windowed(image, 1), 1) + 0.15 * jnp.abs(image - warped)
        norm = jnp.sqrt(jnp.sum((error + 1e-10) ** 2, axis=-1, keepdims=True))
        flows.append(model.flow(target, image, sg(warped), sg(coords - grid), sg(norm)))
    return tuple(jnp.stack(scale, axis=1) for scale in zip(*flows, strict=True))


def build_cost_volume(
    target_features: Float[Array, "b hq wq c"],
    lookup_features: Float[Array, "b hq wq c"],
    T_lookup_from_target: Float[Array, "b 4 4"],
    present: Bool[Array, " b"],
    residual_flow: Float[Array, "b hq wq 2"],
    K_quarter: Float[Array, "b 3 3"],
    bins: Float[Array, " k"],
    config: DsDepthConfig,
    margin: int = 2,
) -> CostVolume:
    """Costs along the rigid motion (static volume) and along rigid plus residual flow (dynamic volume), separate and fused.

    Args:
      residual_flow: in pixels of the feature maps.
      margin: matches closer than this many feature pixels to a border, in either frame, are not observed.
      Others as in :func:`dd_jax.method.cost_volume.build`.

    The static volume is right where nothing moves, the dynamic one where the flow is. Per pixel and bin the smaller cost counts;
    where only one volume observes a pixel at every depth, that one counts. Nothing here carries a gradient.
    """
    height, width = target_features.shape[1:3]
    homography, shift = plane_motion(K_quarter, T_lookup_from_target)
    rays = jnp.stack(pixel_rays(homography, height, width), axis=-1)
    reference = ssim.windowed(target_features.astype(jnp.float32), 1)
    u, v = jnp.arange(width), jnp.arange(height)[:, None]
    inner = (u >= margin) & (u < width - margin) & (v >= margin) & (v < height - margin)
    limits = jnp.array([width, height], jnp.float32) - margin

    def match(depth):
        points = depth * rays + shift[:, None, None]
        rigid = divide(points[..., 0], points[..., 1], points[..., 2])
        coords = jnp.stack([rigid, rigid + residual_flow])
        seen = inner & jnp.all((coords >= margin) & (coords <= limits), axis=-1)
        if not config.own_mask:
            seen = jnp.stack([seen[0], seen[0]])
        warped = sample_zeros(lookup_features, coords)
        nearest = jnp.mean(jnp.min(jnp.abs(warped - target_features), axis=0), axis=-1)
        similar = jnp.stack([jnp.mean(ssim.distance(one, reference, 1), axis=-1) for one in warped])
        return config.cost_ssim * similar + (1 - config.cost_ssim) * nearest, seen

    costs, seen = over_bins(match, bins)  # (k, 2, b, h, w)
    seen = seen & present[:, None, None]
    largest = jnp.max(jnp.where(seen, costs, 0.0), axis=0)
    costs = jnp.where(seen, costs, largest)
    complete = jnp.all(seen, axis=0)  # (2, b, h, w)
    fused = jnp.min(jnp.where(complete, costs, jnp.inf), axis=1)
    confident = jnp.any(complete, axis=0)
    fused = jnp.where(confident, fused, 0.0)
    cheapest = fused <= jnp.min(fused, axis=0)
    return CostVolume(
        costs=jnp.moveaxis(fused, 0, -1),
        observed=jnp.moveaxis(jnp.any(seen, axis=1), 0, -1),
        confidence=confident.astype(jnp.float32),
        lowest=jnp.max(jnp.where(cheapest, 1.0 / bins[:, None, None, None], 0.0), axis=0),
        static_and_dynamic=jnp.concatenate([jnp.moveaxis(costs[:, i], 0, -1) for i in range(2)], axis=-1),
    )
