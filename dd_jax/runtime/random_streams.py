"""Every random stream of a training sample, in one enumeration, so that no two share their numbers.

A sample carries one seed; each stream is a key derived from it. The draws are the same on any number of devices.
"""

import enum

import jax
from jaxtyping import Array, UInt32


class RandomStream(enum.IntEnum):
    """The number is folded into the sample's key; ``AUGMENT`` uses the key itself."""

    AUGMENT = 0  # flip and colour jitter
    MATCHING = 1  # matching augmentation: static lookup frame, no lookup frame
    TIE_BREAK = 2  # noise of the auto-mask
    NORMALS = 3  # anchors of the normal ranking loss
    DEPTH_RANKING = 4  # pixel pairs of the depth ranking loss
    ZOOM = 5  # random enlargement and crop


def stream_key(seed: UInt32[Array, ""], stream: RandomStream) -> jax.Array:
    """Random key of one stream of one sample."""
    key = jax.random.key(seed)
    return key if stream is RandomStream.AUGMENT else jax.random.fold_in(key, int(stream))
