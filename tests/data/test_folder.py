import json

import cv2
import numpy as np
import pytest

from dd_jax.config import Config, ConfigError, DataConfig
from dd_jax.data.loader import open_split, train_batches

CAMERA = {"width": 64, "height": 32, "fx": 50.0, "fy": 52.0, "cx": 31.5, "cy": 15.5}


class Video:
    def __init__(self, root, picture):
        self.root, self.picture = root, picture
        self.config = DataConfig(source="folder", root=str(root), height=32, width=64, batch_size=2)
        self.write_camera()

    def write_camera(self, clip="", **changes):
        path = self.root / (f"frames/{clip}" if clip else "") / "intrinsics.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(CAMERA | changes))

    def write_frames(self, count, clip="", name="{}.png"):
        folder = self.root / "frames" / clip
        folder.mkdir(parents=True, exist_ok=True)
        for frame in range(count):
            assert cv2.imwrite(str(folder / name.format(frame)), self.picture(frame, 32, 64)[..., ::-1])


@pytest.fixture
def video(tmp_path, picture):
    return Video(tmp_path, picture)


def targets(source):
    return [source.name(i) for i in range(len(source))]


def test_the_last_tenth_is_val_and_no_frame_is_on_both_sides(video):
    video.write_frames(40)
    train, val = open_split(video.config, "train"), open_split(video.config, "val")
    assert targets(train) == [str(frame) for frame in range(1, 35)]  # natural order: 9 before 10
    assert targets(val) == ["37", "38"]
    assert targets(open_split(video.config, "test")) == targets(val)
    sample = val[0]
    assert sample.exists.all() and not sample.masks.any() and val.ground_truth(0, "velodyne") is None
    for place, frame in enumerate((36, 37, 38)):
        np.testing.assert_array_equal(sample.images[place], video.picture(frame, 32, 64))
    np.testing.assert_allclose(sample.K, [[50, 0, 31.5], [0, 52, 15.5], [0, 0, 1]])


def test_clips_stay_apart_and_may_have_their_own_camera(video):
    video.write_frames(6, "a")
    video.write_frames(4, "b", "f{}.jpg")
    video.write_camera("b", fx=77.0)
    train = open_split(video.config, "train")
    assert targets(train) == ["a 1", "b f1", "b f2"]  # b is too short to be cut
    assert targets(open_split(video.config, "val")) == ["a 4"]
    assert (train[0].K[0, 0], train[1].K[0, 0]) == (50, 77)


def test_masks_bear_the_frames_name(video):
    video.write_frames(5, "a")
    (video.root / "masks/a").mkdir(parents=True)
    mask = np.random.default_rng(0).random((32, 64)) < 0.5
    cv2.imwrite(str(video.root / "masks/a/2.png"), mask.astype(np.uint8) * 255)
    masks = open_split(video.config, "train")[1].masks
    np.testing.assert_array_equal(masks, [np.zeros_like(mask), mask, np.zeros_like(mask)])


def test_masks_and_priors_may_be_arrays(video):
    video.write_frames(5, "a")
    rng = np.random.default_rng(0)
    mask, prior = rng.random((32, 64)) < 0.5, rng.uniform(0.1, 1, (32, 64)).astype(np.float32)
    for kind, array in (("masks", mask), ("priors", prior)):
        (video.root / kind / "a").mkdir(parents=True)
        for frame in range(1, 4):
            np.save(video.root / kind / f"a/{frame}.npy", array)
    video.config.priors = "files"
    sample = open_split(video.config, "train")[1]
    np.testing.assert_array_equal(sample.masks[1], mask)
    np.testing.assert_allclose(sample.prior / 65535, prior / prior.max(), atol=1e-5)


def test_all_cameras_that_cannot_be_are_named_at_once(video):
    for clip in ("a", "b", "c"):
        video.write_frames(4, clip)
    video.write_camera("a", fx=-1.0)
    video.write_camera("c", cx=99.0)
    with pytest.raises(ConfigError, match=r"a/intrinsics.json: focal lengths fx=-1.*; .*c/intrinsics.json.*cx=99"):
        open_split(video.config, "train")


def test_split_files_choose_frames(video):
    video.write_frames(5)
    video.write_frames(5, "a")
    (video.root / "splits").mkdir()
    (video.root / "splits/train_files.txt").write_text("a 2\n0\n")
    source = open_split(video.config, "train")
    assert targets(source) == ["a 2", "0"]
    np.testing.assert_array_equal(source[1].exists, [False, True, True])
    (video.root / "splits/val_files.txt").write_text("a 9\n")
    with pytest.raises(ConfigError, match=r"1 of 1 target images.*a/9"):
        open_split(video.config, "val")
    (video.root / "splits/val_files.txt").write_text("1\na 2 l\n")
    with pytest.raises(ConfigError, match=r"val_files.txt:2: expected"):
        open_split(video.config, "val")


def test_training_batches_come_out(video):
    video.write_frames(8)
    source = open_split(video.config, "train")
    batch = next(train_batches(source, Config(data=video.config)))
    assert batch.images.shape == (2, 3, 32, 64, 3)


@pytest.mark.parametrize(
    "changes, complaint",
    [
        ({"cx": 64.0}, "intrinsics.json.*cx=64 cy=15.5.*64 x 32"),
        ({"fy": 0.0}, "fx=50 fy=0"),
        ({"cy": "middle"}, "intrinsics.json must hold the numbers"),
        ({"width": 128}, "for pictures of 128 x 32, but .*0.png has 64 x 32"),
        ({"height": 0}, "for pictures of 64 x 0"),
    ],
)
def test_cameras_that_cannot_be_are_refused(video, changes, complaint):
    video.write_frames(4)
    video.write_camera(**changes)
    with pytest.raises(ConfigError, match=complaint):
        open_split(video.config, "train")


def test_a_camera_for_another_resolution_is_scaled(video):
    video.write_frames(4)
    video.write_camera(width=128, height=64, cx=63.5, cy=31.5)
    np.testing.assert_allclose(open_split(video.config, "train")[0].K[:2], [[25, 0, 31.5], [0, 26, 15.5]])


def test_what_is_absent_is_named(video):
    with pytest.raises(ConfigError, match=r"no folder .*frames.*prepare_video.py"):
        open_split(video.config, "train")
    (video.root / "frames").mkdir()
    with pytest.raises(ConfigError, match=r"holds no .png"):
        open_split(video.config, "train")
    video.write_frames(2)
    with pytest.raises(ConfigError, match=r"too short for the train split"):
        open_split(video.config, "train")
    video.write_frames(5)
    with pytest.raises(ConfigError, match=r"too short for the val split"):
        open_split(video.config, "val")
    (video.root / "intrinsics.json").unlink()
    with pytest.raises(ConfigError, match=r'intrinsics.json does not exist.*"fx"'):
        open_split(video.config, "train")
