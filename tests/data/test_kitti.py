import cv2
import numpy as np
import pytest

from dd_jax.config import ConfigError
from dd_jax.data import kitti
from dd_jax.data.loader import open_split

IDENTITY = "calib: a: b\nS_rect_02: 8 6\nR_rect_00: 1 0 0 0 1 0 0 0 1\nP_rect_02: 4 0 4 0 0 4 3 0 0 0 1 0\n"
SCANNER_IS_CAMERA = "R: 0 -1 0 0 0 -1 1 0 0\nT: 0 0 0\n"  # camera x, y, z = -scanner y, -scanner z, scanner x


def scan(*points):
    return np.array([[*point, 0.5] for point in points], np.float32)


def test_calibration_lines_split_at_the_first_colon():
    values = kitti.parse_calibration("calib_time: 09-Jan-2012 13:57:47\nR: 1 2.5e+00\n\nno colon\nT:3\n")
    assert values["calib_time"] == "09-Jan-2012 13:57:47"
    np.testing.assert_array_equal(values["R"], [1, 2.5])
    np.testing.assert_array_equal(values["T"], [3])
    assert set(values) == {"calib_time", "R", "T"}


def test_a_point_lands_one_pixel_before_its_rounded_projection():
    """Camera point (0, 0, 5) projects to (cx, cy) = (4, 3)."""
    depth = kitti.depth_map(IDENTITY, SCANNER_IS_CAMERA, scan((5, 0, 0)))
    assert depth.shape == (6, 8) and depth[2, 3] == 5 and np.count_nonzero(depth) == 1


def test_nearest_point_wins_and_points_behind_or_outside_are_dropped():
    points = scan((5, 0, 0), (2, 0, 0), (9, 0, 0), (-3, 0, 0), (1, 30, 0), (4, -2, 0))
    depth = kitti.depth_map(IDENTITY, SCANNER_IS_CAMERA, points)
    assert depth[2, 3] == 2 and depth[2, 5] == 4 and np.count_nonzero(depth) == 2


def test_end_of_a_row_and_start_of_the_next_are_two_pixels():
    """u = 8 lands in the last column of its row, u = 1 of the next row in the first."""
    points = scan((4, -4, 0), (3, 9 / 4, -3 / 4))
    depth = kitti.depth_map(IDENTITY, SCANNER_IS_CAMERA, points)
    assert depth[2, 7] == 4 and depth[3, 0] == 3


def test_forward_and_camera_depth_differ_by_the_mounting():
    moved = SCANNER_IS_CAMERA.replace("T: 0 0 0", "T: 0 0 -0.25")
    points = scan((5, 0, 0))
    assert kitti.depth_map(IDENTITY, moved, points).max() == 5
    assert kitti.depth_map(IDENTITY, moved, points, forward=False).max() == 4.75


def test_triplets_hold_the_files_pictures(kitti_tree):
    tree = kitti_tree(frames=4, cameras=(2, 3))
    mask = tree.add_mask(1)
    source = open_split(tree.config, "train")
    assert len(source) == 8 and source.name(1) == f"{tree.folder} 1 l" and source.name(5) == f"{tree.folder} 1 r"
    sample = source[1]
    assert sample.exists.all()
    for place in range(3):
        np.testing.assert_array_equal(sample.images[place], tree.images[place, 2])
        np.testing.assert_array_equal(source[5].images[place], tree.images[place, 3])
    np.testing.assert_array_equal(sample.masks[1], mask)
    assert not sample.masks[[0, 2]].any() and not source[5].masks.any()


def test_missing_neighbours_are_black_and_said_to_be_missing(kitti_tree):
    source = open_split(kitti_tree(frames=3).config, "train")
    first, last = source[0], source[2]
    np.testing.assert_array_equal(first.exists, [False, True, True])
    np.testing.assert_array_equal(last.exists, [True, True, False])
    assert not first.images[0].any() and not last.images[2].any() and first.images[1:].any()


def test_jpg_and_png_may_be_mixed_and_jpg_goes_first(kitti_tree):
    tree = kitti_tree(frames=3)
    tree.path("image", 0).unlink()
    tree.add_image(0, suffix="jpg")
    tree.add_image(1, suffix="jpg")  # beside the png
    images = open_split(tree.config, "train")[1].images
    for frame in range(2):
        assert np.abs(images[frame].astype(int) - tree.images[frame, 2]).mean() < 3
    np.testing.assert_array_equal(images[2], tree.images[2, 2])


def test_masks_can_be_left_alone(kitti_tree):
    tree = kitti_tree(frames=3)
    tree.add_mask(1)
    assert open_split(tree.config, "train")[1].masks.any()
    tree.config.masks = "none"
    assert not open_split(tree.config, "train")[1].masks.any()


def test_every_date_has_its_own_camera_and_size(kitti_tree):
    tree = kitti_tree(frames=3)
    other = tree.folder.replace("2011_09_26", "2011_10_03")
    (tree.root / other).parent.mkdir()
    (tree.root / tree.folder).rename(tree.root / other)
    tree.calibrate("2011_10_03", fx=718.856, cx=607.1928, cy=185.2157, size=(376, 1241))
    tree.write_split("train", [f"{other} 1 l"])
    K = open_split(tree.config, "train")[0].K
    sx, sy = 64 / 1241, 32 / 376
    np.testing.assert_allclose(K[0], [718.856 * sx, 0, 607.6928 * sx - 0.5], rtol=1e-6)
    np.testing.assert_allclose(K[1], [0, 718.856 * sy, 185.7157 * sy - 0.5], rtol=1e-6)


