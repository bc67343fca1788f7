"""Two cost volumes in one sweep: along the rigid motion, and along it plus a residual flow (DS-Depth, Wang et al. 2023).

The static volume is right where nothing moves, the dynamic one where the flow is; per pixel and bin the cheaper one counts.
Nothing in here carries a gradient: callers stop it.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from dd_jax.config import DsDepthConfig
from dd_jax.geometry.camera import divide
from dd_jax.geometry.sampling import sample_zeros
from dd_jax.geometry.warp import pixel_rays, plane_motion
from dd_jax.losses import ssim
from dd_jax.method.cost_volume import MARGIN
from dd_jax.types import CostVolume


def build(
    target_features: Float[Array, "b hq wq c"],
    lookup_features: Float[Array, "b hq wq c"],
    T_lookup_from_target: Float[Array, "b 4 4"],
    present: Bool[Array, " b"],
    residual: Float[Array, "b hq wq 2"],
    K_quarter: Float[Array, "b 3 3"],
    bins: Float[Array, " k"],
    config: DsDepthConfig,
) -> CostVolume:
    """Costs of both volumes, fused and apart, from one lookup frame.

    Args:
      residual: flow besides the rigid one, in pixels of the feature maps.
      Others as in :func:`dd_jax.cost_volume.build`.

    Where only one of the two observes a pixel at every depth, that one counts.
    """
    height, width = target_features.shape[1:3]
    homography, shift = plane_motion(K_quarter, T_lookup_from_target)
    rays = jnp.stack(pixel_rays(homography, height, width), axis=-1)
    current = ssim.moments(target_features.astype(jnp.float32), 1)
    u, v = jnp.arange(width), jnp.arange(height)[:, None]
    inner = (u >= MARGIN) & (u < width - MARGIN) & (v >= MARGIN) & (v < height - MARGIN)
    limits = jnp.array([width, height], jnp.float32) - MARGIN

    def match(depth):
        points = depth * rays + shift[:, None, None]
        rigid = divide(points[..., 0], points[..., 1], points[..., 2])
        places = jnp.stack([rigid, rigid + residual])
        seen = inner & jnp.all((places >= MARGIN) & (places <= limits), axis=-1)
        if not config.own_mask:
            seen = jnp.stack([seen[0], seen[0]])
        warped = sample_zeros(lookup_features, places)
        nearest = jnp.mean(jnp.min(jnp.abs(warped - target_features), axis=0), axis=-1)
        similar = jnp.stack([jnp.mean(ssim.distance(one, current, 1), axis=-1) for one in warped])
        return config.cost_ssim * similar + (1 - config.cost_ssim) * nearest, seen

    costs, seen = jax.lax.map(match, bins)  # (k, 2, b, h, w)
    seen = seen & present[:, None, None]
    worst = jnp.max(jnp.where(seen, costs, 0.0), axis=0)
    costs = jnp.where(seen, costs, worst)
    sure = jnp.all(seen, axis=0)  # (2, b, h, w)
    fused = jnp.min(jnp.where(sure, costs, jnp.inf), axis=1)
    confident = jnp.any(sure, axis=0)
    fused = jnp.where(confident, fused, 0.0)
    cheapest = fused <= jnp.min(fused, axis=0)
    return CostVolume(
        costs=jnp.moveaxis(fused, 0, -1),
        observed=jnp.moveaxis(jnp.any(seen, axis=1), 0, -1),
        confidence=confident.astype(jnp.float32),
        lowest=jnp.max(jnp.where(cheapest, 1.0 / bins[:, None, None, None], 0.0), axis=0),
        static_and_dynamic=jnp.concatenate([jnp.moveaxis(costs[:, i], 0, -1) for i in range(2)], axis=-1),
    )
