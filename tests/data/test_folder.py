import json

import cv2
import numpy as np
import pytest
from odd_pictures import bomb, upright

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


def test_last_tenth_is_val_without_shared_frames(video):
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


def test_frame_step_keeps_train_and_val_apart(video):
    video.write_frames(40)
    video.config.frame_step = 3
    train, val = open_split(video.config, "train"), open_split(video.config, "val")
    assert targets(train) == [str(frame) for frame in range(3, 30)]  # frames 0 to 32
    assert targets(val) == ["36"]  # 33 to 39
    for place, frame in enumerate((33, 36, 39)):
        np.testing.assert_array_equal(val[0].images[place], video.picture(frame, 32, 64))
    video.config.frame_step = 10
    assert targets(open_split(video.config, "train")) == [str(frame) for frame in range(10, 30)]  # too short to be cut
    with pytest.raises(
        ConfigError, match=r"too short for the val split: with --config.data.frame_step=10 a clip needs 21 frames, and 42 if"
    ):
        open_split(video.config, "val")


def test_frame_step_with_lists(video):
    video.write_frames(5)
    video.config.frame_step = 2
    (video.root / "splits").mkdir()
    (video.root / "splits/train_files.txt").write_text("0\n2\n4\n")
    source = open_split(video.config, "train")
    assert [source[i].exists.tolist() for i in range(3)] == [[False, True, True], [True] * 3, [True, True, False]]
    np.testing.assert_array_equal(source[2].images[0], video.picture(2, 32, 64))


def test_clips_separate_with_own_intrinsics(video):
    video.write_frames(6, "a")
    video.write_frames(4, "b", "f{}.jpg")
    video.write_camera("b", fx=77.0)
    train = open_split(video.config, "train")
    assert targets(train) == ["a 1", "b f1", "b f2"]  # b is too short to be cut
    assert targets(open_split(video.config, "val")) == ["a 4"]
    assert (train[0].K[0, 0], train[1].K[0, 0]) == (50, 77)


def test_masks_named_as_frames(video):
    video.write_frames(5, "a")
    (video.root / "masks/a").mkdir(parents=True)
    mask = np.random.default_rng(0).random((32, 64)) < 0.5
    cv2.imwrite(str(video.root / "masks/a/2.png"), mask.astype(np.uint8) * 255)
    masks = open_split(video.config, "train")[1].masks
    np.testing.assert_array_equal(masks, [np.zeros_like(mask), mask, np.zeros_like(mask)])


def test_masks_and_priors_from_arrays(video):
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


def test_all_invalid_cameras_named_at_once(video):
    for clip in ("a", "b", "c"):
        video.write_frames(4, clip)
    video.write_camera("a", fx=-1.0)
    video.write_camera("c", cx=99.0)
    with pytest.raises(ConfigError, match=r"a/intrinsics.json: focal lengths fx=-1.*; .*c/intrinsics.json.*cx=99"):
        open_split(video.config, "train")


def test_camera_of_another_size_is_refused_at_the_start(video):
    video.write_frames(4)
    video.write_camera(cx=15.5, cy=7.5)
    with pytest.raises(ConfigError, match=r"intrinsics.json: .* of 64 x 32, .* likely those of a picture of about 32 x 16: give"):
        open_split(video.config, "train")
    video.write_camera(width=32, height=16, fx=25.0, fy=26.0, cx=15.5, cy=7.5)
    np.testing.assert_allclose(open_split(video.config, "train")[0].K[:2], [[50, 0, 31.5], [0, 52, 15.5]])


def test_frames_named_by_time_are_in_the_order_of_time(video):
    video.write_frames(3)
    for frame, time in enumerate(("1341846313.5", "1341846313.592", "1341846313.6")):
        (video.root / f"frames/{frame}.png").rename(video.root / f"frames/{time}.png")
    source = open_split(video.config, "train")
    assert targets(source) == ["1341846313.592"]
    np.testing.assert_array_equal(source[0].images[2], video.picture(2, 32, 64))


def test_image_size_measured_after_orientation(video):
    """32 x 64 in the file, 64 x 32 with its orientation applied, for training and for the intrinsics."""
    video.write_frames(4)
    for frame in range(4):
        (video.root / f"frames/{frame}.png").unlink()
        upright(video.root / f"frames/{frame}.jpg", 64, 32)
    np.testing.assert_allclose(open_split(video.config, "train")[0].K[:2], [[50, 0, 31.5], [0, 52, 15.5]])
    video.write_camera(width=32, height=64, cx=15.5, cy=31.5)
    with pytest.raises(ConfigError, match=r"for images of 32 x 64, but .*0.jpg has 64 x 32"):
        open_split(video.config, "train")


