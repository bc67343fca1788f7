"""The camera of a video: given, guessed from the file's metadata, or by default; and what lens distortion does to it."""

import math
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8

from dd_jax.config import ConfigError
from dd_jax.data import frames

Intrinsics = tuple[float, float, float, float]  # fx, fy, cx, cy in pixels, integers at pixel centres
Picture = UInt8[np.ndarray, "h w 3"]

DEFAULT_FOV = 60.0
"""Degrees along the longer side that are guessed of a video that says nothing: many phones and some dash cameras have it."""

FILM_WIDTH = 36.0
"""Millimetres of the frame that "35 mm equivalent" focal lengths refer to."""

FOCAL_KEY = b"com.apple.quicktime.camera.focal_length.35mm_equivalent"
LARGEST_HEADER = 1 << 28
"""Bytes; more than this no file has to say about itself."""


def from_fov(fov: float, width: int, height: int) -> Intrinsics:
    """Square pixels and a central principal point, from the horizontal field of view in degrees.

    Raises:
      ConfigError: not between 0 and 180 degrees.
    """
    if not 0 < fov < 180:
        raise ConfigError(f"--fov={fov:g} must lie between 0 and 180 degrees")
    focal = width / 2 / math.tan(math.radians(fov) / 2)
    return focal, focal, (width - 1) / 2, (height - 1) / 2


def guess(video: Path, width: int, height: int) -> tuple[Intrinsics, str]:
    """A camera for a video of which nothing is known, and a sentence that says where it comes from."""
    longer, film = max(width, height), focal_of_metadata(video)
    focal = longer / 2 / math.tan(math.radians(DEFAULT_FOV) / 2) if film is None else film / FILM_WIDTH * longer
    fov = math.degrees(2 * math.atan(width / 2 / focal))
    origin = (
        f"the file names no focal length, so {DEFAULT_FOV:g} degrees along the longer side are assumed"
        if film is None
        else f"from the focal length that the file names, {film:g} mm (35 mm equivalent)"
    )
    return (focal, focal, (width - 1) / 2, (height - 1) / 2), f"guessed horizontal field of view {fov:.0f} degrees, {origin}"


def describe(camera: Intrinsics, width: int, height: int, where: str) -> dict[str, float | int]:
    """Content of ``intrinsics.json``.

    Raises:
      ConfigError: a camera that cannot be; the message begins with ``where``.
    """
    frames.intrinsics(*camera, (height, width), (height, width), where)  # refuses what training would refuse
    return {"width": width, "height": height, **dict(zip(("fx", "fy", "cx", "cy"), camera))}


def undistortion(
    camera: Intrinsics, coefficients: tuple[float, ...], width: int, height: int
) -> tuple[Intrinsics, Callable[[Picture], Picture]]:
    """The camera of the undistorted pictures, and what makes them: the largest picture without empty borders.

    Args:
      coefficients: k1, k2, p1, p2 and perhaps k3, of Brown's model as OpenCV has it.

    Raises:
      ConfigError: they fold the picture or leave parts of it empty.
    """
    fx, fy, cx, cy = camera
    K, distortion = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]]), np.array(coefficients, float)
    new, _ = cv2.getOptimalNewCameraMatrix(K, distortion, (width, height), 0)
    maps = cv2.initUndistortRectifyMap(K, distortion, None, new, (width, height), cv2.CV_32FC1)
    inside = [(axis > -1.5) & (axis < size + 0.5) for axis, size in zip(maps, (width, height))]  # NaN is not inside
    share = float(np.mean(inside[0] & inside[1]))
    if share < 0.99 or not np.isfinite(new).all():
        raise ConfigError(
            f"--distortion={','.join(f'{value:g}' for value in coefficients)} leaves {1 - share:.0%} of the picture empty: check "
            "the order k1,k2,p1,p2[,k3], and that --intrinsics is the camera it was measured with"
        )
    straight = float(new[0, 0]), float(new[1, 1]), float(new[0, 2]), float(new[1, 2])
    return straight, lambda picture: cv2.remap(picture, *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def focal_of_metadata(video: Path) -> float | None:
    """35 mm equivalent focal length in millimetres from a QuickTime or MP4 file; None where it says none.

    Telephones write it as an item of ``moov/meta``: names in ``keys``, values in ``ilst`` (QuickTime File Format, Metadata).
    """
    try:
        movie = _find_in_file(video, b"moov")
        for kind, meta in _boxes(movie):
            if kind == b"meta":
                # ISO files put four bytes of version and flags before the boxes inside; QuickTime does not.
                inner = dict(_boxes(meta if meta[4:8] in (b"hdlr", b"keys", b"ilst") else meta[4:]))
                value = _item(inner.get(b"keys", b""), inner.get(b"ilst", b""))
                if value is not None and 5 <= value <= 500:
                    return value
    except (OSError, struct.error, IndexError, ValueError):  # no such container, or damaged: then it says nothing
        pass
    return None


def _find_in_file(path: Path, wanted: bytes) -> bytes:
    """Content of the first box of this kind on the top level; empty where there is none."""
    with path.open("rb") as file:
        while len(head := file.read(8)) == 8:
            size, kind = struct.unpack(">I4s", head)
            read = 8
            if size == 1:
                size, read = struct.unpack(">Q", file.read(8))[0], 16
            if kind == wanted:
                return file.read(min(size - read, LARGEST_HEADER) if size else LARGEST_HEADER)
            if size < read:
                break
            file.seek(size - read, 1)
    return b""


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    start = 0
    while start + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, start)
        if size < 8:
            return
        yield kind, data[start + 8 : start + size]
        start += size


def _item(keys: bytes, items: bytes) -> float | None:
    names = [name for _, name in _boxes(keys[8:])]  # after version, flags and count: entries of size, namespace, name
    if FOCAL_KEY not in names:
        return None
    wanted = struct.pack(">I", names.index(FOCAL_KEY) + 1)
    for kind, item in _boxes(items):
        if kind == wanted:
            for inner, data in _boxes(item):
                if inner == b"data":
                    return _number(struct.unpack_from(">I", data)[0], data[8:])
    return None


def _number(kind: int, value: bytes) -> float:
    """A metadata value by its well-known type: 23, 24 floats, 21, 22 integers, else text."""
    if kind in (23, 24):
        return float(struct.unpack(">f" if kind == 23 else ">d", value)[0])
    return float(int.from_bytes(value, "big")) if kind in (21, 22) else float(value.decode())
