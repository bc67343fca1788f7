"""What decoders deliver without complaint: pictures of damaged JPEG files, and pictures that are blank, dark or repeated."""

import contextlib
import hashlib
import io
import warnings
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
from jaxtyping import UInt8
from PIL import Image as PillowImage

Image = UInt8[np.ndarray, "H W 3"]

JPEG, PNG, JPEG_END = b"\xff\xd8", b"\x89PNG", b"\xff\xd9"

DEFLATE = 1032
"""Largest ratio of PNG's compression; the pixels of a JPEG of one colour are fewer per byte."""

UNJUDGED = 1 << 23
"""Pixels up to which the size of other formats is plausible: a WebP of one colour has a few dozen bytes. 4K has less."""

PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""By the type of colour."""

FLAT = 4
"""Largest difference of values in a picture of a single colour, which lossy compression may leave."""

DARK = 64
"""A picture is dark if no value, of 255, reaches this one. Pictures taken at night have lamps."""

EQUAL = (0.5, 24)
"""Largest mean and single difference of values between a picture and its repetition, which compression may leave."""

ROWS = 64
"""Blank and repeated pictures are told by about so many of their rows, and as densely spaced columns."""


def size_is_plausible(data: bytes) -> bool:
    """Whether an image's bytes can hold as many pixels as its head claims; True where the head cannot be read.

    Decoders allocate what the head claims before they find out.
    """
    if data.startswith(PNG):  # its head has a fixed place
        width, height = int.from_bytes(data[16:20]), int.from_bytes(data[20:24])
        return height * -(-width * sum(data[24:25]) * PNG_CHANNELS.get(sum(data[25:26]), 1) // 8) <= DEFLATE * len(data)
    width, height, most = 0, 0, DEFLATE * len(data)
    if data.startswith(JPEG):
        with contextlib.suppress(ValueError):
            height, width, *_ = simplejpeg.decode_jpeg_header(data)
    else:
        quiet = warnings.catch_warnings(action="ignore")
        with quiet, contextlib.suppress(Exception), PillowImage.open(io.BytesIO(data)) as image:
            (width, height), most = image.size, max(most, UNJUDGED)
    return width * height <= most


def jpeg_damage(data: bytes) -> str:
    """What libjpeg reports about data that OpenCV decodes all the same; "" if they are whole, or no JPEG."""
    if not data.startswith(JPEG):
        return ""
    try:
        simplejpeg.decode_jpeg(data, colorspace="GRAY", strict=True)
    except ValueError as error:
        unpadded = data[: data.rfind(JPEG_END)].rstrip(b"\0\xff") + JPEG_END  # some cameras fill files up before the end mark
        return str(error) if unpadded == data else jpeg_damage(unpadded)
    return ""


def completed(data: bytes) -> bytes | None:
    """An image's bytes, with a JPEG's end mark where that stands before other data or is all that is missing; None: cut off."""
    if data.startswith(PNG) and not _has_all_chunks(data):
        return None
    if data.startswith(JPEG) and JPEG_END not in data[-1024:]:
        data += JPEG_END
        return None if jpeg_damage(data) else data
    return data or None


def _has_all_chunks(data: bytes) -> bool:
    """Whether a PNG holds the chunks whose lengths it states, up to the last; OpenCV allocates a chunk before it reads it."""
    place = 8
    while place + 12 <= len(data):
        kind, end = data[place + 4 : place + 8], place + 12 + int.from_bytes(data[place : place + 4])
        if kind == b"IEND":
            return end <= len(data)
        place = end
    return False


def brightest(image: Image) -> int:
    """Largest value, of 255."""
    return int(image.max())


def is_blank(image: Image) -> bool:
    """Whether the picture has a single colour, apart from 0.5 % of the pixels at either end."""
    low, high = np.percentile(_sample(image).reshape(-1, 3), (0.5, 99.5), axis=0)
    return bool((high - low <= FLAT).all())


def fault(image: Image, path: Path | None = None) -> str:
    """What is wrong with what a picture shows, to follow "is" or "are"; "" for a usual one.

    ``path`` is its file, if it has one of its own: a dark picture may be one whose 16 bits are not used.
    """
    blank = is_blank(image)
    if brightest(image) >= DARK:
        return "of a single colour" if blank else ""
    bits = None if path is None else used_bits(path)
    if bits is not None and bits >= 8:
        return f"dark, because the values use {bits} of 16 bits (multiply them by {2 ** (16 - bits)})"
    return "black" if blank else f"dark, without a value of {DARK} of 255"


def equal(one: UInt8[np.ndarray, "..."], other: UInt8[np.ndarray, "..."]) -> bool:
    """Whether one picture repeats the other, apart from compression."""
    if one.shape != other.shape:
        return False
    difference = cv2.absdiff(one, other)
    return bool(difference.mean() <= EQUAL[0] and difference.max() <= EQUAL[1])


def digest(image: Image) -> bytes:
    """The same for files of the same picture."""
    return hashlib.blake2b(np.ascontiguousarray(_sample(image)), digest_size=16).digest()


def used_bits(path: Path) -> int | None:
    """Number of bits that the values of a 16-bit PNG need; None for other files."""
    data = path.read_bytes()
    if not data.startswith(PNG) or data[24] != 16:  # its header has a fixed place
        return None
    return int(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED).max()).bit_length()


class PictureLog:
    """Collects what is wrong with consecutive pictures."""

    def __init__(self):
        self._count, self._before = 0, np.zeros((0, 0, 3), np.uint8)
        self._names: dict[str, list[str]] = {}

    def add(self, name: str, image: Image, path: Path | None = None) -> None:
        """The next picture, with its name in messages; ``path`` as for :func:`fault`."""
        here = _sample(image).copy()
        found = fault(image, path) or ("equal to the one before" if equal(here, self._before) else "")
        if found:
            self._names.setdefault(found, []).append(name)
        self._count, self._before = self._count + 1, here

    def sentences(self) -> list[str]:
        """One on each fault: how many pictures have it, and the first of them."""
        return [f"{len(names)} of {self._count} frames are {found}, first {names[0]}" for found, names in self._names.items()]


def _sample(image: Image) -> UInt8[np.ndarray, "_ _ 3"]:
    step = max(1, image.shape[0] // ROWS)
    return image[::step, ::step]
