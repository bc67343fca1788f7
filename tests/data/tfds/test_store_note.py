"""Content of ``store.json`` about frames, and invalid content."""

import dataclasses
import json

import cv2
import numpy as np
import pytest

from dd_jax.config import Config, ConfigError, DataConfig
from dd_jax.data.loader import open_split
from dd_jax.prepare.check import check
from dd_jax.prepare.tfds_store import build


def of_store(config, out):
    return dataclasses.replace(config, source="tfds", root=str(out))


@pytest.mark.parametrize("full", [False, True])
def test_misfit_masks_of_store_named(kitti_tree, tmp_path, caplog, full):
    tree = kitti_tree(frames=4)
    for frame in range(4):
        tree.add_mask(frame, values=np.eye(*(tree.size if frame != 2 else (32, 200)), dtype=np.uint8))
    sentence = "1 object masks have other proportions than their images"
    named = f"{tree.folder}/mask_02/data/0000000002.png (200x32, its image 64x32)"
    build(tree.config, tmp_path / "store", full=full)
    assert sentence in caplog.text and named in caplog.text
    caplog.clear()
    config = of_store(tree.config, tmp_path / "store")
    open_split(config, "train")
    assert caplog.text.count(sentence) == 1 and named in caplog.text
    report = check(Config(data=config), progress=False)
    assert f"mask of other proportions: 1, {named}" in report.problems
    assert report.statistics["complaints"] == check(tree.experiment(), progress=False).statistics["complaints"]
    caplog.clear()
    open_split(dataclasses.replace(config, masks="none"), "train")
    assert caplog.text == ""


def test_absent_prior_in_store(kitti_tree, tmp_path):
    tree = kitti_tree(frames=5)
    tree.config.priors = "files"
    priors = {frame: tree.add_prior(frame) for frame in (1, 3)}
    for split in ("train", "val", "test"):
        tree.write_split(split, [f"{tree.folder} {frame} l" for frame in priors])
    for full in (False, True):
        build(tree.config, tmp_path / f"store{full}", full=full)
        source = open_split(of_store(tree.config, tmp_path / f"store{full}"), "train")
        for index, prior in enumerate(priors.values()):
            np.testing.assert_array_equal(source[index].prior, prior)
        assert len(source) == 2 and source[0].exists.all()


def test_pack_odometry(tmp_path, picture):
    root = tmp_path / "odometry"
    (root / "sequences/04/image_2").mkdir(parents=True), (root / "splits").mkdir()
    for frame in range(4):
        cv2.imwrite(str(root / f"sequences/04/image_2/{frame:06d}.png"), picture(frame, 32, 64)[..., ::-1])
    (root / "sequences/04/calib.txt").write_text("P2: 50 0 31 4.5 0 51 15 0.2 0 0 1 0\n")
    (root / "splits/train_files.txt").write_text("4 1 l\n4 2 l\n")
    config = DataConfig(root=str(root), split="odom", height=32, width=64, masks="none")
    build(config, tmp_path / "store", splits=("train",))
    ours, theirs = open_split(of_store(config, tmp_path / "store"), "train"), open_split(config, "train")
    for index in range(2):
        np.testing.assert_array_equal(ours[index].images, theirs[index].images)
        np.testing.assert_array_equal(ours[index].K, theirs[index].K)


SOUND = {"fingerprint": "1", "settings": {}, "shards": {}, "splits": {"train": 1}, "unreadable": []}
SETTINGS = {"size": None, "reference": [], "depth": [], "source": "", "resize": "", "intrinsics": "", "masks": ""}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (json.dumps(SOUND), "no depth, intrinsics, masks, priors, reference, resize, size, source"),
        (json.dumps(SOUND | {"settings": SETTINGS}), "no priors"),
        (json.dumps(SOUND | {"settings": [*SETTINGS, "priors"]}), "settings, shards and splits must be objects"),
        (json.dumps(SOUND | {"settings": SETTINGS | {"priors": ""}, "shards": []}), "settings, shards and splits must be"),
        (json.dumps(SOUND | {"settings": 1}), "not iterable"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_incomplete_note_raises(tmp_path, text, complaint):
    (tmp_path / "kitti_triplets").mkdir()
    (tmp_path / "kitti_triplets/store.json").write_text(text)
    with pytest.raises(ConfigError, match=rf"store.json cannot be read \(.*{complaint}.*\): build the store again"):
        open_split(of_store(DataConfig(), tmp_path), "train")
