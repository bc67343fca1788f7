"""TFDS data sets ``kitti_triplets``, ``cityscapes_triplets`` and ``synthetic_triplets``: the fields of their records.

Importing this module registers them. Each has three configs; frames are stored once for all splits:

* ``frames``, split "frames": images with mask and prior depth, at training size or at the source's;
* ``triplets``, splits "train", "val", "test": the frames of a sample, ``data.frame_step`` apart, and its camera;
* ``depth``, the same splits: measured depth of the sample with the same number, at its own size.

``scripts/prepare_tfds.py`` builds a store (resumably, unlike ``download_and_prepare``), and
``--config.data.source=tfds`` reads it (``store``). Nothing here needs TensorFlow. In other programs::

    import dd_jax.data.tfds.builders
    triplets = tfds.builder("kitti_triplets/triplets", data_dir=STORE).as_data_source("train")
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from dd_jax.config import ConfigError

VERSION = "1.0.0"
CONFIGS = ("frames", "triplets", "depth")
KINDS = ("velodyne", "annotated")
"""Kinds of ground truth, as in ``Listing.ground_truth``."""

Example = dict[str, Any]
Shards = Mapping[str, Sequence[Callable[[], Iterator[tuple[int, Example]]]]]  # split -> one generator per shard


def features_of(config: str) -> tfds.features.FeaturesDict:
    """The fields of a record. An absent mask or prior is an image of a single zero; absent depth is an array of 0 x 0."""
    feature = tfds.features
    match config:
        case "frames":
            return feature.FeaturesDict(
                {
                    "image": feature.Image(shape=(None, None, 3)),
                    "mask": feature.Image(shape=(None, None, 1)),  # potentially dynamic objects, 0 or 255
                    "prior": feature.Image(shape=(None, None, 1), dtype=np.uint16),  # inverse depth by another network
                    "readable": feature.Scalar(dtype=np.bool_),  # False: the source files were damaged, all else is zero
                    "name": feature.Text(),
                }
            )
        case "triplets":
            return feature.FeaturesDict(
                {
                    "frames": feature.Tensor(shape=(3,), dtype=np.int64),  # t-k, t, t+k in the split "frames"; -1 = none
                    "K": feature.Tensor(shape=(3, 3), dtype=np.float32),  # pixels at the store's reference size
                    "name": feature.Text(),
                }
            )
        case _:
            fields = {}
            for kind in KINDS:
                fields[f"{kind}_depth"] = feature.Tensor(shape=(None, None), dtype=np.float32, encoding="zlib")  # m, 0 = none
                for mask in ("dynamic", "moving"):  # uint8 0 or 1; 0 x 0 = unknown
                    fields[f"{kind}_{mask}"] = feature.Tensor(shape=(None, None), dtype=np.uint8, encoding="zlib")
            return feature.FeaturesDict(fields)


class TripletsBuilder(tfds.core.ShardBasedBuilder, skip_registration=True):
    """One config of a store; ``shards`` generates the records and is not needed for reading."""

    VERSION = tfds.core.Version(VERSION)
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=name) for name in CONFIGS]  # noqa: RUF012 (TFDS declares it so)

    def __init__(self, *, shards: Shards | None = None, **kwargs):
        self.shards = shards
        super().__init__(**{"file_format": "array_record"} | kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            features=features_of(self.builder_config.name),
            description="Samples of three frames of driving video, for self-supervised depth estimation.",
            disable_shuffling=True,
        )

    def _shard_iterators_per_split(self, dl_manager: Any) -> Shards:
        if self.shards is None:
            raise ConfigError(f"{self.name} is made from a folder of drives: run scripts/prepare_tfds.py")
        return self.shards


class KittiTriplets(TripletsBuilder):
    """KITTI raw."""


class CityscapesTriplets(TripletsBuilder):
    """Cityscapes, from triplets or sequences."""


class SyntheticTriplets(TripletsBuilder):
    """The rendered drives of ``scripts/make_synthetic.py``."""


BUILDERS = {builder.name: builder for builder in (KittiTriplets, CityscapesTriplets, SyntheticTriplets)}
"""Name of a data set -> its builder."""
