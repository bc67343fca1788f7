"""Relative poses refined by direct image alignment: Gauss-Newton on the difference of warped images, with depth given.

A dense form of direct visual odometry (Steinbruecker et al. 2011; Kerl et al. 2013), with robust weights against moving objects
and occlusions. Images are normalised by their local contrast, so that exposure does not matter. Nothing carries a gradient.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dd_jax.geometry.camera import backproject, divide, reduce_intrinsics
from dd_jax.geometry.sampling import reduce_image, sample_border
from dd_jax.geometry.se3 import compose, pose_from_parameters
from dd_jax.losses import ssim
from dd_jax.networks.layers import edge_pad

HALVINGS = (3, 2, 1)
"""Sizes at which images are aligned, one after the other: 1/8, 1/4 and 1/2."""

CONTRAST_RADIUS = 3
"""Of the window, in pixels of each size, in which images are normalised."""

DAMPING = 1e-3
"""Share of the diagonal added to the normal equations."""

FORWARD = 1e-3
"""Forward motion, as a share of the harmonic mean depth, added to the translation for its direction: that of a standing camera is
not known."""


def refine_poses(
    T_source_from_target: Float[Array, "b 4 4"],
    depth: Float[Array, "b h w"],
    target: Float[Array, "b h w 3"],
    source: Float[Array, "b h w 3"],
    K: Float[Array, "b 3 3"],
    iterations: int,
) -> Float[Array, "b 4 4"]:
    """Poses that align the source image with the target: rotation and length of the translation, along its given direction.

    The direction is kept because sideways and vertical translation and rotation move a picture in nearly the same way; the pose
    network has learnt how the camera moves.

    Args:
      depth: of the target, in the unit of the translation.
      iterations: at each size.

    A pose stays as it is if the images do not agree better at the last size.
    """
    translation = T_source_from_target[:, :3, 3]
    forward = FORWARD / jnp.mean(1 / depth, axis=(1, 2)) * jnp.sign(translation[:, 2])
    direction = translation + forward[:, None] * jnp.array([0.0, 0.0, 1.0])
    direction = direction / (jnp.linalg.norm(direction, axis=1, keepdims=True) + 1e-12)
    T = T_source_from_target
    for halvings in HALVINGS:
        alignment = _Alignment(depth, target, source, K, direction, halvings)
        T = jax.lax.fori_loop(0, iterations, lambda _, T, step=alignment.step: step(T), T)
    spread = alignment.spread(T_source_from_target)
    better = alignment.difference(T, spread) < alignment.difference(T_source_from_target, spread)
    return jax.lax.stop_gradient(jnp.where(better[:, None, None], T, T_source_from_target))


class _Alignment:
    """Images and points at one size."""

    def __init__(self, depth, target, source, K, direction, halvings):
        self.direction = direction
        self.K = reduce_intrinsics(K, halvings)
        self.points = backproject(1 / reduce_image(1 / depth[..., None], halvings)[..., 0], self.K)
        self.target = _normalised(reduce_image(target, halvings))
        image = _normalised(reduce_image(source, halvings))
        padded = edge_pad(image[..., None])[..., 0]
        slopes = (padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]) / 2, (padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]) / 2
        self.source = jnp.stack([image, *slopes], axis=-1)

    def compare(self, T):
        """Differences of the warped source from the target, the pixels that it shows, and what the Jacobian needs."""
        height, width = self.target.shape[1:]
        moved = jnp.einsum("bij,bhwj->bhwi", T[:, :3, :3], self.points, precision="highest") + T[:, None, None, :3, 3]
        x, y, z = moved[..., 0], moved[..., 1], jnp.maximum(moved[..., 2], 1e-3)
        fx, fy, cx, cy = (self.K[:, i, j, None, None] for i, j in ((0, 0), (1, 1), (0, 2), (1, 2)))
        coords = divide(fx * x + cx * z, fy * y + cy * z, z)
        value, slope_u, slope_v = jnp.moveaxis(sample_border(self.source, coords), -1, 0)
        seen = jnp.all((coords >= 0) & (coords <= jnp.array([width - 1, height - 1])), axis=-1) & (moved[..., 2] > 1e-3)
        return jnp.where(seen, value - self.target, 0.0), seen, (slope_u * fx / z, slope_v * fy / z, x, y, z)

    def spread(self, T):
        """Mean absolute difference."""
        return _spread(*self.compare(T)[:2])

    def difference(self, T, spread):
        """Mean of bounded differences, in units of ``spread``; what the source does not show counts as the bound."""
        difference, seen, _ = self.compare(T)
        squared = (difference / spread) ** 2
        return jnp.mean(jnp.where(seen, squared / (1 + squared), 1.0), axis=(1, 2))

    def step(self, T):
        """One step of Gauss-Newton with Geman-McClure weights."""
        difference, seen, (by_x, by_y, x, y, z) = self.compare(T)
        weight = jnp.where(seen, 1 / (1 + (difference / _spread(difference, seen)) ** 2) ** 2, 0.0)
        by_z = -(by_x * x + by_y * y) / z
        a, b, c = (self.direction[:, i, None, None] for i in range(3))
        jacobian = jnp.stack([by_z * y - by_y * z, by_x * z - by_z * x, by_y * x - by_x * y, by_x * a + by_y * b + by_z * c])
        weighted = (jacobian * weight).reshape(4, T.shape[0], -1)
        jacobian, difference = jacobian.reshape(weighted.shape), difference.reshape(T.shape[0], -1)
        H = jnp.einsum("ibp,jbp->ijb", weighted, jacobian, precision="highest")
        g = jnp.einsum("ibp,bp->ib", weighted, difference, precision="highest")
        update = -_solve(H, g)
        moved = compose(pose_from_parameters(update[:3].T, update[3, :, None] * self.direction), T)
        return jnp.where(jnp.all(jnp.isfinite(moved), axis=(1, 2), keepdims=True), moved, T)


def _spread(difference, seen):
    count = jnp.maximum(jnp.sum(seen, axis=(1, 2), keepdims=True), 1)
    return 1.25 * jnp.sum(jnp.abs(difference), axis=(1, 2), keepdims=True) / count + 1e-3


def _solve(H: Float[Array, "n n b"], g: Float[Array, "n b"]) -> Float[Array, "n b"]:
    """Damped symmetric positive systems by elimination, written out: a batch of tiny systems in elementary operations."""
    n = len(H)
    rows = [[H[i, j] * (1 + DAMPING * (i == j)) + 1e-8 * (i == j) for j in range(n)] + [g[i]] for i in range(n)]
    for k in range(n):
        rows[k] = [value / rows[k][k] for value in rows[k]]
        for i in range(n):
            if i != k:
                rows[i] = [value - rows[i][k] * pivot for value, pivot in zip(rows[i], rows[k], strict=True)]
    return jnp.stack([row[-1] for row in rows])


def _normalised(image: Float[Array, "b h w 3"]) -> Float[Array, "b h w"]:
    """Grey values less the mean of their surroundings, divided by their deviation."""
    grey = jnp.mean(image, axis=-1, keepdims=True)
    surroundings = ssim.windowed(grey, CONTRAST_RADIUS)
    deviation = jnp.sqrt(jnp.maximum(surroundings.variance, 0.0)) + 0.02
    return ((grey - 0.5 - surroundings.mean) / deviation)[..., 0]