def test_camera_needs_one_readable_image(video, caplog):
    video.write_frames(6)
    bomb(video.root / "frames/0.png")
    video.write_camera(width=128)
    with pytest.raises(ConfigError, match=r"for images of 128 x 32, but .*1.png has 64 x 32"):
        open_split(video.config, "train")
    video.write_camera()
    assert len(open_split(video.config, "train")) == 1
    assert "1 unreadable frames" in caplog.text and "0.png" in caplog.text


@pytest.mark.parametrize("text", ["[" * 100_000, json.dumps(CAMERA | {"width": 10**400})])
def test_absurd_camera_file_raises(video, text):
    video.write_frames(4)
    (video.root / "intrinsics.json").write_text(text)
    with pytest.raises(ConfigError, match=r"intrinsics.json must hold the numbers width, height"):
        open_split(video.config, "train")


def test_any_name_is_frame_except_hidden_files(video):
    video.write_frames(5, name="\u00b2{}.png")
    for frame in range(5):
        (video.root / f"frames/._{frame}.png").write_bytes(b"Mac OS X")
    assert targets(open_split(video.config, "train")) == ["\u00b21", "\u00b22", "\u00b23"]
    (video.root / "frames/itself.jpg").symlink_to("itself.jpg")
    assert len(open_split(video.config, "train")) == 3


def test_frame_in_two_formats_raises(video):
    video.write_frames(5, "a")
    video.write_frames(3, "a", "{}.jpg")
    with pytest.raises(ConfigError, match=r"frames/a holds 0.jpg and 0.png, which masks and lists cannot tell apart: remove one"):
        open_split(video.config, "train")


def test_lists_accept_dots_and_suffixes(video):
    video.write_frames(12, "c", "f.{:04d}.png")
    names = targets(open_split(video.config, "train"))
    assert names[:2] == ["c f.0001", "c f.0002"]
    (video.root / "splits").mkdir()
    for suffix in ("", ".png", ".jpg"):
        (video.root / "splits/train_files.txt").write_text("".join(f"{name}{suffix}\n" for name in names))
        assert targets(open_split(video.config, "train")) == names


def test_lists_may_repeat_but_not_leave_data_set(video, caplog):
    video.write_frames(5, "c")
    (video.root / "splits").mkdir()
    path = video.root / "splits/train_files.txt"
    path.write_text("c 3\nc 2\nc 3.png\n")
    assert targets(open_split(video.config, "train")) == ["c 3", "c 2"]
    assert "train_files.txt: 1 lines are repetitions, the first is line 3, equal to line 1" in caplog.text
    for line in ("c ../../../../etc/3", "../c 3", "/etc/3", "c .."):
        path.write_text(f"c 1\n{line}\n")
        with pytest.raises(ConfigError, match=r"train_files.txt:2: .* is not a folder of the data set"):
            open_split(video.config, "train")
    path.write_text("c elsewhere/3\n")
    with pytest.raises(ConfigError, match=r"1 of 1 target images.*c/elsewhere/3"):
        open_split(video.config, "train")


def test_split_files_select_frames(video):
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


def test_training_batches(video):
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
        ({"width": 128}, "for images of 128 x 32, but .*0.png has 64 x 32"),
        ({"height": 0}, "for images of 64 x 0"),
    ],
)
def test_invalid_cameras_raise(video, changes, complaint):
    video.write_frames(4)
    video.write_camera(**changes)
    with pytest.raises(ConfigError, match=complaint):
        open_split(video.config, "train")


def test_camera_of_other_resolution_is_scaled(video):
    video.write_frames(4)
    video.write_camera(width=128, height=64, cx=63.5, cy=31.5)
    np.testing.assert_allclose(open_split(video.config, "train")[0].K[:2], [[25, 0, 31.5], [0, 26, 15.5]])


def test_absent_files_named(video):
    with pytest.raises(ConfigError, match=r"the folder .*frames does not exist.*prepare_video.py"):
        open_split(video.config, "train")
    (video.root / "frames").mkdir()
    with pytest.raises(ConfigError, match=r"neither .*frames nor a folder in it holds .png"):
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
