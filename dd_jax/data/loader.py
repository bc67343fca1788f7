"""The entrance to all data: a split as triplets of frames, and batches of them.

``open_split`` reads the lists and fills the frame cache, or opens a store that needs none; ``train_batches`` is an endless
stream that depends on the seed alone (not on threads, processes or devices) and can be resumed, ``eval_batches`` walks
through given samples once.
"""

import dataclasses
import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, SupportsIndex, runtime_checkable

import grain
import jax
import numpy as np
from jaxtyping import Bool, Int, UInt8, UInt16

from dd_jax.config import Config, ConfigError, DataConfig
from dd_jax.data import folder
from dd_jax.data.cache import open_cache, warn_of_misfits
from dd_jax.data.cityscapes import dataset as cityscapes
from dd_jax.data.frames import MISSING, GroundTruth, Listing, Sample
from dd_jax.data.kitti import raw as kitti
from dd_jax.types import TARGET, Batch

log = logging.getLogger(__name__)


@runtime_checkable
class Frames(Protocol):
    """Frames at training size: the cache's, or those of a store."""

    def read(
        self, index: Int[np.ndarray, "*n"], images: UInt8[np.ndarray, "*n h w 3"], masks: Bool[np.ndarray, "*n h w"]
    ) -> None:
        """Fills the given arrays with frames and masks of ``index``; zeros for negative entries."""

    def prior(self, index: Int[np.ndarray, " n"]) -> UInt16[np.ndarray, "n h w"] | None:
        """Prior depth of these frames; None where there is none."""


class TripletSource:
    """Random access to the samples of a split."""

    def __init__(self, listing: Listing, store: Frames, readable: Bool[np.ndarray, " files"], size: tuple[int, int]):
        triplets = np.where((listing.triplets >= 0) & readable[listing.triplets], listing.triplets, MISSING)
        self._kept = np.flatnonzero(triplets[:, TARGET] >= 0)
        if len(self._kept) < len(triplets):
            log.warning("%d of %d samples are dropped: target unreadable", len(triplets) - len(self._kept), len(triplets))
        self._listing, self._store, self._size = listing, store, size
        self._triplets, self._K = triplets[self._kept], listing.K[self._kept]

    def __len__(self) -> int:
        return len(self._kept)

    def __getitem__(self, index: SupportsIndex) -> Sample:
        return Sample(**{name: values[0] for name, values in self.gather(np.array([index])).items()})

    def gather(self, indices: Int[np.ndarray, " b"], num_frames: int = 3) -> dict[str, np.ndarray]:
        """Images, masks, K, exists, perhaps prior of several samples: the first ``num_frames`` frames, copied from the cache."""
        triplets = self._triplets[indices, :num_frames]
        images = np.empty((*triplets.shape, *self._size, 3), np.uint8)
        masks = np.empty((*triplets.shape, *self._size), bool)
        self._store.read(triplets, images, masks)
        batch = {"images": images, "masks": masks, "K": self._K[indices], "exists": triplets >= 0}
        prior = self._store.prior(triplets[:, TARGET])
        return batch if prior is None else batch | {"prior": prior}

    def ground_truth(self, index: SupportsIndex, kind: str) -> GroundTruth | None:
        """Measured depth of a kind (``eval.ground_truth``, where the source knows several) at native size; None without."""
        return self._listing.ground_truth(int(self._kept[index]), kind)

    @property
    def out_of_order(self) -> str:
        """The published list that has these samples in another order, so that nothing pairs with them by position; "" = none."""
        return self._listing.out_of_order

    def name(self, index: SupportsIndex) -> str:
        """The sample's line in the split file."""
        return self._listing.names[self._kept[index]]


def open_split(config: DataConfig, split: str) -> TripletSource:
    """Samples of "train", "val" or "test"; decodes what the frame cache does not hold yet.

    Raises:
      ConfigError: files are absent, unreadable or make no sense, or nothing is left.
    """
    for flag, size in (("height", config.height), ("width", config.width)):
        if size <= 0 or size % 32:
            raise ConfigError(f"--config.data.{flag}={size} must be a positive multiple of 32")
    if split != "train":
        config = dataclasses.replace(config, priors="none")  # they teach; nothing else looks at them
    store = None
    if config.source == "tfds":
        from dd_jax.data.tfds.store import open_store  # half a second of imports that the other sources can do without

        listing, store = open_store(config, split)
    else:
        listing = list_split(config, split)
    require_priors(listing, config)
    warn_of_misfits(listing.misfits)
    if store is not None and store.size is not None:  # it holds what the cache would
        frames, readable = store, store.readable
    else:
        frames, readable = open_cache(listing, config, f"{config.source}-{split}")
    source = TripletSource(listing, frames, readable, (config.height, config.width))
    if not len(source):
        raise ConfigError(f"no readable target frame is left in the {split} split of --config.data.root={config.root!r}")
    return source


