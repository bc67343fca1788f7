"""TFDS stores: packing, reading, interruption and damage."""

import dataclasses
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import jax
import numpy as np
import pytest
import tensorflow_datasets as tfds
from cityscapes_tree import CityscapesTree

from dd_jax.config import Config, ConfigError, DataConfig
from dd_jax.config.rules import validate
from dd_jax.data.loader import eval_batches, open_split, train_batches
from dd_jax.prepare import tfds_store
from dd_jax.prepare.tfds_store import build

SCRIPT = Path(__file__).parents[3] / "scripts/prepare_tfds.py"
SPLITS = ("train", "val", "test")


def of_store(config, out, **changes):
    return dataclasses.replace(config, source="tfds", root=str(out), **changes)


def assert_same_samples(ours, theirs, exact_K=True):
    assert [ours.name(i) for i in range(len(ours))] == [theirs.name(i) for i in range(len(theirs))]
    for index in range(len(ours)):
        for field in dataclasses.fields(ours[index]):
            one, other = getattr(ours[index], field.name), getattr(theirs[index], field.name)
            if field.name == "K" and not exact_K:
                np.testing.assert_allclose(one, other, rtol=1e-6)
            else:
                np.testing.assert_array_equal(one, other, err_msg=f"{field.name} of {ours.name(index)}")
        for kind in ("velodyne", "annotated"):
            one, other = ours.ground_truth(index, kind), theirs.ground_truth(index, kind)
            assert (one is None) == (other is None)
            for field in dataclasses.fields(one) if one is not None else ():
                np.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name))


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("intrinsics", ["calib", "nominal"])
def test_samples_equal_folder(drives, tmp_path, full, intrinsics):
    config = dataclasses.replace(drives.config, intrinsics=intrinsics)
    build(config, tmp_path / "store", full=full, per_shard=4)
    for split in SPLITS:
        ours, theirs = open_split(of_store(config, tmp_path / "store"), split), open_split(config, split)
        assert_same_samples(ours, theirs)
    truths = [theirs.ground_truth(i, kind) for i in range(len(theirs)) for kind in ("velodyne", "annotated")]
    assert all(truth is not None for truth in truths), "the comparison saw ground truth"
    cached = (tmp_path / "store/kitti_triplets/.cache").exists()
    assert cached == full, "frames at training size need no cache"


def test_training_stream_equals_folder(drives, tmp_path):
    build(drives.config, tmp_path / "store")
    streams = []
    for config in (drives.config, of_store(drives.config, tmp_path / "store")):
        experiment = Config(data=config)
        streams.append(list(itertools.islice(train_batches(open_split(config, "train"), experiment), 6)))
    for one, other in zip(*streams):
        jax.tree.map(np.testing.assert_array_equal, one, other)
    ours = open_split(of_store(drives.config, tmp_path / "store"), "val")
    for (_, one), (_, other) in zip(eval_batches(ours, [1, 0], 2), eval_batches(open_split(drives.config, "val"), [1, 0], 2)):
        jax.tree.map(np.testing.assert_array_equal, one, other)


def test_full_store_keeps_bytes_and_any_size(drives, tmp_path):
    folder = build(drives.config, tmp_path / "store", full=True)
    records = tfds.builder_from_directory(folder / "frames/1.0.0").as_data_source(
        "frames", decoders={"image": tfds.decode.SkipDecoding()}
    )
    assert len(records) == 9, "each frame once"
    for record in records:
        assert record["image"] == (drives.root / record["name"].decode()).read_bytes()
    for height, width in ((32, 64), (96, 128)):
        changed = dataclasses.replace(drives.config, height=height, width=width, resize="lanczos")
        ours, theirs = open_split(of_store(changed, tmp_path / "store"), "train"), open_split(changed, "train")
        assert_same_samples(ours, theirs, exact_K=False)


def test_masks_and_priors_optional(drives, tmp_path):
    build(drives.config, tmp_path / "store")
    config = dataclasses.replace(drives.config, masks="none", priors="none")
    assert_same_samples(open_split(of_store(config, tmp_path / "store"), "train"), open_split(config, "train"))


