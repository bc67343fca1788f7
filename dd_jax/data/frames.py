"""Samples and listings, and decoding and resizing of images, masks and prior depth.

The readers (``kitti``, ``cityscapes``, ``folder``) list the files of a split (a ``Listing``); ``cache`` decodes each file once;
``loader`` assembles triplets.
"""

import contextlib
import dataclasses
import io
from collections.abc import Callable, Iterable
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32, Int32, Shaped, UInt8, UInt16
from PIL import Image

from dd_jax.config import ConfigError
from dd_jax.data import arrays, masks, picture_faults
from dd_jax.data.camera_check import check_intrinsics
from dd_jax.runtime.files import Found

MISSING = -1
"""Entry of ``Listing.triplets`` for an absent frame."""


Box = tuple[float, float, float, float]  # left, right, top, bottom as shares of an image

WHOLE: Box = (0.0, 1.0, 0.0, 1.0)


@dataclasses.dataclass
class Sample:
    """Three frames (t-k, t, t+k), k = ``data.frame_step``; a missing one is all zeros and False in ``exists``."""

    images: UInt8[np.ndarray, "f h w 3"]
    masks: Bool[np.ndarray, "f h w"]  # potentially dynamic objects
    K: Float32[np.ndarray, "3 3"]  # pixels at (h, w)
    exists: Bool[np.ndarray, " f"]
    prior: UInt16[np.ndarray, "h w"] | None = None  # the target's inverse depth by another network, as stored


@dataclasses.dataclass
class GroundTruth:
    """Measured depth of the target frame at its native size."""

    depth: Float32[np.ndarray, "H W"]  # metres, 0 = none
    dynamic: Bool[np.ndarray, "H W"] | None = None  # potentially dynamic objects
    moving: Bool[np.ndarray, "H W"] | None = None  # objects in motion


@dataclasses.dataclass(frozen=True)
class FrameFile:
    """Where one frame and its object mask are stored."""

    image: str  # path below the root of the data set
    stamp: tuple[int, int]  # size and modification time of the image, to detect changes
    box: Box = WHOLE  # the part of the image that is the frame
    mask: str = ""  # "" = no objects
    mask_stamp: tuple[int, int] = (0, 0)
    prior: str = ""  # "" = none
    prior_stamp: tuple[int, int] = (0, 0)
    mask_box: Box = WHOLE
    prior_box: Box = WHOLE


@dataclasses.dataclass
class DecodedFrame:
    """One decoded frame at its stored size, cut to its boxes."""

    image: UInt8[np.ndarray, "H W 3"]
    mask: Bool[np.ndarray, "_ _"] | None = None  # None = no objects
    prior: UInt16[np.ndarray, "_ _"] | None = None


@dataclasses.dataclass
class Listing:
    """All frames of a split, each once, and the triplets made of them."""

    root: Path
    files: list[FrameFile]
    triplets: Int32[np.ndarray, "n 3"]  # positions in ``files``, or MISSING
    K: Float32[np.ndarray, "n 3 3"]  # pixels at training size
    names: list[str]
    ground_truth: Callable[[int, str], GroundTruth | None]  # (triplet, ``eval.ground_truth``)
    truth_files: Callable[[int], list[Path]] = lambda index: []  # candidate ground-truth files of a triplet, existing or not
    stored: Callable[[int], DecodedFrame] | None = None  # decodes a frame that has no file of its own
    misfits: tuple[str, ...] = ()  # masks with other proportions than their images (see ``misfit``), noted in a store
    mask_format: str = "binary"  # of the mask files, see ``decode_mask``
    out_of_order: str = ""  # published list with these frames in another order, see ``published_order``
    measured: Callable[[int, str], Float32[np.ndarray, "H W"] | None] = lambda index, kind: None  # KITTI: without masks

    def __len__(self) -> int:
        return len(self.names)

    def decode(self, index: int) -> DecodedFrame:
        """The frame ``files[index]``.

        Raises:
          UnreadableFrame: the image, its mask or its prior depth cannot be decoded.
        """
        return decode_frame(self.root, self.files[index], self.mask_format) if self.stored is None else self.stored(index)


class UnreadableFrame(Exception):
    """The bytes of an image or a mask cannot be decoded completely."""


