"""Height of the camera above the road in the unit of a predicted depth; the ratio to the true height gives metres.

The inverse depth of a plane is an affine function of the pixel: for the plane ``n . X = h`` in camera coordinates,
``1 / depth = (n / h) . K^-1 (u, v, 1)``. So road pixels are found by fitting planes to inverse depth, by RANSAC with three
pixels (Fischler and Bolles 1981), then by least squares over the inliers. The height is the median of ``n . X`` over the
inliers. Scaling by the camera height follows Xue et al. 2020 (DNet), who find the road by the normals of single pixels.

The direction of ``n`` is the main source of error. A car's camera looks along the road within a degree or two, or is mounted
at a known angle, but predicted roads are tilted, by ten degrees for weak networks, and an error of one degree 8 m ahead is
14 cm in the height. So the fitted tilt relative to the mounting is weighted down the larger it is (Tukey's biweight): nearly
full weight at 1 degree, three quarters at 2, zero from 6 on.
"""

import numpy as np
from jaxtyping import Float

DRAWS = 200
PIXELS = 2_000
"""Largest number of pixels used, from the middle of the image below the horizon, where the road is."""

MIDDLE = (0.2, 0.8)
"""Columns, as fractions of the width."""

BELOW_HORIZON = 0.25
"""First row, as a fraction of the distance from the principal point to the lower edge: the near road."""

TOLERANCE = 0.03
"""Largest relative error in inverse depth of an inlier."""

MOST_TILT = np.radians(15.0)
"""Steeper planes are not roads."""

ZERO_WEIGHT_TILT = np.radians(6.0)
"""From this tilt on the fitted tilt is attributed to the network alone."""


def camera_height(inverse_depth: Float[np.ndarray, "h w"], K: Float[np.ndarray, "3 3"], pitch: float = 0.0) -> float:
    """Distance between camera and road in the unit of the depth; positive.

    Args:
      K: in pixels of the map.
      pitch: degrees by which the mounted camera looks down.

    If no plane is a road, the median height of the pixels below a camera with this pitch.
    """
    K = np.asarray(K, np.float64) @ _level(pitch).T  # of a level camera with the same view
    pixels, values = _road_ahead(np.asarray(inverse_depth, np.float64), K)
    planes = _candidates(pixels, values, K)
    fits = np.abs(pixels @ planes.T - values[:, None]) < TOLERANCE * values[:, None]
    best = fits.sum(axis=0).argmax()
    plane, inliers = planes[best], fits[:, best]
    for _ in range(3):
        fitted = _least_squares(pixels[inliers], values[inliers]) if inliers.sum() >= 3 else plane
        if not _roads(fitted[None], K)[0]:
            break
        plane = fitted
        inliers = np.abs(pixels @ plane - values) < TOLERANCE * values
    points = pixels @ np.linalg.inv(K).T / values[:, None]
    heights = points @ _weighted_normal(plane @ K)
    return float(np.median(heights[inliers] if inliers.any() else heights))


def _road_ahead(inverse_depth: np.ndarray, K: np.ndarray) -> tuple[Float[np.ndarray, "n 3"], Float[np.ndarray, " n"]]:
    """Homogeneous pixels (u, v, 1) that may show the road, and their inverse depth."""
    height, width = inverse_depth.shape
    horizon = float(np.clip(K[1, 2] / K[2, 2], 0, height - 2))
    top = int(np.ceil(horizon + BELOW_HORIZON * (height - 1 - horizon)))
    left, right = (int(share * width) for share in MIDDLE)
    v, u = np.mgrid[top:height, left : max(right, left + 1)]
    step = -(-u.size // PIXELS)
    chosen = slice(step // 2, None, step)
    u, v = u.ravel()[chosen], v.ravel()[chosen]
    return np.stack([u, v, np.ones_like(u)], axis=1).astype(np.float64), inverse_depth[v, u]


def _candidates(pixels: np.ndarray, values: np.ndarray, K: np.ndarray) -> Float[np.ndarray, "m 3"]:
    """Planes through three pixels that may be roads, and one below a level camera; the same draws for every image."""
    triples = np.random.default_rng(0).integers(len(pixels), size=(DRAWS, 3))
    corners = pixels[triples]
    solvable = np.abs(np.linalg.det(corners)) > 1.0  # twice the area of the triangle, in pixels
    planes = np.linalg.solve(corners[solvable], values[triples[solvable]][..., None])[..., 0]
    down = np.linalg.inv(K)[1]  # metres down per metre of depth, along the ray of each pixel
    level = down / np.median(pixels @ down / values)
    return np.concatenate([level[None], planes[_roads(planes, K)]])


def _level(pitch: float) -> Float[np.ndarray, "3 3"]:
    """Rotation from a camera that looks down by ``pitch`` degrees to a level one: x right, y down, z forward."""
    sin, cos = np.sin(np.radians(pitch)), np.cos(np.radians(pitch))
    return np.array([[1, 0, 0], [0, cos, sin], [0, -sin, cos]])


def _roads(planes: np.ndarray, K: np.ndarray) -> np.ndarray:
    normals = planes @ K  # K^T plane = n / h, whose y points down to the road
    return normals[:, 1] > np.cos(MOST_TILT) * np.linalg.norm(normals, axis=1)


def _least_squares(pixels: np.ndarray, values: np.ndarray) -> Float[np.ndarray, "3"]:
    """The plane with the smallest sum of squared relative errors."""
    return np.linalg.lstsq(pixels / values[:, None], np.ones(len(values)), rcond=None)[0]


def _weighted_normal(normal: np.ndarray) -> Float[np.ndarray, "3"]:
    """Unit normal with the fitted tilt weighted down."""
    horizontal = normal * [1, 0, 1]
    length = np.linalg.norm(horizontal)
    tilt = np.arctan2(length, normal[1])
    tilt *= max(0.0, 1 - (tilt / ZERO_WEIGHT_TILT) ** 2) ** 2
    return np.array([0, np.cos(tilt), 0]) + np.sin(tilt) * horizontal / max(length, 1e-12)
