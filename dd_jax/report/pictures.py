"""Depth as colours, and the panel with inputs and predictions of one sample. All images are uint8 RGB."""

from collections.abc import Mapping
from types import MappingProxyType

import cv2
import numpy as np
from jaxtyping import Bool, Float, Shaped, UInt8

Image = UInt8[np.ndarray, "h w 3"]

NO_VALUE = (45, 45, 48)
"""Colour of pixels without a value."""

SPARSE = 0.2
"""Below this share of pixels with a value, each is drawn 3 x 3, so that laser scans are visible."""

TILE_WIDTH = 480
"""Tiles of a panel are enlarged by an integer factor to at least this width."""


def depth_limits(depth: Float[np.ndarray, "h w"], valid: Bool[np.ndarray, "h w"] | None = None) -> tuple[float, float]:
    """(far, near): 2nd and 98th percentile of inverse depth over valid pixels, the limits of the colour scale."""
    usable = _usable(depth, valid)
    if not usable.any():
        return 0.0, 1.0
    far, near = np.percentile(1.0 / depth[usable], (2, 98))
    return float(far), float(max(near, far * (1 + 1e-3) + 1e-9))


def colorize_depth(
    depth: Float[np.ndarray, "h w"],
    limits: tuple[float, float] | None = None,
    valid: Bool[np.ndarray, "h w"] | None = None,
) -> Image:
    """Inverse depth in the magma colour map, near is bright.

    Args:
      depth: any unit; zero, negative and non-finite values are invalid.
      limits: of :func:`depth_limits`, for a common scale of several images; default: those of this image.
      valid: False marks further invalid pixels.
    """
    usable = _usable(depth, valid)
    far, near = depth_limits(depth, valid) if limits is None else limits
    inverse = np.divide(1.0, depth, out=np.zeros(depth.shape), where=usable)
    return _coloured((inverse - far) / (near - far), usable, cv2.COLORMAP_MAGMA)


def colorize_error(depth: Float[np.ndarray, "h w"], truth: Float[np.ndarray, "h w"], worst: float = 0.3) -> Image:
    """Relative error |depth - truth| / truth, blue (0) to red (``worst`` and more); depth in the unit of ``truth``."""
    usable = _usable(truth, None) & _usable(depth, None)
    error = np.divide(np.abs(depth - truth), truth, out=np.zeros(truth.shape), where=usable)
    return _coloured(error / worst, usable, cv2.COLORMAP_TURBO)