def test_nominal_camera_is_the_fields_constant_and_needs_no_calibration(kitti_tree):
    tree = kitti_tree(frames=3)
    (tree.root / "2011_09_26/calib_cam_to_cam.txt").unlink()
    with pytest.raises(ConfigError, match=r"calib_cam_to_cam.txt does not exist.*--config.data.intrinsics=nominal"):
        open_split(tree.config, "train")
    tree.config.intrinsics = "nominal"
    K = open_split(tree.config, "train")[0].K
    np.testing.assert_allclose(K, [[0.58 * 64, 0, 32], [0, 1.92 * 32, 16], [0, 0, 1]], rtol=1e-6)


def test_cameras_outside_their_image_are_named(kitti_tree):
    tree = kitti_tree(frames=3)
    tree.calibrate("2011_09_26", fx=40.0, cx=70.0, cy=14.0)
    with pytest.raises(ConfigError, match=r"calib_cam_to_cam.txt \(P_rect_02\).*cx=70 cy=14.*64 x 32"):
        open_split(tree.config, "train")
    tree.calibrate("2011_09_26", fx=-40.0, cx=30.0, cy=14.0)
    with pytest.raises(ConfigError, match=r"fx=-40"):
        open_split(tree.config, "train")


def test_velodyne_ground_truth_reads_scan_masks_and_calibration(kitti_tree):
    tree = kitti_tree(frames=3)
    rng = np.random.default_rng(1)
    points = np.column_stack([rng.uniform(-5, 40, 500), rng.uniform(-8, 8, (500, 2)), rng.random(500)]).astype(np.float32)
    path = tree.root / tree.folder / "velodyne_points/data/0000000001.bin"
    path.parent.mkdir(parents=True)
    points.tofile(path)
    dynamic = tree.add_mask(1)
    moving = tree.add_mask(1, kind="moving")
    source = open_split(tree.config, "test")
    truth = source.ground_truth(1, "velodyne")
    texts = [(tree.root / "2011_09_26" / f"calib_{name}.txt").read_text() for name in ("cam_to_cam", "velo_to_cam")]
    np.testing.assert_array_equal(truth.depth, kitti.depth_map(*texts, points))
    assert truth.depth.max() > 5
    np.testing.assert_array_equal(truth.dynamic, dynamic)
    np.testing.assert_array_equal(truth.moving, moving)
    assert source.ground_truth(0, "velodyne") is None and source.ground_truth(1, "annotated") is None


@pytest.mark.parametrize("place", ["{folder}", "train/{drive}", "val/{drive}"])
def test_annotated_ground_truth_is_found_in_every_layout(kitti_tree, place):
    tree = kitti_tree(frames=3)
    path = tree.root / place.format(folder=tree.folder, drive=tree.folder.split("/")[1])
    path = path / "proj_depth/groundtruth/image_02/0000000001.png"
    path.parent.mkdir(parents=True)
    values = np.random.default_rng(0).integers(0, 20_000, (40, 70)).astype(np.uint16)
    cv2.imwrite(str(path), values)
    truth = open_split(tree.config, "test").ground_truth(1, "annotated")
    np.testing.assert_array_equal(truth.depth, (values / 256).astype(np.float32))
    assert truth.dynamic is None and truth.moving is None


def test_masks_are_brought_to_the_ground_truths_size(kitti_tree):
    tree = kitti_tree(frames=3)
    path = tree.root / tree.folder / "proj_depth/groundtruth/image_02/0000000001.png"
    path.parent.mkdir(parents=True)
    cv2.imwrite(str(path), np.full((64, 128), 256, np.uint16))
    mask = tree.add_mask(1)
    truth = open_split(tree.config, "test").ground_truth(1, "annotated")
    np.testing.assert_array_equal(truth.dynamic, np.kron(mask, np.ones((2, 2), bool)))
    cv2.imwrite(str(path), np.full((64, 128), 25, np.uint8))
    with pytest.raises(ConfigError, match=r"0000000001.png is not a 16-bit"):
        open_split(tree.config, "test").ground_truth(1, "annotated")


@pytest.mark.parametrize(
    "lines, complaint",
    [
        (None, "train_files.txt does not exist.*--config.data.split_dir"),
        ([], "train_files.txt is empty"),
        (["", "2011_09_26/x_sync 5"], "train_files.txt:2: expected"),
        (["2011_09_26/x_sync five l"], "train_files.txt:1: expected"),
        (["2011_09_26/x_sync 5 m"], "train_files.txt:1: expected"),
        (["2011_09_26/x_sync 5 l"], "1 of 1 target images.*x_sync/image_02/data/0000000005.jpg"),
    ],
)
def test_splits_that_cannot_work_are_refused_with_file_and_flag(kitti_tree, lines, complaint):
    tree = kitti_tree(frames=3)
    (tree.root / "splits/train_files.txt").unlink()
    if lines is not None:
        tree.write_split("train", lines)
    with pytest.raises(ConfigError, match=complaint):
        open_split(tree.config, "train")


def test_split_dir_replaces_the_roots_lists(kitti_tree, tmp_path):
    tree = kitti_tree(frames=3)
    (tree.root / "splits").rename(tmp_path / "mine")
    tree.config.split_dir = str(tmp_path / "mine")
    (tmp_path / "mine/train_files.txt").write_text(f"{tree.folder} 0000000002 2\n")
    assert open_split(tree.config, "train").name(0) == f"{tree.folder} 2 l"


def test_absent_root_is_named(kitti_tree):
    config = kitti_tree(frames=1).config
    config.root = "/no/such/place"
    with pytest.raises(ConfigError, match=r"--config.data.root='/no/such/place' is not a folder"):
        open_split(config, "train")
