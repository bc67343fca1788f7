"""Reading Cityscapes' original tree."""

import json
import logging

import cv2
import numpy as np
import pytest
from cityscapes_tree import CAMERA, CityscapesTree

from dd_jax.config import ConfigError
from dd_jax.data.cityscapes import splits as rules
from dd_jax.data.cityscapes.files import full_triplets
from dd_jax.data.loader import open_split

SEQUENCE = "000064"


@pytest.fixture
def tree(tmp_path):
    return CityscapesTree(tmp_path)


@pytest.fixture
def snippet(tree):
    """Twelve frames and a camera file for the tenth."""
    tree.frames(range(12))
    tree.camera(9)
    return tree


def by_rule(config):
    """The samples of train and val together; the division between them depends on names only."""
    found = {}
    for split in ("train", "val"):
        try:
            source = open_split(config, split)
        except ConfigError as error:
            assert "no frames for" in str(error)
            continue
        found |= {source.name(i): source[i] for i in range(len(source))}
    return found


def test_triplets_of_kept_rows(snippet):
    samples = by_rule(snippet.config)
    assert sorted(samples) == [f"ulm ulm_{SEQUENCE}_{number:06d}" for number in range(2, 10)]
    for name, sample in samples.items():
        number = int(name[-6:])
        assert sample.exists.all()
        for image, step in zip(sample.images, (-2, 0, 2)):
            np.testing.assert_array_equal(image, snippet.kept(number + step))
        scale = 256 / 2048
        np.testing.assert_allclose(sample.K[0], [2262.52 * scale, 0, 1097.48 * scale - 0.5], rtol=1e-6)
        np.testing.assert_allclose(sample.K[1], [0, 2265.3018 * scale, 513.637 * scale - 0.5], rtol=1e-6)


def test_list_selects_frames_and_snippet_ends_lack_neighbours(snippet):
    snippet.split("train", [("ulm", SEQUENCE, 5), ("ulm", SEQUENCE, 0), ("ulm", SEQUENCE, 11)])
    source = open_split(snippet.config, "train")
    assert [source.name(i)[-6:] for i in range(3)] == ["000005", "000000", "000011"]
    assert [source[i].exists.tolist() for i in range(3)] == [[True] * 3, [False, True, True], [True, True, False]]
    assert not source[1].images[0].any()


def test_frame_step_multiplies_published_step(snippet):
    """The targets stay the same; samples at the ends of the snippet lack a neighbour."""
    default = by_rule(snippet.config)
    snippet.config.frame_step = 2
    samples = by_rule(snippet.config)
    assert samples.keys() == default.keys()
    for name, sample in samples.items():
        numbers = [int(name[-6:]) + offset for offset in (-4, 0, 4)]
        assert sample.exists.tolist() == [0 <= number < 12 for number in numbers]
        for image, number in zip(sample.images, numbers):
            np.testing.assert_array_equal(image, snippet.kept(number) if 0 <= number < 12 else 0)


def test_frame_step_of_test_pairs(tree):
    where = {"city": "bonn", "sequence": "000001", "home": "test"}
    tree.frames((13, 17, 19), **where)
    tree.camera(19, **where)
    tree.config.frame_step = 3
    tree.split("test", [("bonn", "000001", 19)])
    sample = open_split(tree.config, "test")[0]
    assert sample.exists.tolist() == [True, True, False]
    np.testing.assert_array_equal(sample.images[0], tree.kept(13, city="bonn", sequence="000001"))


def test_rule_needs_masks_of_the_frames_in_use(snippet):
    for number in (2, 4, 6, 8):
        snippet.array("mask_sequence", number, np.zeros(snippet.size, np.uint8))
    snippet.config.frame_step = 2
    # The neighbours -2 of 2 and 12 of 8 do not exist, so they need no mask; 10 exists and has none.
    assert sorted(by_rule(snippet.config)) == [f"ulm ulm_{SEQUENCE}_{number:06d}" for number in (2, 8)]
    snippet.array("mask_sequence", 10, np.zeros(snippet.size, np.uint8))
    assert sorted(by_rule(snippet.config)) == [f"ulm ulm_{SEQUENCE}_{number:06d}" for number in (2, 6, 8)]


