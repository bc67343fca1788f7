"""Splits as triplets of frames, and batches of them.

``open_split`` reads the lists and fills the frame cache, or opens a store that needs no cache; ``train_batches`` is an endless
resumable stream that depends on the seed only (not on threads, processes or devices); ``eval_batches`` iterates once over given
samples.
"""

import dataclasses
import hashlib
import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, SupportsIndex, runtime_checkable

import grain
import jax
import numpy as np
from jaxtyping import Bool, Int, UInt8, UInt16

from dd_jax.config import Config, ConfigError, DataConfig
from dd_jax.config.rules import check_frame_step
from dd_jax.data import folder
from dd_jax.data.cache import open_cache, warn_of_misfits
from dd_jax.data.cityscapes import dataset as cityscapes
from dd_jax.data.frames import MISSING, GroundTruth, Listing, Sample
from dd_jax.data.kitti import raw as kitti
from dd_jax.types import TARGET, Batch

log = logging.getLogger(__name__)


@runtime_checkable
class Frames(Protocol):
    """Frames at training size, from the cache or a store."""

    def read(
        self, index: Int[np.ndarray, "*n"], images: UInt8[np.ndarray, "*n h w 3"], masks: Bool[np.ndarray, "*n h w"]
    ) -> None:
        """Fills the given arrays with frames and masks of ``index``; zeros for negative entries."""

    def prior(self, index: Int[np.ndarray, " n"]) -> UInt16[np.ndarray, "n h w"] | None:
        """Prior depth of these frames; None if there is none."""


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
        """Images, masks, K, exists and optionally prior of the first ``num_frames`` frames of several samples."""
        triplets = self._triplets[indices, :num_frames]
        images = np.empty((*triplets.shape, *self._size, 3), np.uint8)
        masks = np.empty((*triplets.shape, *self._size), bool)
        self._store.read(triplets, images, masks)
        batch = {"images": images, "masks": masks, "K": self._K[indices], "exists": triplets >= 0}
        prior = self._store.prior(triplets[:, TARGET])
        return batch if prior is None else batch | {"prior": prior}

    def complete(self) -> Int[np.ndarray, " m"]:
        """The samples with both neighbours."""
        return np.flatnonzero((self._triplets >= 0).all(axis=1))

    def ground_truth(self, index: SupportsIndex, kind: str) -> GroundTruth | None:
        """Measured depth of a kind (``eval.ground_truth``, if the source has several) at native size; None if there is none."""
        return self._listing.ground_truth(int(self._kept[index]), kind)

    @property
    def out_of_order(self) -> str:
        """The published list with these samples in another order, which rules out pairing by position; "" = none."""
        return self._listing.out_of_order

    def name(self, index: SupportsIndex) -> str:
        """The sample's line in the split file."""
        return self._listing.names[self._kept[index]]

    def fingerprint(self) -> dict[str, Any]:
        """What identifies these samples, for checkpoints: their number, the first and the last, digests of names and file sizes.

        Neither the place of the files nor their dates count, so that a data set may be moved.
        """
        names = [self.name(index) for index in range(len(self))]
        files = self._listing.files
        sizes = [[file.image, file.stamp[0], file.mask_stamp[0], file.prior_stamp[0]] for file in files]
        digests = {
            kind: hashlib.sha256(repr(found).encode()).hexdigest()[:16] for kind, found in (("names", names), ("sizes", sizes))
        }
        return {"samples": len(names), "first": names[0], "last": names[-1], **digests}


def open_split(config: DataConfig, split: str) -> TripletSource:
    """Samples of "train", "val" or "test"; decodes frames missing from the cache.

    Raises:
      ConfigError: files are absent, unreadable or invalid, or no sample is left.
    """
    for flag, size in (("height", config.height), ("width", config.width)):
        if size <= 0 or size % 32:
            raise ConfigError(f"--config.data.{flag}={size} must be a positive multiple of 32")
    if split != "train":
        config = dataclasses.replace(config, priors="none")  # only training uses them
    store = None
    if config.source == "tfds":
        from dd_jax.data.tfds.store import open_store  # half a second of imports that other sources do not need

        listing, store = open_store(config, split)
    else:
        listing = list_split(config, split)
    require_priors(listing, config)
    if split == "train" and config.masks == "files" and listing.stored is None and not any(file.mask for file in listing.files):
        log.warning(
            "none of the %d frames below %s has an object mask of its name: all count as without", len(listing.files), config.root
        )
    warn_of_misfits(listing.misfits)
    if store is not None and store.size is not None:  # a store at training size replaces the cache
        frames, readable = store, store.readable
    else:
        frames, readable = open_cache(listing, config, f"{config.source}-{split}")
    source = TripletSource(listing, frames, readable, (config.height, config.width))
    if not len(source):
        raise ConfigError(f"no readable target frame is left in the {split} split of --config.data.root={config.root!r}")
    return source


