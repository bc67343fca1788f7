import cv2
import numpy as np
import pytest
from odd_pictures import bomb

from dd_jax.config import ConfigError, DataConfig
from dd_jax.data.loader import open_split

CALIB = "P0: 40 0 30 0 0 40 14 0 0 0 1 0\nP2: 50 0 31 4.5 0 51 15 0.2 0 0 1 0\nP3: 52 0 32 -34 0 53 16 2 0 0 1 0\nTr: 1 0 0\n"


@pytest.fixture
def tree(tmp_path, picture):
    """Frames 0 to 5 of sequence 4, both cameras, and 0 to 2 of sequence 9, left; camera 3 as JPEG."""
    for sequence, camera, frames, suffix in (("04", 2, 6, "png"), ("04", 3, 6, "jpg"), ("09", 2, 3, "png")):
        folder = tmp_path / f"sequences/{sequence}/image_{camera}"
        folder.mkdir(parents=True)
        for frame in range(frames):
            assert cv2.imwrite(str(folder / f"{frame:06d}.{suffix}"), picture(10 * camera + frame, 32, 64)[..., ::-1])
        (tmp_path / f"sequences/{sequence}/calib.txt").write_text(CALIB)
    (tmp_path / "splits").mkdir()
    (tmp_path / "splits/train_files.txt").write_text("4 2 l\n04 000003 r\n4 4 2\n")
    (tmp_path / "splits/test_files_09.txt").write_text("9 0 l\n9 1 l\n")
    (tmp_path / "splits/test_files_10.txt").write_text("9 0 l\n")
    return DataConfig(root=str(tmp_path), split="odom", height=32, width=64)


def test_triplets_and_cameras(tree, picture, caplog):
    source = open_split(tree, "train")
    assert [source.name(i) for i in range(3)] == ["4 2 l", "4 3 r", "4 4 l"]
    for place in range(3):
        np.testing.assert_array_equal(source[0].images[place], picture(20 + 1 + place, 32, 64))
        assert np.abs(source[1].images[place].astype(int) - picture(30 + 2 + place, 32, 64)).mean() < 3
    np.testing.assert_allclose(source[0].K, [[50, 0, 31], [0, 51, 15], [0, 0, 1]])
    np.testing.assert_allclose(source[1].K, [[52, 0, 32], [0, 53, 16], [0, 0, 1]])
    assert source.ground_truth(0, "velodyne") is None
    assert "has 3 frames" in caplog.text and "has 36671" in caplog.text


def test_frame_step(tree, picture):
    tree.frame_step = 2
    source = open_split(tree, "train")
    assert [source[i].exists.tolist() for i in range(3)] == [[True] * 3, [True] * 3, [True, True, False]]
    for place, frame in enumerate((0, 2, 4)):
        np.testing.assert_array_equal(source[0].images[place], picture(20 + frame, 32, 64))
    assert not open_split(tree, "test")[1].exists[0]


def test_masks_priors_and_nominal_camera(tree, tmp_path):
    for kind, value in (("mask", np.uint8(3)), ("prior", np.uint16(700))):
        for frame in range(6):
            path = tmp_path / f"sequences/04/{kind}_{2 + frame % 2}/{frame:06d}.png"
            path.parent.mkdir(exist_ok=True)
            cv2.imwrite(str(path), np.full((32, 64), value))
    tree.priors, tree.intrinsics = "files", "nominal"
    (tmp_path / "sequences/04/calib.txt").unlink()
    source = open_split(tree, "train")
    assert source[0].masks[1].all() and not source[0].masks[0].any() and (source[0].prior == 700).all()
    np.testing.assert_allclose(source[0].K, [[0.58 * 64, 0, 32], [0, 1.92 * 32, 16], [0, 0, 1]], rtol=1e-6)


def test_first_test_frame_lacks_previous(tree, tmp_path):
    (tmp_path / "splits/test_files_10.txt").write_text("10 0 l\n")
    (tmp_path / "sequences/09").rename(tmp_path / "sequences/10")
    with pytest.raises(ConfigError, match=r"2 of 3 target images of .*test_files_09.txt and .*sequences/09/image_2/000000.jpg"):
        open_split(tree, "test")
    (tmp_path / "sequences/04").rename(tmp_path / "sequences/09")
    source = open_split(tree, "test")
    np.testing.assert_array_equal(source[0].exists, [False, True, True])
    assert len(source) == 3


@pytest.mark.parametrize("text", [None, "", "P2: 50 0\n", CALIB.replace("50", "nan"), CALIB.replace("50", "inf")])
def test_invalid_calibrations_named(tree, tmp_path, text):
    path = tmp_path / "sequences/04/calib.txt"
    path.unlink()
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=r"sequences/04/calib.txt( does not exist|: P2 must be 12 finite)"):
        open_split(tree, "train")


def test_sequence_size_from_any_readable_image(tree, tmp_path):
    bomb(tmp_path / "sequences/04/image_2/000002.png")
    np.testing.assert_allclose(open_split(tree, "train")[1].K, [[50, 0, 31], [0, 51, 15], [0, 0, 1]])
    (tmp_path / "sequences/04/image_2/000004.png").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"none of 2 frames like .*image_2/000002.png can be read to find the image size of"):
        open_split(tree, "train")


def test_extract_without_lists_is_enough(tree, tmp_path, caplog):
    """The published frames of sequence 4 that exist, divided as by the rule for the whole set."""
    for file in (tmp_path / "splits").iterdir():
        file.unlink()
    source = open_split(tree, "train")
    assert [source.name(i) for i in range(len(source))] == [f"4 {frame} {side}" for frame in (2, 3, 4, 5) for side in "lr"]
    assert "odom: 8 of the 36820 published frames are below" in caplog.text
    test = open_split(tree, "test")  # of sequence 9; 10 is absent
    assert [test.name(i) for i in range(len(test))] == ["9 0 l", "9 1 l", "9 2 l"]
    (tmp_path / "sequences/09").rename(tmp_path / "sequences/11")
    with pytest.raises(ConfigError, match=r"2790 of 2790 target images of odom/test_files_09.txt and .* do not exist"):
        open_split(tree, "test")


def test_pictures_are_compared_with_the_published_size(tree, tmp_path):
    """The focal length tells the sequence's size: pictures may be resized, not cropped."""
    (tmp_path / "sequences/04/calib.txt").write_text("P2: 707.0912 0 601.8873 0 0 707.0912 183.1104 0 0 0 1 0\n")
    (tmp_path / "splits/train_files.txt").write_text("4 2 l\n")

    def pictures(height, width):
        for frame in range(6):
            cv2.imwrite(str(tmp_path / f"sequences/04/image_2/{frame:06d}.png"), np.zeros((height, width, 3), np.uint8))

    pictures(185, 613)
    sx, sy = 64 / 1226, 32 / 370
    np.testing.assert_allclose(open_split(tree, "train")[0].K[:2, 2], [602.3873 * sx - 0.5, 183.6104 * sy - 0.5], rtol=1e-6)
    pictures(352, 1216)
    with pytest.raises(ConfigError, match=r"has 1216 x 352 pixels, but .*calib.txt \(P2\) is for 1226 x 370: .* cropped"):
        open_split(tree, "train")