def test_camera_of_nearest_annotated_frame(tree):
    tree.frames(range(5)), tree.frames(range(5), sequence="000065")
    far = {"intrinsic": CAMERA["intrinsic"] | {"fx": 2000.0}}
    tree.camera(19, far, kind="camera_trainvaltest/camera")
    tree.camera(7, kind="camera_trainvaltest/camera")
    tree.camera(2, far, kind="camera_trainvaltest/camera", sequence="000065")
    tree.split("train", [("ulm", SEQUENCE, 2), ("ulm", "000065", 2)])
    source = open_split(tree.config, "train")
    np.testing.assert_allclose([source[i].K[0, 0] * 8 for i in range(2)], [2262.52, 2000], rtol=1e-6)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"intrinsic": {"fx": 22', r"000009_camera.json has no intrinsic fx, fy, u0, v0"),
        ("[1, 2]", r"has no intrinsic"),
        (json.dumps({"intrinsic": {"fx": 1.0}}), r"has no intrinsic"),
        (json.dumps({"intrinsic": CAMERA["intrinsic"] | {"u0": float("nan")}}), r"000009_camera.json.*u0=nan.*must be finite"),
        (json.dumps({"intrinsic": CAMERA["intrinsic"] | {"fy": float("inf")}}), r"fy=inf.*must be finite"),
        (json.dumps({"intrinsic": CAMERA["intrinsic"] | {"fx": -1}}), r"fx=-1 .*must be positive"),
        (json.dumps({"intrinsic": CAMERA["intrinsic"] | {"u0": 3000}}), r"cx=3000.*outside the image of 2048 x 1024"),
    ],
)
def test_invalid_cameras_named(snippet, text, message):
    snippet.path("camera", 9).write_text(text)
    with pytest.raises(ConfigError, match=message):
        open_split(snippet.config, "train")


def test_cropped_frames_and_cameras_of_another_size_are_refused(snippet):
    half = {name: value / 2 for name, value in CAMERA["intrinsic"].items()}
    snippet.camera(9, {"intrinsic": half})
    with pytest.raises(ConfigError, match=r"000009_camera.json: .* likely those of a picture of about 1098 x 549"):
        open_split(snippet.config, "train")
    snippet.camera(9)
    for number in range(12):
        path = snippet.path("leftImg8bit_sequence", number)
        cv2.imwrite(str(path), cv2.imread(str(path))[:96])
    with pytest.raises(ConfigError, match=r"has 256 x 96 pixels, but the camera files are for 2048 x 1024: take whole frames"):
        open_split(snippet.config, "train")


def test_absent_cameras_frames_and_trees_named(snippet, tmp_path):
    snippet.split("train", [("ulm", SEQUENCE, 4), ("ulm", SEQUENCE, 40)])
    with pytest.raises(
        ConfigError, match=r"1 of 2 target images .*leftImg8bit_sequence/train/ulm/ulm_000064_000040_leftImg8bit.png"
    ):
        open_split(snippet.config, "train")
    snippet.split("train", [("ulm", SEQUENCE, 4)])
    snippet.path("camera", 9).unlink()
    with pytest.raises(ConfigError, match=r"no camera file .*camera/train/ulm/ulm_000064_\*_camera.json"):
        open_split(snippet.config, "train")
    empty = CityscapesTree(tmp_path / "empty")
    empty.root.mkdir()
    with pytest.raises(ConfigError, match=r"no frames for the train split .*prepare_cityscapes"):
        open_split(empty.config, "train")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("../ulm ../ulm_000064_000004", r"'../ulm' is not a folder of the data set"),
        ("u-l-m u-l-m_000064_000004", r"'u-l-m' is not a city"),
    ],
)
def test_hostile_lists_raise(snippet, line, message):
    snippet.split("train", [])
    (snippet.root / "splits/train_files.txt").write_text(f"{line}\n")
    with pytest.raises(ConfigError, match=message):
        open_split(snippet.config, "train")


