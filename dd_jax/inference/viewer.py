"""An interactive page with the point cloud of every frame and a slider over the frames: one file, no network.

The page draws points on a 2D canvas, so it needs no WebGL; it contains the images and depth maps.
"""

import base64
import importlib.resources
import json
import math
import zlib
from collections.abc import Sequence
from html import escape
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float, Float32, UInt8, UInt16

from dd_jax.data import frames as data_frames
from dd_jax.report.html import data_uri

WIDTH = 480
"""Largest number of pixels, and points, in a row."""

SHOWN = 95
"""Percentile of depth up to which points are shown at first: far points hide the scene."""


def view_size(size: tuple[int, int]) -> tuple[int, int]:
    """(height, width) at which frames of ``size`` are shown."""
    height, width = size
    scale = min(1.0, WIDTH / width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def encode_frame(name: str, image: UInt8[np.ndarray, "H W 3"], depth: Float[np.ndarray, "H W"]) -> dict[str, Any]:
    """Page data of a frame, without its pose; ``depth`` is positive."""
    height, width = view_size(depth.shape)
    inverse = cv2.resize(1 / depth, (width, height), interpolation=cv2.INTER_AREA).astype(np.float64)
    farthest, nearest = float(inverse.min()), float(inverse.max())
    nearest = max(nearest, farthest * (1 + 1e-6))
    levels = np.rint((inverse - farthest) / (nearest - farthest) * 65535).astype(np.uint16)
    median, shown = (float(1 / np.percentile(inverse, 100 - share)) for share in (50, SHOWN))
    return {
        "name": name,
        "image": data_uri(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)),
        "depth": base64.b64encode(zlib.compress(differences(levels), 6)).decode(),
        "nearest": nearest,
        "farthest": farthest,
        "median": median,
        "shown": shown,
    }


def differences(levels: UInt16[np.ndarray, "h w"]) -> bytes:
    """Differences to the left neighbour, modulo 2^16: all high bytes, then all low bytes, which deflate well."""
    steps = np.diff(levels, axis=1, prepend=np.uint16(0))
    return (steps >> 8).astype(np.uint8).tobytes() + (steps & 255).astype(np.uint8).tobytes()


def page(
    title: str,
    frames: Sequence[dict[str, Any]],
    poses: Sequence[Float[np.ndarray, "4 4"]],
    K: Float32[np.ndarray, "3 3"],
    size: tuple[int, int],
    unit: str,
    rate: float,
) -> str:
    """The HTML page.

    Args:
      frames: of :func:`encode_frame`, at least one, in slider order.
      poses: T_first_from_camera of each, in the unit of the depth.
      K: in pixels of frames of ``size`` (height, width).
      unit: of the depth, "m" or "".
      rate: frames per second when it plays.
    """
    height, width = view_size(size)
    fx, fy, cx, cy = (float(K[place]) for place in ((0, 0), (1, 1), (0, 2), (1, 2)))
    camera = data_frames.intrinsics(fx, fy, cx, cy, size, (height, width), "K")
    near = min(1 / frame["nearest"] for frame in frames)
    far = max(1 / frame["farthest"] for frame in frames)
    scene = {
        "width": width,
        "height": height,
        **{name: float(camera[place]) for name, place in (("fx", (0, 0)), ("fy", (1, 1)), ("cx", (0, 2)), ("cy", (1, 2)))},
        "pivot": float(np.median([frame["median"] for frame in frames])),
        "shown": max(frame["shown"] for frame in frames),
        "range": [near, max(far, near * 1.001)],
        "unit": f" {unit}" if unit else "",
        "rate": min(max(rate, 1.0), 30.0) if math.isfinite(rate) else 10.0,
        "frames": [frame | {"pose": np.round(pose[:3], 7).tolist()} for frame, pose in zip(frames, poses, strict=True)],
    }
    template = importlib.resources.files("dd_jax.inference").joinpath("viewer.html").read_text(encoding="utf-8")
    data = json.dumps(scene, separators=(",", ":")).replace("<", "\\u003c")  # a frame name must not close the script element
    return template.replace("{{title}}", escape(title), 1).replace("{{scene}}", data, 1)