def test_tfds_reads_store_without_tensorflow(drives, tmp_path):
    build(drives.config, tmp_path / "store", name="synthetic_triplets", per_shard=2)
    program = """
import sys
import tensorflow_datasets as tfds
import dd_jax.data.tfds.builders
store = sys.argv[1]
triplets = tfds.builder("synthetic_triplets/triplets", data_dir=store)
frames = tfds.builder("synthetic_triplets/frames", data_dir=store).as_data_source("frames")
assert triplets.info.splits["train"].shard_lengths == [2, 2, 1]
sample = triplets.as_data_source("train")[2]
shapes = [frames[place]["image"].shape for place in sample["frames"]]
depth = tfds.builder("synthetic_triplets/depth", data_dir=store).as_data_source("train")[2]
print(sample["name"].decode(), shapes, depth["annotated_depth"].shape, "tensorflow" in sys.modules)
"""
    command = [sys.executable, "-c", program, str(tmp_path / "store")]
    shown = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(SCRIPT.parents[1])}, capture_output=True, text=True)
    assert shown.stdout.split("\n")[-2] == f"{drives.folder} 3 l {[(64, 96, 3)] * 3} (32, 64) False", shown.stderr


def test_tfds_preparation_makes_same_records(drives, tmp_path):
    folder = build(drives.config, tmp_path / "store")
    content = tfds_store.collect(drives.config, SPLITS, False, SPLITS)
    with tfds_store.ThreadPoolExecutor(1) as pool:
        shards = tfds_store._shards(content, "triplets", 512, pool, tfds_store.Flaws())
        builder = tfds_store.BUILDERS["kitti_triplets"](config="triplets", data_dir=tmp_path / "other", shards=shards)
        builder.download_and_prepare()
    ours = tfds.builder_from_directory(folder / "triplets/1.0.0").as_data_source("train")
    for one, other in zip(ours, builder.as_data_source("train"), strict=True):
        jax.tree.map(np.testing.assert_array_equal, one, other)
    with pytest.raises(ConfigError, match=r"kitti_triplets is made from a folder of drives: run scripts/prepare_tfds.py"):
        tfds_store.BUILDERS["kitti_triplets"](config="triplets", data_dir=tmp_path / "third").download_and_prepare()


