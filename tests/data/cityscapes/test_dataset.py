import json

import cv2
import numpy as np
import pytest

from dd_jax.config import ConfigError, DataConfig
from dd_jax.data.cityscapes.files import read_camera_text
from dd_jax.data.loader import open_split

CAMERA = "1130.0,0.,548.0,0.,1132.5,256.5,0.,0.,1."
SEQUENCE = "ulm_000064"


class Dump:
    """Preprocessed triplets of one snippet: frames 10, 11, 12, ... at every position that has t-2 and t+2."""

    def __init__(self, root, picture, base=""):
        self.root, self.picture = root, picture
        self.folder = root / base / "ulm"
        self.folder.mkdir(parents=True)
        (root / "splits").mkdir()
        self.config = DataConfig(source="cityscapes", root=str(root), height=32, width=64)

    def frame(self, number):
        return self.picture(number, 32, 64)

    def triplets(self, numbers, size=None):
        for number in numbers:
            image = np.concatenate([self.frame(number + step) for step in (-2, 0, 2)], axis=1)
            if size:
                image = cv2.resize(image, size)
            cv2.imwrite(str(self.folder / f"{SEQUENCE}_{number:06d}.jpg"), image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 100])
            (self.folder / f"{SEQUENCE}_{number:06d}_cam.txt").write_text(CAMERA)

    def split(self, name, numbers):
        lines = [f"ulm {SEQUENCE}_{number:06d}\n" for number in numbers]
        (self.root / f"splits/{name}_files.txt").write_text("".join(lines))


@pytest.fixture
def dump(tmp_path, picture):
    return lambda **kwargs: Dump(tmp_path, picture, **kwargs)


def assert_close(image, expected):
    assert np.abs(image.astype(int) - expected).mean() < 2


@pytest.mark.parametrize("base", ["", "preprocessed"])
def test_triplets_from_thirds_share_frames(dump, base):
    data = dump(base=base)
    data.triplets([12, 14, 16])
    data.split("train", [14, 12, 16])
    source = open_split(data.config, "train")
    assert [source.name(i) for i in range(3)] == [f"ulm {SEQUENCE}_0000{n}" for n in (14, 12, 16)]
    for place, number in enumerate((14, 12, 16)):
        sample = source[place]
        assert sample.exists.all()
        for image, step in zip(sample.images, (-2, 0, 2)):
            assert_close(image, data.frame(number + step))
    assert source._store.frames.shape[0] == 5  # 10, 12, 14, 16, 18


@pytest.mark.parametrize("size", [(3 * 64, 32), (3 * 32, 48)])
def test_camera_independent_of_image_size(dump, size):
    """One public script writes 1024 x 384 images, another 512 x 768; cam.txt refers to 1024 x 384 in both."""
    data = dump()
    data.triplets([12], size)
    data.split("train", [12])
    sample = open_split(data.config, "train")[0]
    assert sample.images.shape == (3, 32, 64, 3)
    sx, sy = 64 / 1024, 32 / 384
    np.testing.assert_allclose(sample.K[0], [1130 * sx, 0, 548.5 * sx - 0.5], rtol=1e-6)
    np.testing.assert_allclose(sample.K[1], [0, 1132.5 * sy, 257 * sy - 0.5], rtol=1e-6)