class DamagedImage(UnreadableFrame):
    """An image that decoders complete with made-up pixels. ``damage``: what one reports."""

    def __init__(self, name: str, damage: str):
        super().__init__(f"{name} ({damage})")
        self.damage = damage


class FrameTable:
    """Collects the unique frames of a listing by key."""

    def __init__(self):
        self.files: list[FrameFile] = []
        self._positions: dict[object, int] = {}

    def position(self, key: object, find: Callable[[], FrameFile | None]) -> int:
        """Position of the frame ``key``; ``find`` is called on first use, None = no such file (MISSING)."""
        if key not in self._positions:
            file = find()
            self._positions[key] = MISSING if file is None else len(self.files)
            if file is not None:
                self.files.append(file)
        return self._positions[key]


def frame_file(image: Found, mask: Found, prior: Found = None, **kwargs) -> FrameFile | None:
    """A frame from the results of :meth:`dd_jax.runtime.files.Folders.find` for image, mask and prior depth."""
    if image is None:
        return None
    none = ("", (0, 0))
    (mask_path, mask_stamp), (prior_path, prior_stamp) = mask or none, prior or none
    return FrameFile(*image, mask=mask_path, mask_stamp=mask_stamp, prior=prior_path, prior_stamp=prior_stamp, **kwargs)


