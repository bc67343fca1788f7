"""From images of any size to network inputs, by the same steps as for training data."""

import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import jax
import numpy as np
from jaxtyping import Bool, Float32, UInt8

from dd_jax.config import Config, ConfigError, DataConfig
from dd_jax.data import frames
from dd_jax.types import Batch

Item = TypeVar("Item")


class NetworkInput(NamedTuple):
    """One frame at the networks' size."""

    image: UInt8[np.ndarray, "h w 3"]
    mask: Bool[np.ndarray, "h w"]  # potentially dynamic objects


def as_uint8(image: np.ndarray, where: str) -> UInt8[np.ndarray, "H W 3"]:
    """A frame as the loader decodes it, from (H, W, 3) RGB, uint8 or float in [0, 1]; messages call it ``where``.

    Raises:
      ConfigError: another shape or type.
    """
    if not isinstance(image, np.ndarray) or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ConfigError(f"{where} must be an array of shape (H, W, 3), RGB: it is {_shape(image)}")
    if image.dtype.kind == "f":
        if not (np.isfinite(image).all() and image.min() >= 0 and image.max() <= 1):
            raise ConfigError(f"{where} has floats outside [0, 1]: divide by 255, or give uint8")
        return np.rint(image * 255).astype(np.uint8)
    if image.dtype != np.uint8:
        raise ConfigError(f"{where} must be uint8, or float in [0, 1]: it is {image.dtype}")
    return image


def to_network_size(image: np.ndarray, mask: np.ndarray | None, config: DataConfig, where: str) -> NetworkInput:
    """A frame and its mask, (H, W) or None = no object, resized as the loader does; raises as :func:`as_uint8`."""
    image, size = as_uint8(image, where), (config.height, config.width)
    if mask is None:
        return NetworkInput(frames.resize_image(image, *size, config.resize), np.zeros(size, bool))
    if not isinstance(mask, np.ndarray) or mask.shape != image.shape[:2]:
        raise ConfigError(f"the mask of {where} must be an array of shape {list(image.shape[:2])}: it is {_shape(mask)}")
    return NetworkInput(frames.resize_image(image, *size, config.resize), frames.resize_mask(mask != 0, *size))


def camera(K: np.ndarray | None, size: tuple[int, int], config: DataConfig) -> Float32[np.ndarray, "3 3"]:
    """Intrinsics at the networks' size, from ``K`` in pixels of frames of ``size`` (height, width).

    Raises:
      ConfigError: ``K`` is not (3, 3), not in pixels, has skew, or has its principal point outside the frame.
    """
    target = config.height, config.width
    if K is None:
        return np.eye(3, dtype=np.float32)  # for a network that does not use it
    if not isinstance(K, np.ndarray) or K.shape != (3, 3) or K.dtype.kind not in "fiu":
        raise ConfigError(f"K must be an array of shape (3, 3), in pixels of the frame: it is {_shape(K)}")
    rest = K[[0, 1, 2, 2, 2], [1, 0, 0, 1, 2]]
    if not np.array_equal(rest, [0, 0, 0, 0, 1]):
        raise ConfigError(f"K must be ((fx, 0, cx), (0, fy, cy), (0, 0, 1)), without skew: it is {K.tolist()}")
    return frames.intrinsics(*(float(K[place]) for place in ((0, 0), (1, 1), (0, 2), (1, 2))), size, target, "K")


def check_size(size: tuple[int, int], first: tuple[int, int], where: str) -> None:
    """Raises ConfigError if a frame has another (height, width) than those before it."""
    if size != first:
        raise ConfigError(
            f"{where} has {size[1]} x {size[0]} pixels, the frames before it {first[1]} x {first[0]}: "
            "all frames must have the same size"
        )


def assemble(
    previous: NetworkInput | None,
    target: NetworkInput,
    following: NetworkInput | None,
    K: Float32[np.ndarray, "3 3"],
    config: Config,
) -> Batch:
    """A batch of one sample; frames that are None do not exist. The following frame is used only with ``future_frame``."""
    inputs = [previous, target, following] if config.cost_volume.future_frame else [previous, target]
    return Batch(
        images=np.stack([np.zeros_like(target.image) if x is None else x.image for x in inputs])[None],
        masks=np.stack([np.zeros_like(target.mask) if x is None else x.mask for x in inputs])[None],
        K=K[None],
        exists=np.array([[x is not None for x in inputs]]),
        seed=np.zeros(1, np.uint32),
    )


def stack_samples(samples: Sequence[Batch], size: int) -> Batch:
    """A batch of ``size`` samples; the last sample is repeated if there are fewer."""
    return jax.tree.map(lambda *parts: np.concatenate(parts), *samples, *[samples[-1]] * (size - len(samples)))


def neighbours(items: Iterable[Item], ahead: bool, step: int) -> Iterator[tuple[Item | None, Item, Item | None]]:
    """Each item with the one ``step`` before it and, if ``ahead``, the one ``step`` after it; None at the ends.

    Holds ``step`` items, twice as many if ``ahead``.
    """
    before: deque[Item | None] = deque([None] * step, maxlen=step)
    for now, after in _with_later(items, step) if ahead else ((item, None) for item in items):
        yield before[0], now, after
        before.append(now)


def _with_later(items: Iterable[Item], step: int) -> Iterator[tuple[Item, Item | None]]:
    waiting: deque[Item] = deque()
    for later in itertools.chain(items, [None] * step):
        waiting.append(later)
        if len(waiting) > step:
            yield waiting.popleft(), later


def _shape(value: object) -> object:
    return list(value.shape) if isinstance(value, np.ndarray) else type(value).__name__
