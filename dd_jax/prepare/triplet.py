"""Visual check of three neighbouring frames: whether they are suitable for training. Colours are RGB."""

import cv2
import numpy as np
from jaxtyping import UInt8

from dd_jax.prepare import motion
from dd_jax.report.pictures import Image, label

TILE_WIDTH = 640
"""Pixels; wider frames are reduced to this width."""


def tiles(previous: Image, target: Image, following: Image, name: str) -> list[UInt8[np.ndarray, "_ _ 3"]]:
    """Six labelled tiles of three frames of one size.

    They include the previous frame aligned to the target by the best homography, and the differences before and after alignment.
    Sharp structures in the second difference are parallax or moving objects; if it shows as much as the first, the frames are not
    consecutive.
    """
    previous, target, following = (shown(image) for image in (previous, target, following))
    small = motion.shrink(previous), motion.shrink(target)
    H = motion.alignment(*small)
    aligned, text = previous, "previous frame: too few corners to align"
    if H is not None:
        height, width = target.shape[:2]
        scale = np.diag([small[0].shape[1] / width, small[0].shape[0] / height, 1.0])
        H = np.linalg.inv(scale) @ H @ scale
        aligned = cv2.warpPerspective(previous, H, (width, height), borderMode=cv2.BORDER_REPLICATE)
        text = "previous frame, aligned by a homography"
    return [
        label(target, f"target frame {name}"),
        label(previous, "previous frame"),
        label(following, "next frame"),
        label(aligned, text),
        label(_difference(previous, target), "difference to the previous frame, x 2"),
        label(_difference(aligned, target), "difference after alignment, x 2"),
    ]


def shown(image: Image) -> UInt8[np.ndarray, "_ _ 3"]:
    """The image, reduced to at most :data:`TILE_WIDTH` pixels in width."""
    height, width = image.shape[:2]
    if width <= TILE_WIDTH:
        return image
    return cv2.resize(image, (TILE_WIDTH, max(1, round(height * TILE_WIDTH / width))), interpolation=cv2.INTER_AREA)


def jpeg(image: UInt8[np.ndarray, "h w 3"]) -> bytes:
    """Content of a JPEG file."""
    return cv2.imencode(".jpg", np.ascontiguousarray(image[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()


def _difference(first: Image, second: Image) -> Image:
    return np.minimum(2 * cv2.absdiff(first, second).astype(np.uint16), 255).astype(np.uint8)
