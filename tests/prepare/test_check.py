import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from odd_pictures import bomb

from dd_jax.config import Config, DataConfig
from dd_jax.prepare.check import check
from dd_jax.prepare.tfds_store import build

ROOT = Path(__file__).parents[2]
CAMERA = {"width": 64, "height": 32, "fx": 50.0, "fy": 50.0, "cx": 31.5, "cy": 15.5}


class OwnSet:
    """Frames that slide over an image, masks and priors, in two clips."""

    def __init__(self, root):
        self.root = root
        noise = np.random.default_rng(0).integers(0, 256, (20, 60, 3), dtype=np.uint8)
        wide = cv2.resize(noise, (240, 32), interpolation=cv2.INTER_CUBIC)
        for clip in ("a", "b"):
            for frame in range(8):
                self.write(f"frames/{clip}/{frame}.png", wide[:, 2 * frame : 2 * frame + 64])
                mask = np.zeros((32, 64), np.uint8)
                mask[10:20, frame : frame + 16] = 255
                self.write(f"masks/{clip}/{frame}.png", mask)
                self.write(f"priors/{clip}/{frame}.png", np.arange(32 * 64, dtype=np.uint16).reshape(32, 64) + 1)
            self.camera(clip)
        data = DataConfig(source="folder", root=str(root), height=32, width=64, batch_size=2, priors="files")
        self.config = Config(data=data)
        self.config.loss.normal_prior = "file"

    def write(self, name, picture):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(path), picture)

    def camera(self, clip, **changes):
        (self.root / f"frames/{clip}/intrinsics.json").write_text(json.dumps(CAMERA | changes))

    def cut_off(self, name):
        path = self.root / name
        path.write_bytes(path.read_bytes()[:-30])


@pytest.fixture
def own(tmp_path):
    return OwnSet(tmp_path / "own")


def problem(report, words):
    found = [line for line in report.problems if words in line]
    assert len(found) == 1, report.problems
    return found[0]


def test_good_data_set(own):
    report = check(own.config)
    assert report.good and report.problems == [] and report.verdict == "the data set is good"
    assert report.statistics["samples"] == {"train": 6, "val": 2, "test": 2}
    assert report.statistics["sizes"] == {"64x32": report.statistics["frames"]}
    pixels = report.statistics["object pixels"]
    assert pixels["mean"] == pytest.approx(160 / 2048) and pixels["frames without"] == 0
    assert report.statistics["fields of view"]["train"] == [pytest.approx(65.2, abs=0.1)]
    assert report.triplet.shape == (4 * 32 + 12, 2 * 64 + 4, 3)  # six tiles, mask, prior
    assert any("ground truth" in note and "0 of 2" in note for note in report.notes)
    assert not any("nothing moves" in note for note in report.notes)


def test_all_problems_reported_at_once(own):
    own.cut_off("frames/a/2.png")
    own.cut_off("masks/a/3.png")
    own.write("masks/b/1.png", np.zeros((64, 32), np.uint8))
    own.write("priors/a/1.png", np.full((32, 64), 7, np.uint16))
    (own.root / "priors/b/2.png").unlink()
    (own.root / "masks/b/4.png").unlink()
    own.write("frames/b/3.png", np.zeros((48, 64, 3), np.uint8))
    own.config.optim.steps = 0
    report = check(own.config)
    assert not report.good and "problems" in report.verdict
    assert "--config.optim.steps=0" in problem(report, "optim.steps")
    for words, name in (
        ("image unreadable", "frames/a/2.png"),
        ("mask unreadable", "masks/a/3.png"),
        ("mask of other proportions", "masks/b/1.png"),
        ("prior is constant", "priors/a/1.png"),
        ("no prior depth", "frames/b/2.png"),
        ("images of several sizes", "64x48 (1)"),
    ):
        assert name in problem(report, words), words
    assert report.statistics["frames without mask file"] == 1
    assert any("max_unreadable=10" in note for note in report.notes)


