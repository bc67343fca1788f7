"""Packs a data set into a TFDS store (array_record), which training reads without TensorFlow and without many small files.

    python scripts/prepare_tfds.py --config=configs/dynamic_depth.py:kitti --config.data.root=KITTI --out=STORE

The config's data section selects what to pack. --size=training, the default, stores frames at the config's size: small, and
training decodes them on the fly. --size=full keeps the original images: the store serves any size, through the frame
cache. May be interrupted: the same command continues. Train with --config.data.source=tfds --config.data.root=STORE.
"""

import sys
from pathlib import Path

from absl import flags
from ml_collections import config_flags

sys.path.insert(0, str(Path(__file__).parents[1]))  # configs/ import one another

from dd_jax.prepare.tfds_store import build
from dd_jax.runtime import command_line

SPLITS = ["train", "val", "test"]
CONFIG = config_flags.DEFINE_config_file("config", help_string="configs/NAME.py:VARIANT; any field as --config.a.b=value")
OUT = flags.DEFINE_string("out", None, "folder of the store")
SIZE = flags.DEFINE_enum("size", "training", ["training", "full"], "size of the stored frames")
NAME = flags.DEFINE_string("name", "", "kitti_triplets | cityscapes_triplets | synthetic_triplets; default: that of the source")
PACKED = flags.DEFINE_list("splits", SPLITS, "splits to pack")
DEPTH = flags.DEFINE_list("depth", SPLITS, "splits whose ground truth is packed too")
PER_SHARD = flags.DEFINE_integer("per_shard", 512, "records per file", lower_bound=1)


def main() -> None:
    full = SIZE.value == "full"
    folder = build(
        CONFIG.value.data, Path(OUT.value), name=NAME.value, splits=PACKED.value, depth=DEPTH.value, full=full,
        per_shard=PER_SHARD.value,
    )  # fmt: skip
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(f"{folder}: {size / 1e6:,.0f} MB")


if __name__ == "__main__":
    command_line.require("config", "out")
    command_line.run(main)
