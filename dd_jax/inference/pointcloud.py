"""A depth map as coloured points, and as a PLY file for MeshLab, CloudCompare, Open3D and Blender."""

import numpy as np
from jaxtyping import Float, Float32, UInt8

VERTEX = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("red", "u1"), ("green", "u1"), ("blue", "u1")])


def points(depth: Float[np.ndarray, "H W"], K: Float[np.ndarray, "3 3"]) -> Float32[np.ndarray, "H W 3"]:
    """Back-projected pixels in camera coordinates (x right, y down, z forward), in the unit of ``depth``: d * K^-1 (u, v, 1)."""
    height, width = depth.shape
    fx, fy, cx, cy = (float(K[place]) for place in ((0, 0), (1, 1), (0, 2), (1, 2)))
    x = (np.arange(width) - cx)[None, :] / fx
    y = (np.arange(height) - cy)[:, None] / fy
    return np.stack([depth * x, depth * y, depth], axis=-1).astype(np.float32)


def ply(
    image: UInt8[np.ndarray, "H W 3"], depth: Float[np.ndarray, "H W"], K: Float[np.ndarray, "3 3"], farthest: float = np.inf
) -> bytes:
    """Content of a binary PLY file: a point for each pixel with 0 < depth <= ``farthest``, row by row, in the image's colours."""
    shown = np.isfinite(depth) & (depth > 0) & (depth <= farthest)
    vertices = np.empty(int(shown.sum()), VERTEX)
    place, colour = points(depth, K)[shown], image[shown]
    for axis, (name, channel) in enumerate((("x", "red"), ("y", "green"), ("z", "blue"))):
        vertices[name], vertices[channel] = place[:, axis], colour[:, axis]
    fields = (f"property {'float' if VERTEX[name].kind == 'f' else 'uchar'} {name}" for name in VERTEX.names)
    header = ("ply", "format binary_little_endian 1.0", f"element vertex {len(vertices)}", *fields, "end_header", "")
    return "\n".join(header).encode() + vertices.tobytes()
