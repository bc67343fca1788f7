"""NumPy's files. What a head claims is compared with the bytes that follow before anything is allocated; nothing is unpickled."""

import io
import math
import zipfile
from pathlib import Path

import numpy as np


class DamagedArray(Exception):
    """The bytes are not a complete array of numbers."""


def load(path: Path) -> np.ndarray:
    """Memory-mapped array of an ``.npy`` file.

    Raises:
      DamagedArray: missing, damaged, truncated, or of objects, which would need unpickling.
    """
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except Exception as error:  # NumPy evaluates heads as Python text: TokenError, RecursionError, OverflowError, ...
        raise DamagedArray(str(path)) from error


def load_member(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """The array ``name`` of an ``.npz`` archive.

    Raises:
      DamagedArray: as :func:`load`.
    """
    try:
        file = io.BytesIO(archive.read(f"{name}.npy"))
        shape, dtype = head(file)
        if dtype.hasobject or math.prod(shape) * dtype.itemsize != len(file.getbuffer()) - file.tell():
            raise DamagedArray(name)
        file.seek(0)
        return np.lib.format.read_array(file, allow_pickle=False)
    except Exception as error:  # as above, and of damaged, encrypted or otherwise compressed archives
        raise DamagedArray(name) from error


def head(file: io.BufferedIOBase) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type that the head of an ``.npy`` file states.

    Raises:
      DamagedArray: it cannot be read.
    """
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
    except Exception as error:
        raise DamagedArray("its head cannot be read") from error
    return shape, dtype