def test_pictures_that_decode_but_show_nothing_are_named(own):
    own.write("frames/a/2.png", np.zeros((32, 64, 3), np.uint8))
    own.write("frames/a/3.png", np.full((32, 64, 3), 90, np.uint8))
    picture = cv2.imread(str(own.root / "frames/b/3.png"))
    own.write("frames/b/3.png", (picture.astype(np.uint16) * 257) >> 4)
    own.write("frames/b/4.png", picture // 8)
    own.write("frames/b/6.png", cv2.imread(str(own.root / "frames/b/5.png")))
    report = check(own.config)
    for words, name in (
        ("image is black", "frames/a/2.png"),
        ("image is of a single colour", "frames/a/3.png"),
        ("image is dark, because the values use 12 of 16 bits (multiply them by 16)", "frames/b/3.png"),
        ("image is dark, without a value of 64 of 255", "frames/b/4.png"),
    ):
        assert problem(report, words).endswith(f": 1, {name}")
    assert any("equal another one of their folder" in note and "1, frames/b/" in note for note in report.notes)


def test_frozen_picture_is_a_problem(own):
    for clip in ("a", "b"):
        for frame in range(1, 8):
            own.write(f"frames/{clip}/{frame}.png", cv2.imread(str(own.root / f"frames/{clip}/0.png")))
    assert "14, frames/" in problem(check(own.config), "nothing moves between them")


def test_damage_inside_a_jpeg_is_named(own):
    noise = np.random.default_rng(1).integers(0, 256, (32, 64, 3), dtype=np.uint8)
    data = bytearray(cv2.imencode(".jpg", noise)[1].tobytes())
    del data[len(data) // 2 : len(data) // 2 + 300]
    (own.root / "frames/b/8.jpg").write_bytes(data)
    found = problem(check(own.config), "image damaged inside (Corrupt JPEG data: ")
    assert found.endswith("which training does not notice: 1, frames/b/8.jpg")


def test_damaged_cameras_do_not_stop_check(own):
    own.camera("a", fx=-1.0)
    own.camera("b", cx=500.0)
    own.cut_off("frames/b/5.png")
    report = check(own.config)
    complaint = problem(report, "a/intrinsics.json")
    assert complaint.startswith("train, val, test: ") and "b/intrinsics.json" in complaint
    assert "frames/b/5.png" in problem(report, "image unreadable")  # no list named it
    assert report.statistics["frames"] == 16


def test_links_and_invalid_images_do_not_stop_check(own, tmp_path):
    (own.root / "frames/a/zz.jpg").symlink_to("/nowhere/x.jpg")
    (own.root / "frames/b/zz.jpg").symlink_to("zz.jpg")
    bomb(own.root / "frames/a/0.png")
    assert "frames/a/0.png" in problem(check(own.config), "image unreadable")
    (own.root / "frames/b/intrinsics.json").unlink()
    (own.root / "frames/b").rename(tmp_path / "far")
    (own.root / "frames/b").symlink_to(tmp_path / "far")
    own.cut_off("frames/b/5.png")
    report = check(own.config)
    assert "intrinsics.json does not exist" in problem(report, "intrinsics.json")
    assert "frames/b/5.png" in problem(report, "image unreadable") and report.statistics["frames"] == 16


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"fx": 400.0, "fy": 400.0}, "horizontal field of view of 9 degrees"),
        ({"fx": 3.3, "fy": 3.3}, "horizontal field of view of 168 degrees"),
        ({"cx": 60.0}, "principal point at 94% of the width"),
    ],
)
def test_implausible_cameras_are_problems(own, changes, words):
    own.camera("a", **changes)
    report = check(own.config, ["train"])
    assert "the camera of a 1 and 2 more samples" in problem(report, words)


def test_camera_of_another_size_is_a_problem(own):
    own.camera("a", cx=23.5, cy=11.5)
    sizes = (
        "at 38% of the width and 38% of the height of 64 x 32, so these intrinsics are likely those of a picture of about 48 x"
    )
    assert "frames/a/intrinsics.json" in problem(check(own.config), sizes)


def test_non_square_pixels_noted(own):
    own.camera("a", fy=80.0)
    report = check(own.config, ["train"])
    assert report.good and any("pixels 1.60 times as wide as high" in note for note in report.notes)


def test_implausible_masks_are_problems(own):
    for path in (own.root / "masks").rglob("*.png"):
        cv2.imwrite(str(path), np.full((32, 64), 7, np.uint8))
    assert "masks cover 100% of the images: check --config.data.mask_format" in problem(check(own.config), "cover")
    own.config.data.mask_format = "cityscapes"
    assert problem(check(own.config), "no mask has an object: check --config.data.mask_format")
    own.config.data.mask_format = "coco_panoptic"
    report = check(own.config)
    assert any("panoptic.json does not exist" in line for line in report.problems)
    assert problem(report, "no frame has a readable mask")
    for path in (own.root / "masks").rglob("*.png"):
        path.unlink()
    own.config.data.mask_format = "binary"
    assert "scripts/make_masks.py" in problem(check(own.config), "no frame has a readable mask")
    own.config.domd.enabled = False  # training does not use them
    report = check(own.config)
    assert not any("mask" in line for line in report.problems) and any("no frame has a readable mask" in n for n in report.notes)
    own.config.data.masks, own.config.domd.enabled = "none", False
    assert check(own.config).good


