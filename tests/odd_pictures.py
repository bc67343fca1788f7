"""Unusual image files."""

import struct
import zlib

import numpy as np
from PIL import Image


def bomb(path):
    """A PNG that claims 60000 x 60000 pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b""))
    return path


def upright(path, height, width):
    """A JPEG of this size with an EXIF orientation of 90 degrees."""
    image = Image.fromarray(np.full((height, width, 3), 100, np.uint8))
    image.getexif()[0x0112] = 6
    image.save(path, exif=image.getexif())
    return path