def decode_image(source: Path | bytes) -> UInt8[np.ndarray, "H W 3"]:
    """RGB image from a file, or from the bytes of one, with its EXIF orientation applied.

    Raises:
      UnreadableFrame: missing, damaged or truncated.
    """
    return cv2.cvtColor(_decode(source, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def decode_whole_image(source: Path | bytes) -> UInt8[np.ndarray, "H W 3"]:
    """As :func:`decode_image`, which only looks at the end of a JPEG; decodes JPEGs twice.

    Raises:
      UnreadableFrame: as :func:`decode_image`.
      DamagedImage: a JPEG is damaged inside; the message contains libjpeg's.
    """
    if damage := picture_faults.jpeg_damage(_complete(source)):
        raise DamagedImage(_name(source), damage)
    return decode_image(source)


def first_readable(images: Iterable[Path]) -> tuple[Path, tuple[int, int]] | None:
    """The first image that can be decoded, and its decoded size (height, width); None if there is none."""
    for path in images:
        with contextlib.suppress(UnreadableFrame):
            return path, decode_image(path).shape[:2]
    return None


def decode_mask(source: Path | bytes, mask_format: str = "binary") -> Bool[np.ndarray, "H W"]:
    """Potentially dynamic objects from an image or an ``.npy`` array of any numeric type.

    Args:
      source: a file, or the bytes of a binary image.
      mask_format: "binary" (nonzero = object: bool, 0/1, 0/255, float, instance ids), "cityscapes" (label ids),
        "cityscapes_train" (train ids) or "coco_panoptic" (see :mod:`dd_jax.data.masks`).

    Raises:
      UnreadableFrame: missing, damaged, truncated, not two-dimensional, or of another format.
    """
    if mask_format == "coco_panoptic":
        try:
            return masks.is_object_segment(decode_image(source), source)
        except KeyError as error:
            raise UnreadableFrame(f"{source} is not listed in {masks.SEGMENTS}") from error
    if isinstance(source, Path) and source.suffix == ".npy":
        values = load_array(source)
    elif mask_format == "binary":
        values = _decode(source, cv2.IMREAD_UNCHANGED)
        values = values[..., :3].max(axis=-1) if values.ndim == 3 else values  # without alpha
    else:
        values = _decode_labels(source)
    if values.ndim != 2 or not values.size or values.dtype.kind not in "biuf":
        raise UnreadableFrame(_name(source))
    return np.asarray(masks.is_object(values, mask_format))


def decode_prior(source: Path | bytes) -> UInt16[np.ndarray, "H W"]:
    """Inverse depth of another network, larger = nearer, in arbitrary units.

    A 16-bit grey PNG (8 bits are expanded to 16), or an ``.npy`` array of uint16, uint8 or floats, which are rescaled.

    Raises:
      UnreadableFrame: missing, damaged, truncated, not grey, or without positive values.
    """
    is_array = isinstance(source, Path) and source.suffix == ".npy"
    values = load_array(source) if is_array else _decode(source, cv2.IMREAD_UNCHANGED)
    if values.ndim == 2 and values.dtype in (np.uint16, np.uint8) and values.any():
        return np.asarray(values if values.dtype == np.uint16 else values.astype(np.uint16) * 257)
    try:
        if values.ndim == 2 and values.dtype.kind == "f":
            return store_inverse_depth(values)
    except ValueError as error:
        raise UnreadableFrame(_name(source)) from error
    raise UnreadableFrame(_name(source))


def store_inverse_depth(inverse: Float[np.ndarray, "H W"]) -> UInt16[np.ndarray, "H W"]:
    """Inverse depth of any unit scaled to a maximum of 65535; negative and non-finite values become 0 (farthest).

    Raises:
      ValueError: no value is positive.
    """
    inverse = np.clip(np.where(np.isfinite(inverse), inverse, 0).astype(np.float64), 0, None)
    if not (inverse > 0).any():
        raise ValueError("no positive inverse depth")
    return np.rint(inverse / inverse.max() * 65535).astype(np.uint16)


def decode_depth(source: Path | bytes) -> UInt16[np.ndarray, "H W"]:
    """16-bit grey image as stored, from a file, or from the bytes of one.

    Raises:
      UnreadableFrame: missing, damaged, truncated or of another type.
    """
    values = _decode(source, cv2.IMREAD_UNCHANGED)
    if values.ndim != 2 or values.dtype != np.uint16:
        raise UnreadableFrame(
            f"{_name(source)} ({8 * values.itemsize} bits per value, {'grey' if values.ndim == 2 else 'colour'})"
        )
    return values


def load_array(path: Path) -> np.ndarray:
    """:func:`dd_jax.data.arrays.load`.

    Raises:
      UnreadableFrame: as there.
    """
    try:
        return arrays.load(path)
    except arrays.DamagedArray as error:
        raise UnreadableFrame(str(path)) from error


def decode_frame(root: Path, file: FrameFile, mask_format: str) -> DecodedFrame:
    """A frame with its mask and prior depth, each cut to its box.

    Raises:
      UnreadableFrame: one of them cannot be decoded or cut.
    """
    return DecodedFrame(
        image=cut(decode_image(root / file.image), file.box),
        mask=mask_of(root, file, mask_format) if file.mask else None,
        prior=prior_of(root, file) if file.prior else None,
    )


def mask_of(root: Path, file: FrameFile, mask_format: str) -> Bool[np.ndarray, "_ _"]:
    """The object mask of a frame that has one, cut to its box; raises as :func:`decode_frame`."""
    return cut(decode_mask(root / file.mask, mask_format), file.mask_box)


def prior_of(root: Path, file: FrameFile) -> UInt16[np.ndarray, "_ _"]:
    """The prior depth of a frame that has one, cut to its box; raises as :func:`decode_frame`."""
    return cut(decode_prior(root / file.prior), file.prior_box)


def _decode(source: Path | bytes, flags: int) -> Shaped[np.ndarray, "..."]:
    try:
        image = cv2.imdecode(np.frombuffer(_complete(source), np.uint8), flags)
    except cv2.error as error:
        raise UnreadableFrame(_name(source)) from error
    if image is None:
        raise UnreadableFrame(_name(source))
    return image


def _decode_labels(source: Path | bytes) -> Shaped[np.ndarray, "..."]:
    """Labels of a grey image, or the palette indices of a palette image, which OpenCV would convert to colours."""
    try:
        with Image.open(io.BytesIO(_complete(source))) as image:
            return np.asarray(image)
    except Exception as error:  # PIL raises anything for damaged files: SyntaxError, ValueError, struct.error, ...
        raise UnreadableFrame(_name(source)) from error


def _complete(source: Path | bytes) -> bytes:
    """An image's bytes. Checks the size, and the end, because OpenCV silently fills the rest of a truncated file with grey."""
    try:
        data = source if isinstance(source, bytes) else source.read_bytes()
    except OSError as error:
        raise UnreadableFrame(_name(source)) from error
    whole = picture_faults.completed(data) if picture_faults.size_is_plausible(data) else None
    if whole is None:
        raise UnreadableFrame(_name(source))
    return whole


def _name(source: Path | bytes) -> str:
    return f"{len(source)} bytes" if isinstance(source, bytes) else str(source)


def cut(image: np.ndarray, box: Box) -> np.ndarray:
    """The part of an image inside ``box``.

    Raises:
      UnreadableFrame: the edges fall between pixels, so the image has an unexpected size.
    """
    height, width = image.shape[:2]
    edges = [share * size for share, size in zip(box, (width, width, height, height))]
    left, right, top, bottom = rounded = [round(edge) for edge in edges]
    if max(abs(edge - whole) for edge, whole in zip(edges, rounded)) > 1e-6:
        raise UnreadableFrame(f"an image of {width} x {height} cannot be divided as its data set requires")
    return image[top:bottom, left:right]


def resize_image(image: UInt8[np.ndarray, "H W 3"], height: int, width: int, resize: str) -> UInt8[np.ndarray, "h w 3"]:
    """Antialiased resizing: "area" (OpenCV) or "lanczos" (PIL, as Monodepth2)."""
    if image.shape[:2] == (height, width):
        return image
    if resize == "area":
        return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS))


