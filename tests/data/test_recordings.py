"""One reader of each layout: a folder of pictures has the camera, masks and times that training would give it."""

import json

import cv2
import numpy as np
import pytest
from cityscapes_tree import CityscapesTree

from dd_jax.config import ConfigError, DataConfig
from dd_jax.data.loader import open_split
from dd_jax.data.recordings import find_pictures, recording_of

CALIB = "P0: 50 0 31 0 0 51 15 0 0 0 1 0\nP2: 50 0 31 4.5 0 51 15 0.2 0 0 1 0\nP3: 52 0 32 -34 0 53 16 2 0 0 1 0\n"


@pytest.fixture
def write(tmp_path, picture):
    """Writes pictures of 64 x 32 into a folder; returns it."""

    def pictures(folder, names=("000000", "000001", "000002", "000003")):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        for name in names:
            assert cv2.imwrite(str(tmp_path / folder / f"{name}.png"), picture(0, 32, 64))
        return tmp_path / folder

    return pictures


def camera_at(place, size=(32, 64)):
    images = sorted(place.glob("*.png"))
    recording = recording_of(images[0])
    return recording, recording.camera(images, size)


def test_kitti_drive(kitti_tree):
    tree = kitti_tree(frames=3, cameras=(2, 3))
    drive = tree.root / tree.folder
    expected = open_split(tree.config, "train")[0].K
    inner, right = drive / "image_02", drive / "image_03/data"
    for given, camera, number in ((drive, None, 2), (drive, 3, 3), (inner, None, 2), (right, None, 3)):
        place = find_pictures(given, camera)
        assert place == drive / f"image_0{number}/data"
        recording, K = camera_at(place)
        np.testing.assert_array_equal(K, expected)
        assert recording.masks == drive / f"mask_0{number}/data" and recording.drive == drive
        assert recording.times == drive / f"image_0{number}/timestamps.txt"


def test_kitti_drive_of_the_right_camera_only(kitti_tree):
    tree = kitti_tree(frames=3, cameras=(3,))
    drive = tree.root / tree.folder
    (drive / "image_02/data").mkdir(parents=True)
    assert find_pictures(drive, None) == drive / "image_03/data"
    with pytest.raises(ConfigError, match=r"--camera=2 .* has no folder image_02 with images; there is --camera=3"):
        find_pictures(drive, 2)
    assert open_split(tree.config, "train")[0].K[0, 0] == camera_at(drive / "image_03/data")[1][0, 0]


def test_kitti_drive_behind_a_link(kitti_tree, tmp_path_factory):
    tree, other = kitti_tree(frames=1), tmp_path_factory.mktemp("links")
    (other / "drive").symlink_to(tree.root / tree.folder)
    assert camera_at(find_pictures(other / "drive", None))[1][0, 0] == 40
    (tree.root / tree.folder).rename(other / "moved")
    (tree.root / tree.folder).symlink_to(other / "moved")
    assert camera_at(find_pictures(tree.root / tree.folder, None))[1][0, 0] == 40


def test_kitti_drive_without_calibration_names_the_remedy_of_prediction(kitti_tree):
    tree = kitti_tree(frames=1)
    (tree.root / "2011_09_26/calib_cam_to_cam.txt").unlink()
    with pytest.raises(ConfigError, match=r"calib_cam_to_cam.txt does not exist: .* or give the camera as --intrinsics"):
        camera_at(find_pictures(tree.root / tree.folder, None))


def test_kitti_sequence(write, tmp_path):
    for number in (2, 3):
        write(f"sequences/04/image_{number}")
    sequence = tmp_path / "sequences/04"
    (sequence / "calib.txt").write_text(CALIB)
    (tmp_path / "splits").mkdir()
    (tmp_path / "splits/train_files.txt").write_text("4 1 l\n4 1 r\n")
    source = open_split(DataConfig(root=str(tmp_path), split="odom", height=32, width=64), "train")
    for given, camera, number in ((sequence, None, 2), (sequence, 3, 3), (sequence / "image_2", None, 2)):
        recording, K = camera_at(find_pictures(given, camera))
        np.testing.assert_array_equal(K, source[number - 2].K)
        assert recording.masks == sequence / f"mask_{number}" and recording.times == sequence / "times.txt"
    write("sequences/05/image_0")
    (tmp_path / "sequences/05/calib.txt").write_text(CALIB)
    assert camera_at(find_pictures(tmp_path / "sequences/05", None))[1][0, 0] == 50


@pytest.mark.parametrize("given", ["frames/a", "frames", "."])
@pytest.mark.parametrize("beside", ["", "frames/a"])
def test_own_frames(write, tmp_path, given, beside):
    clip = write("frames/a")
    camera = {"width": 64, "height": 32, "fx": 50.0, "fy": 52.0, "cx": 31.5, "cy": 15.5}
    (tmp_path / beside / "intrinsics.json").write_text(json.dumps(camera))
    place = find_pictures(tmp_path / given, None)
    recording, K = camera_at(place)
    source = open_split(DataConfig(source="folder", root=str(tmp_path), height=32, width=64), "train")
    np.testing.assert_array_equal(K, source[0].K)
    assert place == clip and recording.masks == tmp_path / "masks/a"


def test_several_clips_are_named(write, tmp_path):
    write("frames/a"), write("frames/b")
    with pytest.raises(ConfigError, match=r"frames holds several clips \(a, b\): give the folder of one of them"):
        find_pictures(tmp_path, None)
    assert find_pictures(tmp_path / "frames/b", None) == tmp_path / "frames/b"


def test_cityscapes_sequence(tmp_path):
    tree = CityscapesTree(tmp_path)
    tree.frames(range(3)), tree.camera(2)
    place = find_pictures(tmp_path / "leftImg8bit_sequence/train/ulm", None)
    _, K = camera_at(place, (1024, 2048))
    np.testing.assert_allclose(K, [[2262.52, 0, 1096.98], [0, 2265.3018, 513.137], [0, 0, 1]], rtol=1e-6)
    image = next(place.iterdir())
    cv2.imwrite(str(image), cv2.imread(str(image))[:96])
    with pytest.raises(ConfigError, match=r"has 256 x 96 pixels, but the camera files are for 2048 x 1024: take whole frames"):
        recording_of(image).camera([image], (96, 256))


def test_folder_of_no_layout(write, tmp_path):
    place = write("any")
    recording = recording_of(place / "000000.png")
    assert find_pictures(place, None) == place
    assert (recording.camera, recording.masks, recording.times, recording.drive) == (None, None, None, None)
