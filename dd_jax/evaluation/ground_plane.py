"""How high the camera is above the road, in the unit of a predicted depth: the ratio to its true height gives metres.

The road is a plane, and of a plane the inverse depth is an affine function of the pixel: with the plane ``n . X = h`` in the
camera's frame, ``1 / depth = (n / h) . K^-1 (u, v, 1)``. So the pixels of the road are found by fitting planes to inverse depth,
three pixels at a time (RANSAC, Fischler and Bolles 1981), then by least squares over those that agree. The height is the median
of ``n . X`` over them. Scaling by the camera's height is that of Xue et al. 2020 (DNet), who find the road by the normals of
single pixels.

The direction of ``n`` needs care. A car's camera looks along the road within a degree or two, or is mounted at a known angle, but
networks bend the road, weak ones by ten degrees, and an error of one degree 8 m ahead is 14 cm in the height. So the fitted tilt
against that mounting is believed the less the larger it is (Tukey's biweight): nearly in full at 1 degree, to three quarters at
2, not at all from 6 on.
"""

import numpy as np
from jaxtyping import Float

DRAWS = 200
PIXELS = 2_000
"""Pixels looked at, at most: those below the horizon in the middle of the picture, where the road is."""

MIDDLE = (0.2, 0.8)
"""Columns, as shares of the width."""

BELOW_HORIZON = 0.25
"""Rows from this share of the way between the principal point and the lower edge on: the road ahead, not the distance."""

TOLERANCE = 0.03
"""A pixel is of the plane where its inverse depth is off by less than this share."""

MOST_TILT = np.radians(15.0)
"""Planes that are steeper are no roads, however bent."""

NO_CAMERA = np.radians(6.0)
"""From this tilt on it is the network's alone."""


def camera_height(inverse_depth: Float[np.ndarray, "h w"], K: Float[np.ndarray, "3 3"], pitch: float = 0.0) -> float:
    """Distance between camera and road in the unit of the depth, which is positive.

    Args:
      K: in pixels of the map.
      pitch: degrees by which the camera is mounted to look down.

    Where nothing looks like a road, the height that half of the pixels have below a camera mounted like that.
    """
    K = np.asarray(K, np.float64) @ _level(pitch).T  # of a level camera that sees the same
    pixels, values = _road_ahead(np.asarray(inverse_depth, np.float64), K)
    planes = _candidates(pixels, values, K)
    agreeing = np.abs(pixels @ planes.T - values[:, None]) < TOLERANCE * values[:, None]
    best = agreeing.sum(axis=0).argmax()
    plane, inliers = planes[best], agreeing[:, best]
    for _ in range(3):
        fitted = _least_squares(pixels[inliers], values[inliers]) if inliers.sum() >= 3 else plane
        if not _roads(fitted[None], K)[0]:
            break
        plane = fitted
        inliers = np.abs(pixels @ plane - values) < TOLERANCE * values
    points = pixels @ np.linalg.inv(K).T / values[:, None]
    heights = points @ _believed(plane @ K)
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
    """Planes through three pixels each that a road can be, and one below a level camera; the same draws for every picture."""
    triples = np.random.default_rng(0).integers(len(pixels), size=(DRAWS, 3))
    corners = pixels[triples]
    solvable = np.abs(np.linalg.det(corners)) > 1.0  # twice the area of the triangle, in pixels
    planes = np.linalg.solve(corners[solvable], values[triples[solvable]][..., None])[..., 0]
    down = np.linalg.inv(K)[1]  # metres down per metre of depth, of each pixel's ray
    level = down / np.median(pixels @ down / values)
    return np.concatenate([level[None], planes[_roads(planes, K)]])


def _level(pitch: float) -> Float[np.ndarray, "3 3"]:
    """From the coordinates of a camera that looks down by ``pitch`` degrees to those of a level one: x right, y down, z ahead."""
    sin, cos = np.sin(np.radians(pitch)), np.cos(np.radians(pitch))
    return np.array([[1, 0, 0], [0, cos, sin], [0, -sin, cos]])


def _roads(planes: np.ndarray, K: np.ndarray) -> np.ndarray:
    normals = planes @ K  # K^T plane = n / h, whose y points down to the road
    return normals[:, 1] > np.cos(MOST_TILT) * np.linalg.norm(normals, axis=1)


def _least_squares(pixels: np.ndarray, values: np.ndarray) -> Float[np.ndarray, "3"]:
    """The plane with the smallest sum of squared relative errors."""
    return np.linalg.lstsq(pixels / values[:, None], np.ones(len(values)), rcond=None)[0]


def _believed(normal: np.ndarray) -> Float[np.ndarray, "3"]:
    """Unit normal whose tilt is that part of the fitted one that a camera may have."""
    aside = normal * [1, 0, 1]
    length = np.linalg.norm(aside)
    tilt = np.arctan2(length, normal[1])
    tilt *= max(0.0, 1 - (tilt / NO_CAMERA) ** 2) ** 2
    return np.array([0, np.cos(tilt), 0]) + np.sin(tilt) * aside / max(length, 1e-12)
