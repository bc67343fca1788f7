"""Checksums of a checkpoint: taken from the arrays in memory when it is saved, compared when they are read back.

One number (CRC-32) for each part of the train state, one for the list of its arrays and one for the rest, so that reading the
networks alone verifies them too. Checkpoints of earlier versions have none; their arrays must be finite all the same.
"""

import json
import zlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

PARTS, ABOUT, ARRAYS = "checksums", "about", "arrays"
"""Entry of a checkpoint's metadata with its checksums; those of the metadata and of the list of arrays, beside the parts'."""

Listing = Mapping[str, tuple[tuple[int, ...], str]]
"""Path of each array -> its shape and type."""


class Damage(Exception):
    """What differs from what was saved."""


def add(about: Mapping[str, Any], tree: Mapping[str, Any], arrays: Listing) -> dict[str, Any]:
    """The metadata ``about`` of a checkpoint, any JSON, with the checksums of itself, of ``tree`` and of its list ``arrays``."""
    found = {name: _of_arrays(part) for name, part in tree.items()}
    found |= {ABOUT: _of_json(about), ARRAYS: _of_json(sorted(arrays.items()))}
    return {**about, PARTS: found}


def verify_about(about: Mapping[str, Any], arrays: Listing) -> None:
    """Raises :class:`Damage` if the metadata, or the list of arrays, is not the saved one."""
    known = about.get(PARTS)
    if known is None:
        return
    if _of_json({name: value for name, value in about.items() if name != PARTS}) != known.get(ABOUT):
        raise Damage("its metadata are not those saved")
    if _of_json(sorted(arrays.items())) != known.get(ARRAYS):
        raise Damage("its list of arrays is not the one saved")


def verify(about: Mapping[str, Any], tree: Mapping[str, Any]) -> None:
    """Raises :class:`Damage` if a part of the train state in ``tree`` is not the saved one or not finite."""
    known = about.get(PARTS)
    for name, part in tree.items():
        if known is not None and _of_arrays(part) != known.get(name):
            raise Damage(f"its {name} are not those saved")
        for path, array in _arrays(part):
            if jnp.issubdtype(array.dtype, jnp.inexact) and not np.isfinite(array).all():
                raise Damage(f"{name}{path and '/'}{path} has values that are not finite")


def _of_arrays(tree: Any) -> int:
    """Of all arrays in the order of their paths; keys that are integers and their text count as equal."""
    found = 0
    for _, array in sorted(_arrays(tree), key=lambda item: item[0]):
        found = zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8), found)
    return found


def _of_json(value: Any) -> int:
    return zlib.crc32(json.dumps(value, sort_keys=True).encode())


def _arrays(tree: Any) -> list[tuple[str, np.ndarray]]:
    """The arrays by path, on the host; a state has one copy per device, of which this process needs one."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return [(jax.tree_util.keystr(path, simple=True, separator="/"), _on_host(leaf)) for path, leaf in leaves]


def _on_host(leaf: Any) -> np.ndarray:
    return np.asarray(leaf.addressable_data(0) if isinstance(leaf, jax.Array) else leaf)
