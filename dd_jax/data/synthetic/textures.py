"""Texture atlas with rip-maps: drawn once per process, sampled for all pixels of an image at once.

A texture is RGBA uint8; alpha is the weight of the object's own colour (windows and lamps keep theirs). A rip-map
holds every combination of power-of-two reductions per axis, so a road seen at a grazing angle is averaged along the view
only (Heckbert, "Survey of texture mapping", 1986).
"""

import functools

import cv2
import numpy as np
from jaxtyping import Float32, Int32

from dd_jax.data.synthetic import drawings

_TABLE = {  # name: (metres per repeat, share of the fine detail layer)
    "ground": (64.0, 1.0),
    "detail": (3.37, 0.0),
    "sky": (1.0, 0.0),
    **{f"facade_{i}": (12.8, 0.6) for i in range(drawings.FACADES)},
    "concrete": (4.0, 0.8),
    "roof": (4.0, 0.5),
    "foliage_0": (2.6, 0.3),
    "foliage_1": (1.9, 0.3),
    "bark": (0.8, 0.5),
    "metal": (0.9, 0.3),
    "cloth": (0.5, 0.4),
    "skin": (0.4, 0.2),
    "tyre": (1.0, 0.0),
    "spokes": (1.0, 0.0),
    "rubber": (0.5, 0.3),
    "car_side": (1.0, 0.05),
    "car_front": (1.0, 0.05),
    "car_rear": (1.0, 0.05),
    "car_top": (1.5, 0.15),
    "glass": (1.0, 0.0),
    "cargo_0": (1.0, 0.1),
    "cargo_1": (1.0, 0.1),
    "bus_side": (1.0, 0.1),
    "sign_0": (1.0, 0.0),
    "sign_1": (1.0, 0.0),
    "poster": (1.0, 0.1),
}
NAMES = tuple(_TABLE)
ID = {name: i for i, name in enumerate(NAMES)}
METRES = np.array([size for size, _ in _TABLE.values()])
"""Side of one repeat; 1 m where the texture is stretched over its patch."""
DETAIL = np.array([share for _, share in _TABLE.values()], np.float32)
DETAIL_METRES = METRES[ID["detail"]]
_LEVELS = 11


class Atlas:
    """All textures in one flat array of packed pixels."""

    def __init__(self, images: dict[str, np.ndarray], onto: "Atlas | None" = None):
        """``onto``: an atlas to extend."""
        parts = [] if onto is None else [onto.pixels.view(np.uint8).reshape(-1, 4)]
        start = 0 if onto is None else len(onto.pixels)
        # log2 of width and height; first pixel of every level
        self.log_size = np.zeros((len(NAMES), 2), np.int32) if onto is None else onto.log_size.copy()
        self.offset = np.zeros((len(NAMES), _LEVELS, _LEVELS), np.int32) if onto is None else onto.offset.copy()
        for name, image in images.items():
            height, width = image.shape[:2]
            logs = int(np.log2(width)), int(np.log2(height))
            if (1 << logs[0], 1 << logs[1]) != (width, height):
                raise ValueError(f"texture {name!r} is {width}x{height}; both sides must be powers of two")
            self.log_size[ID[name]] = logs
            column = image
            for a in range(logs[0] + 1):
                column = cv2.resize(column, (width >> a, height), interpolation=cv2.INTER_AREA) if a else column
                level = column
                for b in range(logs[1] + 1):
                    level = cv2.resize(level, (width >> a, height >> b), interpolation=cv2.INTER_AREA) if b else level
                    parts.append(level.reshape(-1, 4))
                    self.offset[ID[name], a, b] = start
                    start += len(parts[-1])
        self.pixels = np.concatenate(parts).view(np.uint32).reshape(-1)

    def sample(
        self, material: Int32[np.ndarray, " n"], u: Float32[np.ndarray, " n"], v: Float32[np.ndarray, " n"],
        wide_u: Float32[np.ndarray, " n"], wide_v: Float32[np.ndarray, " n"],
    ) -> Float32[np.ndarray, "n 4"]:  # fmt: skip
        """Filtered RGBA in 0..255 at texture coordinates (period 1); ``wide_*`` is the pixel's footprint in the same unit."""
        (low_low, low_high, high_low, high_high), fx, fy = self._taps(material, u, v, wide_u, wide_v)
        take = lambda index: self.pixels[index].view(np.uint8).reshape(-1, 4).astype(np.float32)  # noqa: E731
        return _blend(take(low_low), take(low_high), take(high_low), take(high_high), fx[:, None], fy[:, None])

    def sample_detail(
        self, u: Float32[np.ndarray, " n"], v: Float32[np.ndarray, " n"],
        wide_u: Float32[np.ndarray, " n"], wide_v: Float32[np.ndarray, " n"],
    ) -> Float32[np.ndarray, " n"]:  # fmt: skip
        """The grey value of the fine detail texture, like :meth:`sample`."""
        corners, fx, fy = self._taps(np.array([ID["detail"]]), u, v, wide_u, wide_v)
        red = self.pixels.view(np.uint8)
        return _blend(*(red[index << 2].astype(np.float32) for index in corners), fx, fy)

    def _taps(self, material, u, v, wide_u, wide_v):
        """Indices of the four texels around every point, and the weights of the later ones."""
        log_u, log_v = self.log_size[material, 0], self.log_size[material, 1]
        level_u, level_v = _level(wide_u, log_u), _level(wide_v, log_v)
        base = self.offset[material, level_u, level_v]
        cols, rows = log_u - level_u, log_v - level_v
        x0, x1, fx = _neighbours(u, cols)
        y0, y1, fy = _neighbours(v, rows)
        y0, y1 = base + (y0 << cols), base + (y1 << cols)
        return (y0 + x0, y0 + x1, y1 + x0, y1 + x1), fx, fy


def _blend(a, b, c, d, fx, fy) -> np.ndarray:
    b -= a
    b *= fx
    a += b
    d -= c
    d *= fx
    c += d
    c -= a
    c *= fy
    a += c
    return a


def _level(footprint: np.ndarray, log_size: np.ndarray) -> np.ndarray:
    share, exponent = np.frexp(footprint)
    exponent += log_size
    exponent -= share < np.float32(0.7072)  # nearest integer of log2(footprint in texels)
    return np.minimum(np.maximum(exponent, 0), log_size)


def _neighbours(coordinate: np.ndarray, log_size: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    x = np.ldexp(coordinate - np.floor(coordinate), log_size) - np.float32(0.5)
    low = np.floor(x)
    first = low.astype(np.int32)
    last = (np.int32(1) << log_size) - np.int32(1)
    return first & last, (first + np.int32(1)) & last, x - low


@functools.lru_cache(maxsize=1)
def _shared() -> Atlas:
    return Atlas(drawings.draw_all(np.random.default_rng(20110926)))


def atlas(ground: np.ndarray) -> Atlas:
    """The shared textures plus one world's ground tile."""
    return Atlas({"ground": ground}, onto=_shared())