def resize_mask(mask: Bool[np.ndarray, "H W"], height: int, width: int) -> Bool[np.ndarray, "h w"]:
    """Nearest neighbour at pixel centres."""
    if mask.shape == (height, width):
        return mask
    rows = ((np.arange(height) + 0.5) * mask.shape[0] / height).astype(int)
    columns = ((np.arange(width) + 0.5) * mask.shape[1] / width).astype(int)
    return mask[rows[:, None], columns]


def same_proportions(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether the aspect ratios of two sizes (height, width) agree to 10 %."""
    return abs(one[0] * other[1] / (one[1] * other[0]) - 1) < 0.1


def misfit(frame: DecodedFrame, mask: Path | str) -> list[str]:
    """The mask's file name and both sizes if the mask has other proportions than its image, otherwise empty."""
    if frame.mask is None or same_proportions(frame.mask.shape, frame.image.shape[:2]):
        return []
    (height, width), (rows, columns) = frame.image.shape[:2], frame.mask.shape
    return [f"{mask} ({columns}x{rows}, its image {width}x{height})"]


def resize_prior(prior: UInt16[np.ndarray, "H W"], height: int, width: int) -> UInt16[np.ndarray, "h w"]:
    """Area average."""
    return prior if prior.shape == (height, width) else cv2.resize(prior, (width, height), interpolation=cv2.INTER_AREA)


def intrinsics(
    fx: float, fy: float, cx: float, cy: float, size: tuple[float | int, float | int], target: tuple[int, int], where: str
) -> Float32[np.ndarray, "3 3"]:
    """Intrinsics in pixels of the ``target`` size (height, width), from values in pixels of ``size`` (height, width).

    With integers at pixel centres, coordinates scale as ``c' = (c + .5) s - .5``.

    Raises:
      ConfigError: values that do not fit a picture of ``size``, see :func:`check_intrinsics`; the message begins with ``where``.
    """
    check_intrinsics(fx, fy, cx, cy, size, where)
    height, width = size
    sx, sy = target[1] / width, target[0] / height
    return np.array([[fx * sx, 0, (cx + 0.5) * sx - 0.5], [0, fy * sy, (cy + 0.5) * sy - 0.5], [0, 0, 1]], np.float32)


def object_mask(root: Path, path: str, shape: tuple[int, int], mask_format: str = "binary") -> Bool[np.ndarray, "H W"] | None:
    """Mask for evaluation at the ground truth's size, from ``path`` or the same with ``.npy``; None if there is no file.

    Raises:
      ConfigError: the file cannot be decoded, or has other proportions than ``shape``.
    """
    found = next((file for file in (root / path, (root / path).with_suffix(".npy")) if file.is_file()), None)
    if found is None:
        return None
    try:
        mask = decode_mask(found, mask_format)
    except UnreadableFrame as error:
        raise ConfigError(f"the object mask {error} cannot be decoded: write it again, or delete it") from error
    if not same_proportions(mask.shape, shape):
        raise ConfigError(
            f"the object mask {found} has {mask.shape[1]} x {mask.shape[0]} pixels, other proportions than its image of "
            f"{shape[1]} x {shape[0]}: write it for the image as viewers show it, turned by its EXIF orientation, or delete it"
        )
    return resize_mask(mask, *shape)
