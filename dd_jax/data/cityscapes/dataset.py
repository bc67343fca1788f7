"""Cityscapes: preprocessed triplets or the original sequences for training, the original sequences for the test set.

* train, val from triplets: ``ROOT/CITY/CITY_SSSSSS_FFFFFF.jpg``, frames t-2, t, t+2 side by side without the car's bonnet
  (lower quarter), and ``..._cam.txt`` (SfMLearner's layout; in the folder ``ROOT/preprocessed`` if it exists). Triplets of
  another ``frame_step`` say so in their note.
* train, val, test from sequences: the tree described in ``files``, upper 768 of 1024 rows. The test set has t-2 and t only.
* masks: ``ROOT/train_mask/CITY_SSSSSS_F.npy`` for t and ``F-1``, ``F+1`` for t-2, t+2 (DynamicDepth's layout, F without
  leading zeros, of the kept rows; ``val_mask`` for the test set), else ``ROOT/mask_sequence/{train,val,test}/CITY/
  CITY_SSSSSS_FFFFFF_mask.png``, of the whole image.
* prior depth (16 bits, inverse depth by another network): ``ROOT/train_prior/CITY_SSSSSS_FFFFFF.png`` of the kept rows, else
  ``ROOT/prior_sequence/{train,val,test}/CITY/CITY_SSSSSS_FFFFFF_prior.png`` of the whole image.
* ground truth: for the test set ``ROOT/gt_depths/%03d_depth.npy`` in the order of the split file; else, for any frame,
  ``ROOT/disparity/{train,val,test}/CITY/..._disparity.png`` (also ``disparity_sequence``) and its camera file.

Without a split file the rules of ``splits`` apply.
"""

import functools
from pathlib import Path

import numpy as np

from dd_jax.config import ConfigError, DataConfig
from dd_jax.data import published_order
from dd_jax.data.cityscapes import splits as rules
from dd_jax.data.cityscapes.ground_truth import MeasuredDepth
from dd_jax.data.cityscapes.layouts import Sequences, Triplets
from dd_jax.data.frames import MISSING, FrameTable, Listing
from dd_jax.data.splits import refuse_absent, split_file


def list_split(config: DataConfig, split: str) -> Listing:
    """Triplets (t-2k, t, t+2k) of "train" or "val", pairs (t-2k, t) of "test", k = ``config.frame_step``.

    Raises:
      ConfigError: folder, split file, target images or camera files are absent or invalid, or triplets are incomplete.
    """
    path = split_file(config, split)
    tree = Sequences(config) if split == "test" or _layout(config) == "sequence" else Triplets(config)
    listed = path.is_file() or bool(config.split_dir)
    entries = rules.read_list(path) if listed else tree.by_rule(split)
    if not entries:
        raise ConfigError(
            f"no frames for the {split} split below {tree.root}: expected leftImg8bit_sequence/{{train,val,test}}/CITY/*.png or, "
            "for train and val, triplets CITY/*.jpg made by scripts/prepare_cityscapes.py; check --config.data.root"
        )
    table = FrameTable()

    def position(city: str, sequence: str, number: int) -> int:
        return table.position((city, sequence, number), functools.partial(tree.frame, city, sequence, number))

    offsets = (-tree.step, 0) if split == "test" else (-tree.step, 0, tree.step)
    rows = [[position(city, sequence, number + offset) for offset in offsets] for city, sequence, number in entries]
    triplets = np.array([row + [MISSING] * (3 - len(row)) for row in rows], np.int32)
    absent = [tree.image_path(entry) for entry, row in zip(entries, rows) if row[1] == MISSING]
    refuse_absent(absent, len(entries), path if listed else tree.root)
    size = (config.height, config.width)
    names = [rules.line(entry) for entry in entries]
    out_of_order = published_order.other_order(names) if listed or split != "test" else published_order.CITYSCAPES
    truth = MeasuredDepth(tree, entries, published=split == "test", out_of_order=out_of_order)
    return Listing(
        root=tree.root,
        files=table.files,
        triplets=triplets,
        K=np.stack([tree.matrix(entry, size) for entry in entries]),
        names=names,
        ground_truth=truth,
        truth_files=truth.files,
        out_of_order=out_of_order,
    )


def _layout(config: DataConfig) -> str:
    """Source of train and val: as configured, otherwise triplets if there are any."""
    root = Path(config.root)
    if config.layout:
        return config.layout
    sequences = (root / "leftImg8bit_sequence").is_dir()
    triplets = (root / "preprocessed").is_dir() or any(root.glob("*/*_cam.txt"))
    return "sequence" if sequences and not triplets else "triplets"