def panel(
    image: Shaped[np.ndarray, "h w 3"],
    *,
    depths: Mapping[str, Float[np.ndarray, "h w"]] = MappingProxyType({}),
    truth: Float[np.ndarray, "H W"] | None = None,
    counted: Bool[np.ndarray, "H W"] | None = None,
    previous: Shaped[np.ndarray, "h w 3"] | None = None,
    disentangled: Shaped[np.ndarray, "h w 3"] | None = None,
    holes: Bool[np.ndarray, "h w"] | None = None,
    offsets: Float[np.ndarray, "h w 3"] | None = None,
    dynamic: Bool[np.ndarray, "h w"] | None = None,
    columns: int = 2,
) -> UInt8[np.ndarray, "rows width 3"]:
    """Labelled tiles of one sample, enlarged to :data:`TILE_WIDTH`; None values are left out.

    Args:
      image: the target frame, like the other frames uint8 or float in [0, 1].
      depths: predictor -> depth; with ``truth``, an error map of the first one is added.
      truth: in the unit of ``depths``, 0 = none, any size; all depth tiles share its colour scale.
      counted: scored pixels of ``truth``, the only ones in the error map. None: all.
      previous, disentangled, holes: the previous frame, the same after dynamic object motion disentanglement (DOMD), and the
        pixels that this uncovers.
      offsets: residual 3-D motion of every point in the unit of the networks; its length is shown.
      dynamic: potentially dynamic objects, outlined in the image.
    """
    height, width = image.shape[:2]
    target = _as_uint8(image).copy()
    if dynamic is not None:
        contours, _ = cv2.findContours(dynamic.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(target, contours, -1, (255, 210, 40), 1)
    tiles = [("image" if dynamic is None else "image, potentially dynamic objects outlined", target)]
    if previous is not None:
        tiles.append(("previous frame", _as_uint8(previous)))
    if disentangled is not None:
        tiles.append(("previous frame, objects disentangled", _as_uint8(disentangled)))
    if holes is not None:
        tiles.append(("holes", np.repeat(holes[..., None], 3, axis=2).astype(np.uint8) * 255))

    if offsets is not None:
        length = np.linalg.norm(offsets, axis=-1)
        share = length / max(float(length.max()), 1e-12)
        tiles.append(("residual motion, red = largest", _coloured(share, np.ones_like(share, bool), cv2.COLORMAP_TURBO)))

    measured = None if truth is None else shrink_sparse(truth, (height, width))
    if measured is not None and not (measured > 0).any():
        measured = None
    shown = measured if measured is not None else next(iter(depths.values()), None)
    limits = None if shown is None else depth_limits(shown)
    tiles += [(f"{name} depth", colorize_depth(depth, limits)) for name, depth in reversed(depths.items())]
    if measured is not None:
        tiles.append(("ground truth", colorize_depth(measured, limits)))
        if depths:
            name, depth = next(iter(depths.items()))
            compared = measured if counted is None else shrink_sparse(np.where(counted, truth, 0), (height, width))
            tiles.append((f"{name} error, red = 30 %", colorize_error(depth, compared)))
    return grid([label(enlarge(tile), text) for text, tile in tiles], columns)


def shrink_sparse(depth: Float[np.ndarray, "H W"], size: tuple[int, int]) -> Float[np.ndarray, "h w"]:
    """Sparse depth (0 = none) at another size: each cell gets its nearest depth; sparse maps are dilated."""
    rows, columns = np.nonzero(_usable(depth, None))
    inverse = np.zeros(size)
    cells = rows * size[0] // depth.shape[0], columns * size[1] // depth.shape[1]
    np.maximum.at(inverse, cells, 1.0 / depth[rows, columns])
    if 0 < np.mean(inverse > 0) < SPARSE:
        inverse = cv2.dilate(inverse, np.ones((3, 3), np.uint8))
    return np.divide(1.0, inverse, out=np.zeros(size), where=inverse > 0)


def enlarge(image: Image) -> UInt8[np.ndarray, "_ _ 3"]:
    """The image enlarged by the smallest integer factor to at least :data:`TILE_WIDTH` columns."""
    factor = -(-TILE_WIDTH // image.shape[1])
    return image if factor == 1 else cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)


def label(image: Image, text: str) -> Image:
    """The image with a line of text in the upper left corner."""
    image = image.copy()
    scale = max(image.shape[1] / 1100, 0.3)
    (width, height), base = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
    corner = image[: height + base + 4, : width + 8]
    corner[:] = corner // 4
    cv2.putText(image, text, (4, height + 3), cv2.FONT_HERSHEY_SIMPLEX, scale, (255, 255, 255), 1, cv2.LINE_AA)
    return image


def grid(tiles: list[Image], columns: int, gap: int = 4) -> UInt8[np.ndarray, "rows width 3"]:
    """Tiles of equal size in rows, on white."""
    height, width = tiles[0].shape[:2]
    columns = min(columns, len(tiles))
    rows = -(-len(tiles) // columns)
    page = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, np.uint8)
    for index, tile in enumerate(tiles):
        top, left = index // columns * (height + gap), index % columns * (width + gap)
        page[top : top + height, left : left + width] = tile
    return page


def _usable(depth: Float[np.ndarray, "h w"], valid: Bool[np.ndarray, "h w"] | None) -> Bool[np.ndarray, "h w"]:
    usable = np.isfinite(depth) & (depth > 0)
    return usable if valid is None else usable & valid


def _coloured(share: Float[np.ndarray, "h w"], usable: Bool[np.ndarray, "h w"], colours: int) -> Image:
    levels = (np.clip(share, 0, 1) * 255).round().astype(np.uint8)
    image = cv2.applyColorMap(levels, colours)[..., ::-1].copy()
    image[~usable] = NO_VALUE
    return image


def _as_uint8(image: Shaped[np.ndarray, "h w 3"]) -> Image:
    return image if image.dtype == np.uint8 else (np.clip(image, 0, 1) * 255).round().astype(np.uint8)