def list_split(config: DataConfig, split: str) -> Listing:
    """The samples of a split, by the reader of its source, before any picture is decoded.

    Raises:
      ConfigError: files are absent or make no sense.
    """
    match config.source:
        case "kitti":
            listing = kitti.list_split(config, split)
        case "cityscapes":
            listing = cityscapes.list_split(config, split)
        case "folder":
            listing = folder.list_split(config, split)
        case "tfds":
            from dd_jax.data.tfds.store import open_store  # half a second of imports that the other sources can do without

            return open_store(config, split)[0]
        case other:
            raise ConfigError(f"--config.data.source={other!r} is not one of 'kitti', 'cityscapes', 'folder', 'tfds'")
    return dataclasses.replace(listing, mask_format=config.mask_format)


def require_priors(listing: Listing, config: DataConfig) -> None:
    """Raises ConfigError if the config wants prior depth and a target has none."""
    targets = [listing.files[index] for index in listing.triplets[:, TARGET]] if config.priors == "files" else []
    bare = [file.image for file in targets if not file.prior]
    if bare:
        raise ConfigError(
            f"{len(bare)} of {len(targets)} training frames below {config.root} have no prior depth, the first is {bare[0]}: "
            "write it beside them, or set --config.data.priors=none"
        )


def train_batches(source: TripletSource, config: Config, num_processes: int = 1, process: int = 0) -> grain.DatasetIterator:
    """Endless shuffled batches, this process's share of ``config.data.batch_size``, uint8 images and a seed per sample.

    The shares of all processes, in their order, are the batch of one process. ``get_state()`` is
    ``{"next_index": batches taken}``, valid for any number of threads and processes as long as the global batch size stays.

    Raises:
      ConfigError: the batch size is not divisible by the number of processes.
    """
    share, rest = divmod(config.data.batch_size, num_processes)
    if rest or not share:
        raise ConfigError(
            f"--config.data.batch_size={config.data.batch_size} is global and must be divisible by the {num_processes} processes"
        )

    def draw(index: int, rng: np.random.Generator) -> tuple[int, np.uint32]:
        return index, rng.integers(2**32, dtype=np.uint32)

    def load(samples: list[tuple[int, np.uint32]]) -> Batch:
        indices, seeds = zip(*samples[process * share : (process + 1) * share])
        return Batch(**source.gather(np.array(indices)), seed=np.array(seeds, np.uint32))

    # What travels through the shuffle is an index; all processes draw the same whole batch, and each loads its share of it.
    stream = grain.MapDataset.range(len(source)).seed(config.train.seed).shuffle().repeat(None).random_map(draw)
    stream = stream.batch(config.data.batch_size, drop_remainder=True, batch_fn=list).map(load)
    threads = config.data.threads
    return iter(stream.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)))


def batch_shapes(source: TripletSource, config: Config) -> Batch:
    """Shapes and types of a whole batch, of all processes together; one sample is read for them."""
    one = Batch(**source.gather(np.zeros(1, int)), seed=np.zeros(1, np.uint32))
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct((config.data.batch_size, *x.shape[1:]), x.dtype), one)


def eval_batches(
    source: TripletSource, indices: Sequence[int] | Int[np.ndarray, " m"], batch_size: int, num_frames: int = TARGET + 1
) -> Iterator[tuple[Int[np.ndarray, " n"], Batch]]:
    """(t-1, t), or all three frames, of the samples ``indices``, in order; copies of its last sample fill up the last batch.

    Yields the real indices (n <= batch_size) and a batch of ``batch_size``.
    """
    indices = np.asarray(indices, int)
    for start in range(0, len(indices), batch_size):
        real = indices[start : start + batch_size]
        filled = np.pad(real, (0, batch_size - len(real)), mode="edge")
        yield real, Batch(**source.gather(filled, num_frames), seed=np.zeros(batch_size, np.uint32))


class Prefetch:
    """Keeps ``size`` batches on their way to the device ahead of the one in use.

    ``put`` starts a transfer and returns at once (``jax.device_put``). ``get_state`` belongs to the batches handed out,
    not to those fetched ahead, so that resuming loses and repeats nothing.
    """

    def __init__(self, iterator: Any, size: int, put: Callable[[Batch], Any]):
        self._iterator, self._size, self._put = iterator, size, put
        self._ahead: deque[tuple[Any, Any]] = deque()  # batch on the device, state of the iterator after it
        self._state = iterator.get_state()

    def __iter__(self) -> "Prefetch":
        return self

    def __next__(self) -> Any:
        while len(self._ahead) <= self._size:
            batch = self._put(next(self._iterator))
            self._ahead.append((batch, self._iterator.get_state()))
        batch, self._state = self._ahead.popleft()
        return batch

    def get_state(self) -> Any:
        """State of the iterator after the last batch handed out."""
        return self._state

    def set_state(self, state: Any) -> None:
        """Continues after the batch that :meth:`get_state` belonged to."""
        self._ahead.clear()
        self._iterator.set_state(state)
        self._state = state


def prefetch(iterator: Any, size: int, put: Callable[[Batch], Any]) -> Prefetch:
    """See :class:`Prefetch`; ``iterator`` is that of :func:`train_batches`, which never ends."""
    return Prefetch(iterator, size, put)