@pytest.mark.parametrize("width, rows", [(416, 171), (832, 340), (640, 320), (512, 256), (896, 448), (2048, 1024)])
def test_triplets_with_cameras_of_their_own_size_are_refused(dump, width, rows):
    """SfMLearner's script writes _cam.txt in pixels of the size that it was given."""
    data = dump()
    data.triplets([12], (3 * width, rows * 3 // 4))
    data.split("train", [12])
    fx, fy, cx, cy = 2262.52 * width / 2048, 2265.3 * rows / 1024, 1096.98 * width / 2048, 513.137 * rows / 1024
    (data.folder / f"{SEQUENCE}_000012_cam.txt").write_text(f"{fx},0.,{cx},0.,{fy},{cy},0.,0.,1.")
    sizes = rf"is for images of {width} x {rows}: .* must be for 1024 x 512, .* \(these have {width} x {rows * 3 // 4}\)"
    with pytest.raises(ConfigError, match=rf"000012_cam.txt {sizes}"):
        open_split(data.config, "train")


@pytest.mark.parametrize("size", [(1024, 384), (512, 768), (416, 128), (512, 192), (896, 336), (2048, 768)])
@pytest.mark.parametrize("camera", [(1096.98, 513.137), (1048.64, 519.277), (1045.53, 525.09)])
def test_triplets_of_any_size_with_cameras_of_1024_x_512_are_accepted(dump, size, camera):
    data = dump()
    data.triplets([12], (3 * size[0], size[1]))
    data.split("train", [12])
    (data.folder / f"{SEQUENCE}_000012_cam.txt").write_text(f"1131,0,{camera[0] / 2},0,1132,{camera[1] / 2},0,0,1")
    assert open_split(data.config, "train")[0].K[0, 0] == pytest.approx(1131 / 16)


def test_dynamicdepth_mask_names(dump):
    data = dump()
    data.triplets([12, 14])
    data.split("train", [12])
    rng = np.random.default_rng(0)
    masks = {name: rng.random((20, 40)) < 0.5 for name in ("12-1", "12", "14", "12+1")}
    (data.root / "train_mask").mkdir()
    for name, mask in masks.items():
        np.save(data.root / f"train_mask/{SEQUENCE}_{name}.npy", mask.astype(np.uint8) * 255)
    found = open_split(data.config, "train")[0].masks
    rows, columns = ((np.arange(n) + 0.5) * m / n for n, m in ((32, 20), (64, 40)))
    for place, name in enumerate(("12-1", "12", "14")):  # frame 14 is the centre of its own triplet
        np.testing.assert_array_equal(found[place], masks[name][rows.astype(int)[:, None], columns.astype(int)], err_msg=name)
    (data.root / f"train_mask/{SEQUENCE}_12.npy").unlink()
    assert not open_split(data.config, "train")[0].masks[1].any()


def test_absent_triplets_and_cameras_named(dump, tmp_path):
    data = dump()
    data.triplets([12])
    data.split("train", [12, 40])
    with pytest.raises(ConfigError, match=f"1 of 2 target images.*{SEQUENCE}_000040.jpg"):
        open_split(data.config, "train")
    data.split("train", [12])
    camera = data.folder / f"{SEQUENCE}_000012_cam.txt"
    camera.write_text("1,2,3")
    with pytest.raises(ConfigError, match=r"000012_cam.txt must hold nine numbers"):
        open_split(data.config, "train")
    camera.write_text(CAMERA.replace("548.0", "1548.0"))
    with pytest.raises(ConfigError, match=r"000012_cam.txt.*cx=1548.*1024 x 512"):
        open_split(data.config, "train")
    (data.root / "splits/val_files.txt").write_text("ulm bochum_000064_000012\n")
    with pytest.raises(ConfigError, match=r"val_files.txt:1: expected"):
        open_split(data.config, "val")
    with pytest.raises(ConfigError, match=r"absent.txt must hold nine numbers"):
        read_camera_text(tmp_path / "absent.txt", (384, 1024), (32, 64))


@pytest.fixture
def triplet_tree(tmp_path, picture):
    """Two test snippets at a thirty-second of the original size, the camera file some frames away from the target."""
    (tmp_path / "splits").mkdir()
    (tmp_path / "splits/test_files.txt").write_text("bonn bonn_000001_000019\nmainz mainz_000000_000300\n")
    camera = {"intrinsic": {"fx": 2262.52, "fy": 2265.3, "u0": 1096.98, "v0": 513.137}}
    for city, sequence, number in (("bonn", "000001", 19), ("mainz", "000000", 300)):
        folder = tmp_path / "leftImg8bit_sequence/test" / city
        folder.mkdir(parents=True)
        for frame in (number - 2, number):
            cv2.imwrite(str(folder / f"{city}_{sequence}_{frame:06d}_leftImg8bit.png"), picture(frame, 128, 256)[..., ::-1])
        cameras = tmp_path / "camera/test" / city
        cameras.mkdir(parents=True)
        (cameras / f"{city}_{sequence}_{number:06d}_camera.json").write_text(json.dumps(camera))
    (tmp_path / "camera/test/mainz/mainz_000000_000300_camera.json").rename(
        tmp_path / "camera/test/mainz/mainz_000000_000310_camera.json"
    )
    far = {"intrinsic": camera["intrinsic"] | {"fx": 9999.0}}
    (tmp_path / "camera/test/mainz/mainz_000000_000100_camera.json").write_text(json.dumps(far))
    return tmp_path


def test_test_pairs_cut_and_nearest_camera(triplet_tree, picture):
    config = DataConfig(source="cityscapes", root=str(triplet_tree), height=96, width=256)
    source = open_split(config, "test")
    assert len(source) == 2 and source.name(1) == "mainz mainz_000000_000300"
    for index, number in enumerate((19, 300)):
        sample = source[index]
        np.testing.assert_array_equal(sample.exists, [True, True, False])
        np.testing.assert_array_equal(sample.images[0], picture(number - 2, 128, 256)[:96])
        np.testing.assert_array_equal(sample.images[1], picture(number, 128, 256)[:96])
        np.testing.assert_allclose(sample.K[0], [2262.52 / 8, 0, 1097.48 / 8 - 0.5], rtol=1e-6)
        np.testing.assert_allclose(sample.K[1], [0, 2265.3 / 8, 513.637 / 8 - 0.5], rtol=1e-6)


def test_ground_truth_numbered_by_line_and_cut(triplet_tree):
    depth = np.random.default_rng(0).uniform(0, 80, (64, 128))
    (triplet_tree / "gt_depths").mkdir()
    np.save(triplet_tree / "gt_depths/001_depth.npy", depth)
    mask = np.random.default_rng(1).random((48, 128)) < 0.5
    (triplet_tree / "val_mask").mkdir()
    np.save(triplet_tree / "val_mask/mainz_000000_300.npy", mask)
    config = DataConfig(source="cityscapes", root=str(triplet_tree), height=96, width=256)
    source = open_split(config, "test")
    truth = source.ground_truth(1, "annotated")
    np.testing.assert_array_equal(truth.depth, depth[:48].astype(np.float32))
    np.testing.assert_array_equal(truth.dynamic, mask)
    assert source.ground_truth(0, "annotated") is None
    np.testing.assert_array_equal(source[1].masks[1], np.kron(mask, np.ones((2, 2), bool)))


def test_absent_test_cameras_named(triplet_tree):
    (triplet_tree / "camera/test/bonn/bonn_000001_000019_camera.json").unlink()
    config = DataConfig(source="cityscapes", root=str(triplet_tree), height=96, width=256)
    with pytest.raises(ConfigError, match=r"no camera file .*bonn_000001_.*camera.json"):
        open_split(config, "test")


def test_image_that_is_not_a_triplet_unreadable(dump, caplog):
    data = dump()
    data.triplets([12, 14])
    cv2.imwrite(str(data.folder / f"{SEQUENCE}_000014.jpg"), data.frame(14))  # 64 wide: one frame, not three
    data.split("train", [12, 14])
    source = open_split(data.config, "train")
    assert [source.name(i) for i in range(len(source))] == [f"ulm {SEQUENCE}_000012"]
    assert "unreadable frames are left out" in caplog.text and "000014.jpg" in caplog.text


def test_rule_divides_all_triplets(dump):
    data = dump()
    numbers = range(2, 40)
    data.triplets(numbers)
    found = [
        source.name(i) for source in (open_split(data.config, split) for split in ("train", "val")) for i in range(len(source))
    ]
    assert sorted(found) == [f"ulm {SEQUENCE}_{number:06d}" for number in numbers]


@pytest.mark.parametrize("text", ["1,0,nan,0,1,2,0,0,1", "1,0,2,0,inf,2,0,0,1", "1,0,2", ""])
def test_invalid_camera_text_raises(tmp_path, text):
    (tmp_path / "x_cam.txt").write_text(text)
    with pytest.raises(ConfigError, match=r"x_cam.txt must hold nine numbers"):
        read_camera_text(tmp_path / "x_cam.txt", (384, 1024), (32, 64))
