"""Data without names require the published order, whatever the source of frames."""

import random

import cv2
import numpy as np
import pytest
from cityscapes_tree import CityscapesTree

from dd_jax.config import ConfigError, DataConfig
from dd_jax.data import published_order
from dd_jax.data.ground_truth_file import export
from dd_jax.data.kitti import splits
from dd_jax.data.loader import list_split, open_split
from dd_jax.data.splits import list_digest
from dd_jax.evaluation.external_predictions import open_predictions
from dd_jax.prepare.tfds_store import build

EIGEN = "eigen/test_files.txt"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A root with the 697 images of the Eigen test split, no list, and Monodepth2's ``gt_depths.npz``."""
    root = tmp_path_factory.mktemp("eigen")
    png = cv2.imencode(".png", np.zeros((32, 64, 3), np.uint8))[1].tobytes()
    for folder, frame, _ in splits.eigen_test():
        path = root / folder / f"image_02/data/{frame:010d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png)
    np.savez(root / "gt_depths.npz", data=np.arange(1, 698, dtype=np.float32)[:, None, None] * np.ones((1, 2, 4), np.float32))
    return root


@pytest.fixture
def published(monkeypatch, tmp_path):
    """A folder with a list of the Eigen split, whose order is treated as the published one; and its lines."""
    lines = splits.lines(splits.eigen_test())
    random.Random(0).shuffle(lines)
    digest = list_digest(lines, ordered=True)[:16]
    known = {key: (name, digest) for key, (name, _) in published_order.PUBLISHED.items() if name == EIGEN}
    monkeypatch.setattr(published_order, "PUBLISHED", known)
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists/test_files.txt").write_text("".join(f"{line}\n" for line in lines))
    return tmp_path / "lists", lines


def settings(root, **fields):
    fields = {"split": "eigen_zhou", "intrinsics": "nominal", "masks": "none", "height": 32, "width": 64} | fields
    return DataConfig(root=str(root), **fields)


def test_rules_give_published_sets_in_other_order():
    for name, rule in {EIGEN: splits.eigen_test, "eigen_benchmark/test_files.txt": splits.eigen_benchmark}.items():
        lines = splits.lines(rule())
        assert published_order.other_order(lines) == published_order.other_order(lines[::-1]) == name
        assert published_order.other_order(lines[:-1]) == published_order.other_order([*lines[:-1], "a 1 l"]) == ""
    assert published_order.other_order([]) == ""


def test_published_list_is_in_order(published):
    assert published_order.other_order(published[1]) == "" and published_order.other_order(sorted(published[1])) == EIGEN


def test_gt_depths_need_published_list(pictures, published):
    """Entry i is the depth of line i."""
    with_file = {"ground_truth_file": str(pictures / "gt_depths.npz")}
    message = rf"gt_depths.npz has no names: it follows the lines of the published {EIGEN}.*to ROOT/splits.*split_dir"
    with pytest.raises(ConfigError, match=message):
        list_split(settings(pictures, **with_file), "test")
    folder, lines = published
    found = list_split(settings(pictures, split_dir=str(folder), **with_file), "test")
    assert found.names == lines
    for index in (0, 300, 696):
        assert (found.ground_truth(index, "file").depth == index + 1).all()


def test_sorted_published_list_out_of_order_custom_list_in_order(pictures, published):
    folder, lines = published
    (folder / "test_files.txt").write_text("".join(f"{line}\n" for line in sorted(lines)))
    fields = {"split_dir": str(folder), "ground_truth_file": str(pictures / "gt_depths.npz")}
    with pytest.raises(ConfigError, match="the frames here have another order"):
        list_split(settings(pictures, **fields), "test")
    own = list_split(settings(pictures, split="", **fields), "test")
    assert own.names == sorted(lines) and own.out_of_order == "" and (own.ground_truth(0, "file").depth == 1).all()
    assert list_split(settings(pictures), "test").out_of_order == EIGEN


