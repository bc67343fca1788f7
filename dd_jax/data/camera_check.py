"""Whether a camera fits its pictures: intrinsics in pixels of another size, and calibrations of other pictures."""

import contextlib
import logging
import math
import warnings
from collections.abc import Iterable
from pathlib import Path

from PIL import ExifTags, Image

from dd_jax.config import ConfigError

log = logging.getLogger(__name__)

WIDEST, NARROWEST = 1 / 20, 1000
"""Smallest and largest focal length, in sizes of the picture: 169 and 0.06 degrees. Smaller ones were divided by its size."""

OFF_CENTRE = 0.08
"""Distance of a principal point from the centre, as a share of both width and height, beyond which its direction is judged."""

SAME_SHARE = 0.1
"""Relative difference up to which a principal point lies at the same share of width and height."""

FIRST_TURNED = 5
"""EXIF orientations from this one on swap width and height."""

RESIZED, SQUEEZED = 0.01, 0.05
"""Relative differences of aspect ratios: pictures were resized as a whole; or to a round size, which squeezes them."""

REMEDY = "take those of KITTI's synced and rectified data, at their full size or resized as a whole"
"""For pictures of another geometry, in messages."""

CROPPED = 0.9
"""Pictures whose width and height both exceed this share of the calibrated ones were cropped: nobody resizes by so little."""


def check_intrinsics(fx: float, fy: float, cx: float, cy: float, size: tuple[float | int, float | int], where: str) -> None:
    """Checks intrinsics in pixels of a picture of ``size`` (height, width), as far as a picture's size tells.

    A lens is mounted near the centre of its sensor. If the principal point lies at the same share of width and height, far from
    one half, the values are in pixels of a picture of another size; if it is at the centre with width and height exchanged, of
    the picture before it was turned.

    Raises:
      ConfigError: a focal length that is not positive, or a fraction; a principal point outside the picture, or that of a
        picture of another size. The message begins with ``where``.
    """
    height, width = map(float, size)
    if not (0 < fx < math.inf and 0 < fy < math.inf):
        raise ConfigError(f"{where}: focal lengths fx={fx:g} fy={fy:g} must be positive and finite: correct the intrinsics there")
    if not (fx < NARROWEST * width and fy < NARROWEST * height):
        raise ConfigError(
            f"{where}: focal lengths fx={fx:g} fy={fy:g} are {NARROWEST} times the size of the picture, {width:g} x {height:g}, "
            "or more: correct the intrinsics there"
        )
    for name, focal, size, extent in (("fx", fx, width, "wide"), ("fy", fy, height, "high")):
        if focal < WIDEST * size:
            raise ConfigError(
                f"{where} has the focal length {name}={focal:g} for frames that are {size:g} pixels {extent}, nearly 180 "
                "degrees: give it in pixels of the frame, not as a fraction of its size"
            )
    x, y = (cx + 0.5) / width, (cy + 0.5) / height
    far = min(abs(x - 0.5), abs(y - 0.5)) > OFF_CENTRE
    if far and off_centre(cx, cy, (width, height)) < OFF_CENTRE:
        raise ConfigError(
            f"{where}: the principal point cx={cx:g} cy={cy:g} is that of a picture of {height:g} x {width:g}, but this one is "
            f"{width:g} x {height:g}, after turning it upright: give the intrinsics of the turned picture"
        )
    if far and 0 < x < math.inf and abs(y / x - 1) < SAME_SHARE:
        raise ConfigError(
            f"{where}: the principal point cx={cx:g} cy={cy:g} is at {x:.0%} of the width and {y:.0%} of the height of "
            f"{width:g} x {height:g}, so these intrinsics are likely those of a picture of about {2 * x * width:.0f} x "
            f"{2 * x * height:.0f}: give all four in pixels of {width:g} x {height:g}, {0.5 / x:.3g} times as large"
        )
    if not (0 <= cx < width < math.inf and 0 <= cy < height < math.inf):
        raise ConfigError(
            f"{where}: the principal point cx={cx:g} cy={cy:g} lies outside the image of {width:g} x {height:g}: "
            "correct the intrinsics there"
        )


def off_centre(cx: float, cy: float, size: tuple[float | int, float | int]) -> float:
    """Largest distance of a principal point from the centre of a picture (height, width), as a share of its size."""
    return max(abs((cx + 0.5) / size[1] - 0.5), abs((cy + 0.5) / size[0] - 0.5))


def stretch(size: tuple[int, int], other: tuple[int, int]) -> float:
    """Relative difference of two sizes' (height, width) aspect ratios."""
    return abs(size[1] * other[0] / (size[0] * other[1]) - 1)


def picture_size(images: Iterable[Path]) -> tuple[Path, tuple[int, int]] | None:
    """The first image whose header can be read, and its upright size (height, width); None if there is none."""
    for path in images:
        with contextlib.suppress(Exception), warnings.catch_warnings(action="ignore"):  # PIL raises anything for damaged files
            with Image.open(path) as image:
                turned = image.getexif().get(ExifTags.Base.Orientation, 1) >= FIRST_TURNED
                size = (image.width, image.height) if turned else (image.height, image.width)
            if min(size) > 0:
                return path, size
    return None


def check_pictures(
    image: Path, size: tuple[int, int], calibrated: tuple[int, int], where: str, raw: tuple[int, int] | None = None
) -> None:
    """Compares the size (height, width) of the picture ``image`` with the one that its calibration ``where`` is for.

    Pictures resized as a whole fit; where the proportions changed a little, a warning says what is assumed.

    Args:
      raw: size of the pictures before rectification, if the calibration states it.

    Raises:
      ConfigError: the pictures were cropped, or are not rectified.
    """
    across, down = size[1] / calibrated[1], size[0] / calibrated[0]
    sizes = f"{image} has {size[1]} x {size[0]} pixels, but {where} is for {calibrated[1]} x {calibrated[0]}"
    other_proportions, larger = stretch(size, calibrated), max(across, down) > 1
    if other_proportions > SQUEEZED and (larger or (raw is not None and stretch(size, raw) < RESIZED)):
        raise ConfigError(f"{sizes}: the pictures are distorted, not rectified; {REMEDY}")
    if other_proportions > SQUEEZED or (size != calibrated and not larger and min(across, down) > CROPPED):
        raise ConfigError(f"{sizes}: the pictures were cropped, which changes the camera, or are of another date; {REMEDY}")
    if other_proportions > RESIZED or larger:
        log.warning("%s: this is right if they were resized as a whole, wrong if cropped, or of another date or camera", sizes)