def list_split(config: DataConfig, split: str) -> Listing:
    """The samples of a split, listed by the reader of its source without decoding an image.

    Raises:
      ConfigError: files are absent or invalid, or ``config.frame_step`` is.
    """
    check_frame_step(config.frame_step)
    match config.source:
        case "kitti":
            listing = kitti.list_split(config, split)
        case "cityscapes":
            listing = cityscapes.list_split(config, split)
        case "folder":
            listing = folder.list_split(config, split)
        case "tfds":
            from dd_jax.data.tfds.store import open_store  # half a second of imports that other sources do not need

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
            "write it with scripts/make_prior_depth.py, or train without, if no loss needs it: --config.data.priors=none"
        )


def train_batches(source: TripletSource, config: Config, num_processes: int = 1, process: int = 0) -> grain.DatasetIterator:
    """Endless shuffled batches: this process's share of ``config.data.batch_size``, uint8 images and a seed per sample.

    The shares of all processes, concatenated in order, equal the batch of a single process. ``get_state()`` is
    ``{"next_index": batches taken}``, valid for any number of threads and processes if the global batch size stays the same.

    With ``data.frame_step`` > 1 samples without both neighbours are left out, ``frame_step`` at each end of a drive. With 1,
    where the published lists decide, those that they contain are used with the neighbour that exists.

    Raises:
      ConfigError: the batch size is not divisible by the number of processes, or no sample has both neighbours.
    """
    share, rest = divmod(config.data.batch_size, num_processes)
    if rest or not share:
        raise ConfigError(
            f"--config.data.batch_size={config.data.batch_size} is global and must be divisible by the {num_processes} processes"
        )

    used = _trainable(source, config.data.frame_step)

    def load(samples: list[tuple[int, np.uint32]]) -> Batch:
        indices, seeds = zip(*samples[process * share : (process + 1) * share])
        return Batch(**source.gather(used[np.array(indices)]), seed=np.array(seeds, np.uint32))

    stream = _drawn(len(used), config).map(load)
    threads = config.data.threads
    return iter(stream.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)))


def _drawn(count: int, config: Config) -> grain.MapDataset:
    """Position among ``count`` samples, and seed, of every sample of every global batch.

    Indices are shuffled, not samples; all processes draw the same global batch and each loads its share.
    """

    def draw(index: int, rng: np.random.Generator) -> tuple[int, np.uint32]:
        return index, rng.integers(2**32, dtype=np.uint32)

    stream = grain.MapDataset.range(count).seed(config.train.seed).shuffle().repeat(None).random_map(draw)
    return stream.batch(config.data.batch_size, drop_remainder=True, batch_fn=list)


def sample_names(source: TripletSource, config: Config, step: int) -> list[str]:
    """The samples of the global batch of a training step (from 1), as in the split file."""
    used = _trainable(source, config.data.frame_step)
    return [source.name(used[index]) for index, _ in _drawn(len(used), config)[step - 1]]


def _trainable(source: TripletSource, step: int) -> Int[np.ndarray, " m"]:
    """The samples to train on; logs how many others there are."""
    used = np.arange(len(source)) if step == 1 else source.complete()
    if not used.size:
        raise ConfigError(
            f"none of the {len(source)} training samples has a readable frame {step} before and {step} after it: "
            f"lower --config.data.frame_step={step}, or check the files"
        )
    if used.size < len(source):
        log.warning(
            "%d of %d training samples are left out: they have no readable frame --config.data.frame_step=%d before or after "
            "them, as at the ends of drives", len(source) - used.size, len(source), step,
        )  # fmt: skip
    return used


def batch_shapes(source: TripletSource, config: Config) -> Batch:
    """Shapes and types of a global batch; reads one sample."""
    one = Batch(**source.gather(np.zeros(1, int)), seed=np.zeros(1, np.uint32))
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct((config.data.batch_size, *x.shape[1:]), x.dtype), one)


def eval_batches(
    source: TripletSource, indices: Sequence[int] | Int[np.ndarray, " m"], batch_size: int, num_frames: int = TARGET + 1
) -> Iterator[tuple[Int[np.ndarray, " n"], Batch]]:
    """(t-k, t), or all three frames, of the samples ``indices`` in order; the last batch is padded with its last sample.

    Yields the real indices (n <= batch_size) and a batch of ``batch_size``.
    """
    indices = np.asarray(indices, int)
    for start in range(0, len(indices), batch_size):
        real = indices[start : start + batch_size]
        filled = np.pad(real, (0, batch_size - len(real)), mode="edge")
        yield real, Batch(**source.gather(filled, num_frames), seed=np.zeros(batch_size, np.uint32))


class Prefetch:
    """Transfers ``size`` batches to the device ahead of the one in use.

    ``put`` starts a transfer and returns immediately (``jax.device_put``). ``get_state`` counts the batches handed out,
    not those fetched ahead, so that resuming neither loses nor repeats a batch.
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
        """Continues after the batch at which :meth:`get_state` was called."""
        self._ahead.clear()
        self._iterator.set_state(state)
        self._state = state


def prefetch(iterator: Any, size: int, put: Callable[[Batch], Any]) -> Prefetch:
    """See :class:`Prefetch`; ``iterator`` is the endless one of :func:`train_batches`."""
    return Prefetch(iterator, size, put)