def test_images_of_other_size_unreadable(snippet, caplog):
    cv2.imwrite(str(snippet.path("leftImg8bit_sequence", 4)), np.zeros((30, 50, 3), np.uint8))
    data = snippet.path("leftImg8bit_sequence", 6).read_bytes()
    snippet.path("leftImg8bit_sequence", 6).write_bytes(data[: len(data) // 2])
    snippet.split("train", [("ulm", SEQUENCE, number) for number in range(2, 10)])
    source = open_split(snippet.config, "train")
    assert [source.name(i)[-1] for i in range(len(source))] == ["2", "3", "5", "7", "8", "9"]
    assert "2 unreadable frames are left out" in caplog.text and "000004_leftImg8bit.png" in caplog.text
    snippet.config.max_unreadable = 1
    with pytest.raises(ConfigError, match=r"2 frames cannot be decoded, more than --config.data.max_unreadable=1"):
        open_split(snippet.config, "train")


def test_masks_and_priors_cut_like_images(snippet):
    rng = np.random.default_rng(0)
    masks = {number: rng.integers(0, 2, snippet.size, dtype=np.uint8) * 7 for number in (2, 4, 6)}
    priors = {number: rng.integers(0, 2**16, snippet.size, dtype=np.uint16) for number in masks}
    for number in masks:
        snippet.array("mask_sequence", number, masks[number])
        snippet.array("prior_sequence", number, priors[number])
    snippet.split("train", [("ulm", SEQUENCE, 4)])
    snippet.config.priors = "files"
    sample = open_split(snippet.config, "train")[0]
    for place, number in enumerate((2, 4, 6)):
        np.testing.assert_array_equal(sample.masks[place], masks[number][:96] > 0)
    np.testing.assert_array_equal(sample.prior, priors[4][:96])


def test_dynamicdepth_masks_of_kept_rows(snippet):
    rng = np.random.default_rng(0)
    masks = {name: rng.random((24, 64)) < 0.5 for name in ("4-1", "4", "4+1")}
    (snippet.root / "train_mask").mkdir()
    for name, mask in masks.items():
        np.save(snippet.root / f"train_mask/ulm_{SEQUENCE}_{name}.npy", mask)
    snippet.split("train", [("ulm", SEQUENCE, 4)])
    found = open_split(snippet.config, "train")[0].masks
    for place, name in enumerate(masks):
        np.testing.assert_array_equal(found[place], np.kron(masks[name], np.ones((4, 4), bool)))


def test_rule_skips_triplets_without_masks(snippet, caplog):
    for number in (2, 3, 4, 6):
        snippet.array("mask_sequence", number, np.zeros(snippet.size, np.uint8))
    assert list(by_rule(snippet.config)) == [f"ulm ulm_{SEQUENCE}_000004"]
    assert "7 of 8 triplets are left out: a frame has no object mask" in caplog.text
    snippet.config.masks = "none"
    assert len(by_rule(snippet.config)) == 8


def test_depth_from_disparity_of_kept_rows(snippet):
    values = np.random.default_rng(0).integers(0, 2**15, snippet.size).astype(np.uint16)
    values[0, :3] = 0, 1, 257  # none, zero disparity, one pixel
    snippet.array("disparity", 5, values)
    snippet.split("train", [("ulm", SEQUENCE, 5), ("ulm", SEQUENCE, 6)])
    source = open_split(snippet.config, "train")
    truth = source.ground_truth(0, "annotated")
    focal_baseline = 2262.52 * 0.209313
    assert truth.depth.shape == (96, 256) and truth.dynamic is None
    np.testing.assert_allclose(truth.depth[0, :3], [0, 0, focal_baseline], rtol=1e-6)
    disparity = (values[1:96].astype(float) - 1) / 256
    np.testing.assert_allclose(truth.depth[1:], np.where(disparity > 0, focal_baseline / disparity, 0), rtol=1e-5)
    assert source.ground_truth(1, "annotated") is None
    for baseline in (float("nan"), 0.0, float("inf")):
        snippet.camera(9, {**CAMERA, "extrinsic": {"baseline": baseline}})
        with pytest.raises(ConfigError, match=r"camera.json: the baseline .* must be positive"):
            open_split(snippet.config, "train").ground_truth(0, "annotated")
    snippet.camera(9)
    snippet.path("disparity", 5).write_bytes(b"no image")
    with pytest.raises(ConfigError, match=r"000005_disparity.png is not a 16-bit grey PNG"):
        open_split(snippet.config, "train").ground_truth(0, "annotated")


@pytest.fixture
def tree_with_test_split(tree):
    for city, number in (("mainz", 30), ("bonn", 19)):
        tree.frames((number - 2, number), city=city, sequence="000001", home="test")
        tree.camera(number, city=city, sequence="000001", home="test")
    return tree


def test_rule_test_set_is_annotated_frames(tree_with_test_split):
    names = ["bonn bonn_000001_000019", "mainz mainz_000001_000030"]
    source = open_split(tree_with_test_split.config, "test")
    assert [source.name(i) for i in range(len(source))] == names
    np.testing.assert_array_equal(source[0].images[0], tree_with_test_split.kept(17, city="bonn", sequence="000001"))
    tree_with_test_split.frames((30,), kind="leftImg8bit", city="mainz", sequence="000001", home="test")
    source = open_split(tree_with_test_split.config, "test")
    assert [source.name(i) for i in range(len(source))] == names[1:]


def test_published_depth_needs_list_order(tree_with_test_split, caplog):
    (tree_with_test_split.root / "gt_depths").mkdir()
    depth = np.full((64, 128), 7.0)
    depth[0, :2] = np.nan, np.inf
    np.save(tree_with_test_split.root / "gt_depths/000_depth.npy", depth)
    assert open_split(tree_with_test_split.config, "test").ground_truth(0, "annotated") is None
    assert "gt_depths is not used" in caplog.text and "--config.data.split_dir" in caplog.text
    tree_with_test_split.split("test", [("mainz", "000001", 30)])
    mask = np.zeros(tree_with_test_split.size, np.uint8)
    mask[:64] = 1
    tree_with_test_split.array("mask_sequence", 30, mask, city="mainz", sequence="000001", home="test")
    truth = open_split(tree_with_test_split.config, "test").ground_truth(0, "annotated")
    assert truth.depth.shape == (48, 128) and not truth.depth[0, :2].any() and (truth.depth[1:] == 7).all()
    np.testing.assert_array_equal(truth.dynamic, np.arange(48)[:, None].repeat(128, 1) < 32)


@pytest.mark.parametrize("content", ["pickled", "three dimensions", "cut off"])
def test_invalid_depth_file_named_without_unpickling(tree_with_test_split, content):
    (tree_with_test_split.root / "gt_depths").mkdir()
    path = tree_with_test_split.root / "gt_depths/000_depth.npy"
    if content == "pickled":
        np.save(path, np.array([{}], object), allow_pickle=True)
    else:
        np.save(path, np.zeros((4, 4, 4) if content == "three dimensions" else (64, 64)))
    if content == "cut off":
        path.write_bytes(path.read_bytes()[:200])
    tree_with_test_split.split("test", [("mainz", "000001", 30)])
    with pytest.raises(ConfigError, match=r"000_depth.npy (is damaged or holds objects|holds float64 .* shape \[4, 4, 4\])"):
        open_split(tree_with_test_split.config, "test").ground_truth(0, "annotated")


def test_layout_from_files_or_config(snippet):
    (snippet.root / "preprocessed/ulm").mkdir(parents=True)
    triplet = np.concatenate([snippet.kept(number) for number in (1, 3, 5)], axis=1)
    cv2.imwrite(str(snippet.root / f"preprocessed/ulm/ulm_{SEQUENCE}_000003.jpg"), triplet[..., ::-1])
    (snippet.root / f"preprocessed/ulm/ulm_{SEQUENCE}_000003_cam.txt").write_text("1131.26,0,548.24,0,1132.65,256.3,0,0,1")
    assert list(by_rule(snippet.config)) == [f"ulm ulm_{SEQUENCE}_000003"]
    snippet.config.layout = "sequence"
    assert len(by_rule(snippet.config)) == 8


def test_rule_val_share_and_adjacent_snippets():
    entries = full_triplets("strasbourg", {"000000": {*range(29000, 29030), *range(29030, 29060)}, "000001": {0, 2, 3, 4, 7}})
    assert [number for _, _, number in entries] == [*range(29002, 29058), 2]
    many = [("ulm", f"{sequence:06d}", number) for sequence in range(100) for number in range(26)]
    train, val = rules.draw(many, "train"), rules.draw(many, "val")
    assert sorted(train + val) == many and 0.07 < len(val) / len(many) < 0.13


def test_incomplete_training_set_warns(caplog):
    rules.draw([(city, "000000", 2) for city in sorted(rules.CITIES)], "train")
    assert "give 18 triplets, but the complete data set would give 77352" in caplog.text


def test_lists_of_published_length_checked(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    path = tmp_path / "test_files.txt"
    path.write_text("".join(f"berlin berlin_000000_{number:06d}\n" for number in range(1525)))
    entries = rules.read_list(path)
    assert "has as many lines as the test list but other frames" in caplog.text
    assert rules.digest(entries) == rules.digest(entries[::-1]) != rules.digest(entries[::-1], ordered=True)