@pytest.mark.parametrize("layout", ["sequence", "triplets"])
@pytest.mark.parametrize("full", [False, True])
def test_cityscapes_stores(tmp_path, layout, full):
    tree = CityscapesTree(tmp_path / "cityscapes")
    tree.frames(range(8)), tree.camera(5)
    for number in range(8):
        tree.array("mask_sequence", number, np.full(tree.size, number % 3, np.uint8))
    tree.array("disparity", 4, np.random.default_rng(0).integers(0, 2**15, tree.size).astype(np.uint16))
    tree.split("train", [("ulm", "000064", number) for number in (4, 3)])
    tree.split("val", [("ulm", "000064", 5)])
    if layout == "triplets":
        (tree.root / "preprocessed/ulm").mkdir(parents=True)
        for number in range(2, 6):
            triplet = np.concatenate([tree.kept(number + step) for step in (-2, 0, 2)], axis=1)
            path = tree.root / f"preprocessed/ulm/ulm_000064_{number:06d}"
            cv2.imwrite(f"{path}.jpg", triplet[..., ::-1])
            Path(f"{path}_cam.txt").write_text("1131.26,0,548.24,0,1132.65,256.3,0,0,1")
    config = dataclasses.replace(tree.config, height=64, width=160, layout=layout)
    folder = build(config, tmp_path / "store", splits=("train", "val"), full=full)
    assert folder.name == "cityscapes_triplets"
    for split in ("train", "val"):
        assert_same_samples(open_split(of_store(config, tmp_path / "store"), split), open_split(config, split))
    with pytest.raises(ConfigError, match=r"cityscapes_triplets has no test split, only train, val: .*--splits"):
        open_split(of_store(config, tmp_path / "store"), "test")


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_interrupted_build_resumes_identically(drives, tmp_path, monkeypatch):
    whole = build(drives.config, tmp_path / "whole", per_shard=2)
    made, frame = [], tfds_store._frame

    def interrupted(content, place, flaws):
        if place == 5:
            raise KeyboardInterrupt
        return frame(content, place, flaws)

    def spy(content, place, flaws):
        made.append(place)
        return frame(content, place, flaws)

    monkeypatch.setattr(tfds_store, "_frame", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build(drives.config, tmp_path / "store", per_shard=2)
    with pytest.raises(ConfigError, match="holds an unfinished store"):
        open_split(of_store(drives.config, tmp_path / "store"), "train")
    monkeypatch.setattr(tfds_store, "_frame", spy)
    assert contents(build(drives.config, tmp_path / "store", per_shard=2)) == contents(whole)
    assert sorted(made) == [4, 5, 6, 7, 8]
    assert not (tmp_path / "store/kitti_triplets.unfinished").exists()
    made.clear()
    build(drives.config, tmp_path / "store", per_shard=2)
    assert made == [], "a finished store is not made again"


def test_killed_script_resumes_identically(kitti_tree, tmp_path):
    tree = kitti_tree(frames=36, height=192, width=640)
    (tmp_path / "config.py").write_text(
        "from dd_jax.config import Config\n\ndef get_config():\n    config = Config()\n"
        f"    config.data.root, config.data.threads = {str(tree.root)!r}, 1\n    return config\n"
    )
    out = tmp_path / "killed"
    command = [sys.executable, str(SCRIPT), f"--config={tmp_path / 'config.py'}", f"--out={out}", "--per_shard=3"]
    environment = os.environ | {"PYTHONPATH": str(SCRIPT.parents[1])}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while len(list(out.glob("*/frames/1.0.0/*-of-*"))) < 3 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (out / "kitti_triplets.unfinished").is_dir() and list(out.glob("*/frames/1.0.0/*-of-*")), "killed midway"
    again = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert again.returncode == 0 and again.stdout.startswith(f"{out / 'kitti_triplets'}: "), again.stderr
    config = DataConfig(root=str(tree.root), threads=1)
    assert contents(out / "kitti_triplets") == contents(build(config, tmp_path / "whole", per_shard=3))


def test_other_files_or_settings_raise(drives, tmp_path, monkeypatch):
    build(drives.config, tmp_path / "store")
    changed = dataclasses.replace(drives.config, width=128)
    with pytest.raises(ConfigError, match=r"store/kitti_triplets was made from other files or with other settings.*--out"):
        build(changed, tmp_path / "store")
    with monkeypatch.context() as patch:
        patch.setattr(tfds_store, "_sample", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            build(drives.config, tmp_path / "begun")
    drives.add_image(3)
    with pytest.raises(ConfigError, match=r"kitti_triplets.unfinished was begun from other files or with other settings.*--out"):
        build(drives.config, tmp_path / "begun")


def test_other_split_raises(drives, tmp_path):
    build(drives.config, tmp_path / "store")
    with pytest.raises(ConfigError, match=r"holds the split '' and not 'eigen_full': set --config\.data\.split=, or build"):
        open_split(of_store(drives.config, tmp_path / "store", split="eigen_full"), "train")


def test_store_of_a_frame_step_equals_folder(drives, tmp_path):
    config = dataclasses.replace(drives.config, frame_step=3)
    build(config, tmp_path / "store")
    for split in SPLITS:
        assert_same_samples(open_split(of_store(config, tmp_path / "store"), split), open_split(config, split))
    for step in (1, 2):
        with pytest.raises(
            ConfigError,
            match=rf"holds samples of --config.data.frame_step=3, not {step}: set it to 3, or build another store with "
            rf"scripts/prepare_tfds.py --config.data.frame_step={step} --out=DIR",
        ):
            open_split(of_store(drives.config, tmp_path / "store", frame_step=step), "train")
    with pytest.raises(ConfigError, match=r"was made from other files or with other settings"):
        build(drives.config, tmp_path / "store")


def test_store_without_noted_frame_step_has_the_default(drives, tmp_path):
    """As made before the field existed: it is read, and the same command accepts it."""
    note = build(drives.config, tmp_path / "store") / "store.json"
    content = json.loads(note.read_text())
    assert content["settings"].pop("frame_step") == 1
    note.write_text(json.dumps(content))
    assert_same_samples(open_split(of_store(drives.config, tmp_path / "store"), "val"), open_split(drives.config, "val"))
    build(drives.config, tmp_path / "store")
    with pytest.raises(ConfigError, match=r"holds samples of --config.data.frame_step=1, not 2"):
        open_split(of_store(drives.config, tmp_path / "store", frame_step=2), "train")


def test_changed_ground_truth_raises(drives, tmp_path):
    build(drives.config, tmp_path / "store")
    annotated = drives.root / drives.folder / "proj_depth/groundtruth/image_02/0000000007.png"
    scan = drives.root / drives.folder / "velodyne_points/data/0000000006.bin"
    mask = drives.root / drives.folder / "mask_02/data/0000000006.png"
    for path in (annotated, scan, mask):
        content, before = path.read_bytes(), path.stat()
        path.unlink()
        for change in (None, content + bytes(16)):
            if change is not None:
                path.write_bytes(change)
            with pytest.raises(ConfigError, match=r"store/kitti_triplets was made from other files"):
                build(drives.config, tmp_path / "store")
        path.write_bytes(content)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        build(drives.config, tmp_path / "store")


def test_changed_cityscapes_ground_truth_raises(tmp_path):
    tree = CityscapesTree(tmp_path)
    tree.frames([17, 19], home="test")
    tree.camera(19, home="test")
    tree.split("test", [("ulm", "000064", 19)])

    def fingerprint():
        return tfds_store.collect(tree.config, ["test"], full=False, depth=["test"]).fingerprint(512)

    assert (before := fingerprint()) == fingerprint()
    tree.array("disparity", 19, np.full(tree.size, 5000, np.uint16), home="test")
    assert fingerprint() != before


def test_changed_mask_format_raises(drives):
    def fingerprint():
        config = dataclasses.replace(drives.config, mask_format="coco_panoptic")
        return tfds_store.collect(config, SPLITS, full=False, depth=SPLITS).fingerprint(512)

    meaning = drives.path("mask", 0).with_name("panoptic.json")
    found = {fingerprint()}
    for text in ("{}", "{ }"):
        meaning.write_text(text)
        found.add(fingerprint())
    assert len(found) == 3


def test_unreadable_frames_stay_unreadable(drives, tmp_path, caplog):
    path = drives.path("image", 3)
    path.write_bytes(path.read_bytes()[:-40])
    for full in (False, True):
        build(drives.config, tmp_path / f"store{full}", full=full)
        ours, theirs = open_split(of_store(drives.config, tmp_path / f"store{full}"), "train"), open_split(drives.config, "train")
        assert len(ours) == 4, "its own sample is dropped, and it is missing in that of its neighbour"
        assert_same_samples(ours, theirs)
    drives.config.max_unreadable = 0
    with pytest.raises(
        ConfigError, match=r"1 frames cannot be decoded, more than --config.data.max_unreadable=0: .*0000000003.jpg"
    ):
        build(drives.config, tmp_path / "other")


@pytest.mark.parametrize(("config_name", "length"), [("frames", 0), ("frames", -1), ("triplets", 1000), ("depth", 1000)])
def test_truncated_shard_named(drives, tmp_path, config_name, length):
    folder = build(drives.config, tmp_path / "store", per_shard=2)
    shard = sorted((folder / config_name / "1.0.0").glob("*-of-*"))[1]
    size = shard.stat().st_size
    with shard.open("r+b") as file:
        file.truncate(length % size)
    with pytest.raises(ConfigError, match=rf"the shard {shard} has {length % size} instead of {size} bytes: copy"):
        open_split(of_store(drives.config, tmp_path / "store"), "train")
    shard.unlink()
    with pytest.raises(ConfigError, match=rf"the shard {shard} has 0 instead"):
        open_split(of_store(drives.config, tmp_path / "store"), "train")


@pytest.mark.parametrize("config_name", ["frames", "triplets", "depth"])
@pytest.mark.parametrize("noise", [False, True])
def test_damaged_shard_raises(drives, tmp_path, config_name, noise):
    folder, start = build(drives.config, tmp_path / "store"), 100
    for shard in (folder / config_name / "1.0.0").glob("*-of-*"):
        data = shard.read_bytes()
        wrong = np.random.default_rng(0).bytes(len(data) - start) if noise else bytes(len(data) - start)
        shard.write_bytes(data[:start] + wrong)
    with pytest.raises(ConfigError, match=r"the store .*kitti_triplets is damaged \(.+\): copy it again, or build it again"):
        source = open_split(of_store(drives.config, tmp_path / "store"), "train")
        _ = source[0], source.ground_truth(0, "annotated")


def test_incompatible_settings_raise(drives, tmp_path):
    plain = dataclasses.replace(drives.config, masks="none", priors="none", resize="lanczos")
    build(plain, tmp_path / "store", depth=("test",))
    for changes, message in (
        ({"height": 96}, r"holds frames of 64x96 by lanczos: set --config.data.height=64.*--config.data.resize=lanczos"),
        ({"resize": "area"}, r"holds frames of 64x96 by lanczos"),
        ({"masks": "files"}, r"was made without masks: set --config.data.masks=none"),
        ({"priors": "files"}, r"was made without priors: set --config.data.priors=none"),
        ({"intrinsics": "nominal"}, r"holds the calib cameras: set --config.data.intrinsics=calib"),
    ):
        with pytest.raises(ConfigError, match=message):
            open_split(of_store(plain, tmp_path / "store", **changes), "train")
    with pytest.raises(ConfigError, match=r"no ground truth of kind 'file': set --config.eval.ground_truth to one of velodyne"):
        open_split(of_store(plain, tmp_path / "store"), "test").ground_truth(0, "file")
    assert open_split(of_store(plain, tmp_path / "store"), "val").ground_truth(0, "annotated") is None
    assert open_split(of_store(plain, tmp_path / "store/kitti_triplets"), "test").ground_truth(0, "annotated") is not None


def test_root_without_store_raises(drives, tmp_path):
    with pytest.raises(ConfigError, match=r"holds no store: name a folder with one of kitti_triplets, .*scripts/prepare_tfds.py"):
        open_split(of_store(drives.config, tmp_path / "nowhere"), "train")
    build(drives.config, tmp_path / "store"), build(drives.config, tmp_path / "store", name="synthetic_triplets")
    with pytest.raises(ConfigError, match="holds more than one store"):
        open_split(of_store(drives.config, tmp_path / "store"), "train")
    note = tmp_path / "store/kitti_triplets/store.json"
    for text in (note.read_text()[:50], json.dumps({"shards": {}}), "[]"):
        note.write_text(text)
        with pytest.raises(ConfigError, match=r"store.json cannot be read \(.*\): build the store again"):
            open_split(of_store(drives.config, tmp_path / "store/kitti_triplets"), "train")


def test_unpackable_arguments_raise(drives, tmp_path):
    out = tmp_path / "store"
    for changes, options, message in (
        ({"source": "folder"}, {}, r"--config.data.source='folder' cannot be packed, only 'kitti' and 'cityscapes'"),
        (
            {},
            {"name": "cityscapes_triplets"},
            r"--name='cityscapes_triplets' does not match .*: use kitti_triplets or synthetic_triplets",
        ),
        ({}, {"splits": ("train", "dev")}, r"--splits and --depth must name splits \(train, val, test\), not dev"),
        ({}, {"splits": ()}, r"not nothing"),
        ({"root": str(tmp_path / "absent")}, {}, r"is not a folder"),
    ):
        with pytest.raises(ConfigError, match=message):
            build(dataclasses.replace(drives.config, **changes), out, **options)
    drives.path("prior", 5, suffix="png").unlink()
    with pytest.raises(ConfigError, match=r"1 of 5 training frames .* no prior depth"):
        build(drives.config, out)
    assert not out.exists()


def test_damaged_mask_and_write_error_raise(drives, tmp_path):
    path = drives.path("moving", 2, suffix="png")
    good = path.read_bytes()
    path.write_bytes(good[:-40])
    with pytest.raises(
        ConfigError, match=r"the object mask .*moving_02/data/0000000002.png cannot be decoded: write it again, or delete it"
    ):
        build(drives.config, tmp_path / "store")
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"the store .*file/kitti_triplets cannot be written \(.*\): choose another --out"):
        build(drives.config, tmp_path / "file")
    path.write_bytes(good)
    blocked = tmp_path / "blocked/kitti_triplets.unfinished/frames/1.0.0/kitti_triplets-frames.array_record-00000-of-00001.new"
    blocked.mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"kitti_triplets cannot be written"):
        build(drives.config, tmp_path / "blocked")


def test_tfds_config():
    config = Config(data=DataConfig(source="tfds", root="store"))
    validate(config)
    config.data.layout = "movie"
    with pytest.raises(ConfigError, match=r"--config.data.layout='movie' is not one of"):
        validate(config)