def test_unnamed_predictions_need_published_list(pictures, published, tmp_path):
    source = open_split(settings(pictures, cache_dir=str(tmp_path / "cache")), "test")
    names = [source.name(index) for index in range(len(source))]
    assert source.out_of_order == EIGEN
    np.save(tmp_path / "disps_eigen_split.npy", np.ones((697, 2, 3), np.float32))
    by_frame = "2011_09_26_drive_0002_sync_0_l.npy"
    message = rf"disps_eigen_split.npy has no names: it follows .*published {EIGEN}.*give a folder of files like {by_frame}"
    with pytest.raises(ConfigError, match=message):
        open_predictions(tmp_path / "disps_eigen_split.npy", names, "disparity", source.out_of_order)
    folder = tmp_path / "numbered"
    folder.mkdir()
    for index in range(697):
        np.save(folder / f"{index:04d}.npy", np.full((2, 3), 1 + index))
    message = rf"numbered holds files by number, 0000 and so on: it follows .*name the files by frame, like {by_frame}"
    with pytest.raises(ConfigError, match=message):
        open_predictions(folder, names, "disparity", source.out_of_order)
    for index in range(697):
        (folder / f"{index:04d}.npy").rename(folder / f"{names[index].split('/')[-1].replace(' ', '_')}.npy")
    assert open_predictions(folder, names, "disparity", source.out_of_order)(5)[0, 0] == 6


def test_object_file_needs_published_order(pictures, published, tmp_path):
    listing = list_split(settings(pictures), "test")
    with pytest.raises(ConfigError, match=r"a file with --objects follows the lines of .*; or leave out --objects"):
        export(listing, "velodyne", tmp_path / "gt.npz", objects=True)
    with pytest.raises(ConfigError, match="697 of 697 frames"):  # in order, but there are no scans
        export(list_split(settings(pictures, split_dir=str(published[0])), "test"), "velodyne", tmp_path / "gt.npz", objects=True)


@pytest.fixture
def tree_with_test_split(tmp_path):
    tree = CityscapesTree(tmp_path)
    tree.make_training(np.random.default_rng(0))
    for city, number in (("mainz", 30), ("bonn", 19)):
        where = {"city": city, "sequence": "000001", "home": "test"}
        tree.frames((number - 2, number), **where), tree.camera(number, **where)
    return tree


def test_cityscapes_rule_test_frames_out_of_order(tree_with_test_split):
    assert list_split(tree_with_test_split.config, "test").out_of_order == published_order.CITYSCAPES
    tree_with_test_split.split("test", [("mainz", "000001", 30), ("bonn", "000001", 19)])
    assert list_split(tree_with_test_split.config, "test").out_of_order == ""
    assert list_split(tree_with_test_split.config, "train").out_of_order == ""


def test_reordered_cityscapes_list_has_no_published_depth(tree_with_test_split, monkeypatch, caplog):
    (tree_with_test_split.root / "gt_depths").mkdir()
    np.save(tree_with_test_split.root / "gt_depths/000_depth.npy", np.full((64, 128), 7.0))
    lines = ["mainz mainz_000001_000030", "bonn bonn_000001_000019"]
    known = {(2, list_digest(lines)): (published_order.CITYSCAPES, list_digest(lines, ordered=True))}
    monkeypatch.setattr(published_order, "PUBLISHED", known)
    tree_with_test_split.split("test", [("bonn", "000001", 19), ("mainz", "000001", 30)])
    assert list_split(tree_with_test_split.config, "test").ground_truth(0, "annotated") is None
    assert "gt_depths is not used: its numbers are lines of the public test list" in caplog.text
    caplog.clear()
    tree_with_test_split.split("test", [("mainz", "000001", 30), ("bonn", "000001", 19)])
    assert list_split(tree_with_test_split.config, "test").ground_truth(0, "annotated") is not None and caplog.text == ""


def test_store_order_from_names(kitti_tree, monkeypatch, tmp_path):
    tree = kitti_tree(frames=3)
    names = list_split(tree.config, "test").names
    store = build(tree.config, tmp_path / "store", splits=("test",), depth=()).parent
    config = settings(store, source="tfds", split="", intrinsics="calib")
    monkeypatch.setattr(published_order, "PUBLISHED", {(3, list_digest(names)): (EIGEN, "another")})
    assert list_split(config, "test").out_of_order == ""  # made from custom lists
    note = (store / "kitti_triplets/store.json").read_text()
    assert '"split": ""' in note
    (store / "kitti_triplets/store.json").write_text(note.replace('"split": ""', '"split": "eigen_zhou"'))
    assert list_split(config, "test").out_of_order == EIGEN