def test_kitti_checked_without_calibration(tmp_path, kitti_tree):
    tree = kitti_tree(frames=6)
    for frame in range(6):
        tree.add_mask(frame, values=np.eye(*tree.size, dtype=np.uint8))
    depth = np.full(tree.size, 2560, np.uint16)
    for frame in (1, 2):
        path = tree.root / tree.folder / f"proj_depth/groundtruth/image_02/{frame:010d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), depth)
    config = tree.experiment()
    config.eval.ground_truth = "annotated"
    report = check(config)
    assert report.good and report.statistics["ground truth"]["val"] == {"looked for": 6, "found": 2}
    assert any("train: 2 of 6 samples lack a neighbour" in note for note in report.notes)
    (tree.root / "2011_09_26/calib_cam_to_cam.txt").unlink()
    tree.path("image", 3).write_bytes(b"")
    report = check(config)
    assert "calib_cam_to_cam.txt does not exist" in problem(report, "calib_cam_to_cam")
    assert "0000000003.png" in problem(report, "image unreadable")
    tree.write_split("val", [f"{tree.folder} 99 l", f"{tree.folder} 1 l", f"{tree.folder} 1 l"])
    assert "val: 1 of 2 target images" in problem(check(config), "target images")


def test_samples_without_frame_step_neighbours_counted(kitti_tree):
    tree = kitti_tree(frames=8)
    tree.add_mask(2, values=np.eye(*tree.size, dtype=np.uint8))
    report = check(tree.experiment(frame_step=3))
    assert report.good
    assert (
        "train: 6 of 8 samples are left out of training: there is no frame --config.data.frame_step=3 before or after them, "
        "as at the ends of drives" in report.notes
    )
    assert "val: 3 of 8 samples have no frame 3 before them to match with" in report.notes
    assert "train: 8 of 8 samples are left out of training" in problem(check(tree.experiment(frame_step=4)), "frame_step")


def test_store_checked_like_folder(tmp_path, kitti_tree):
    tree = kitti_tree(frames=5, height=64, width=96)
    tree.add_mask(2, values=np.pad(np.full((20, 20), 255, np.uint8), [(10, 34), (10, 66)]))
    for split in ("train", "val", "test"):
        tree.write_split(split, [f"{tree.folder} {frame} l" for frame in (1, 2, 3)])
    config = Config(data=dataclasses.replace(tree.config, height=64, width=96, batch_size=2))
    build(config.data, tmp_path / "store")
    folder = check(config, progress=False)
    config.data.source, config.data.root = "tfds", str(tmp_path / "store")
    store = check(config, progress=False)
    assert store.problems == folder.problems == []
    assert store.statistics == folder.statistics
    assert store.triplet.shape == folder.triplet.shape

    shard = next((tmp_path / "store").glob("*/frames/1.0.0/*array_record*"))
    shard.write_bytes(shard.read_bytes()[:-10])
    assert "copy the store again" in problem(check(config, progress=False), "bytes")


def test_absent_folder_is_one_problem(own):
    own.config.data.root = "/nowhere/at/all"
    report = check(own.config)
    assert len(report.problems) == 1 and "/nowhere/at/all" in report.problems[0] and report.triplet is None
    own.config.data.root = ""
    report = check(own.config)
    assert report.statistics["frames"] == 0 and "data.root is empty" in report.problems[0]


def run_script(own, *arguments):
    command = [sys.executable, ROOT / "scripts/check_data.py", "--config=configs/dynamic_depth.py:folder", *arguments]
    command += [f"--config.data.root={own.root}", "--config.data.height=32", "--config.data.width=64"]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


def test_script_verdict_and_exit_code(own, tmp_path):
    picture, file = tmp_path / "check.jpg", tmp_path / "report.json"
    run = run_script(own, f"--picture={picture}", f"--json={file}")
    assert run.returncode == 0 and run.stdout.endswith(f"one triplet: {picture}\nthe data set is good\n"), run.stderr
    assert cv2.imread(str(picture)).shape[1] == 132
    own.cut_off("frames/a/2.png")
    run = run_script(own, "--picture=", f"--json={file}", "--split=train")
    assert run.returncode == 1 and run.stdout.endswith("the data set has 1 problem\n")
    content = json.loads(file.read_text())
    assert content["good"] is False and "frames/a/2.png" in content["problems"][0] and "train" in content["statistics"]["samples"]
