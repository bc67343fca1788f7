import cv2
import numpy as np
import pytest

from dd_jax.config import ConfigError
from dd_jax.data.kitti import raw
from dd_jax.data.loader import open_split

IDENTITY = "calib: a: b\nS_rect_02: 8 6\nR_rect_00: 1 0 0 0 1 0 0 0 1\nP_rect_02: 4 0 4 0 0 4 3 0 0 0 1 0\n"
SCANNER_IS_CAMERA = "R: 0 -1 0 0 0 -1 1 0 0\nT: 0 0 0\n"  # camera x, y, z = -scanner y, -scanner z, scanner x


def scan(*points):
    return np.array([[*point, 0.5] for point in points], np.float32)


def test_pixel_is_rounded_projection_minus_one():
    """Camera point (0, 0, 5) projects to (cx, cy) = (4, 3)."""
    depth = raw.depth_map(IDENTITY, SCANNER_IS_CAMERA, scan((5, 0, 0)))
    assert depth.shape == (6, 8) and depth[2, 3] == 5 and np.count_nonzero(depth) == 1


def test_nearest_point_wins_and_invisible_points_dropped():
    points = scan((5, 0, 0), (2, 0, 0), (9, 0, 0), (-3, 0, 0), (1, 30, 0), (4, -2, 0))
    depth = raw.depth_map(IDENTITY, SCANNER_IS_CAMERA, points)
    assert depth[2, 3] == 2 and depth[2, 5] == 4 and np.count_nonzero(depth) == 2


def test_row_end_and_next_start_are_separate_pixels():
    """u = 8 is in the last column of its row, u = 1 of the next row in the first."""
    points = scan((4, -4, 0), (3, 9 / 4, -3 / 4))
    depth = raw.depth_map(IDENTITY, SCANNER_IS_CAMERA, points)
    assert depth[2, 7] == 4 and depth[3, 0] == 3


def test_forward_and_camera_depth_differ_by_mounting():
    moved = SCANNER_IS_CAMERA.replace("T: 0 0 0", "T: 0 0 -0.25")
    points = scan((5, 0, 0))
    assert raw.depth_map(IDENTITY, moved, points).max() == 5
    assert raw.depth_map(IDENTITY, moved, points, forward=False).max() == 4.75


def test_triplets_hold_images(kitti_tree):
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


def test_missing_neighbours_black_and_not_exists(kitti_tree):
    source = open_split(kitti_tree(frames=3).config, "train")
    first, last = source[0], source[2]
    np.testing.assert_array_equal(first.exists, [False, True, True])
    np.testing.assert_array_equal(last.exists, [True, True, False])
    assert not first.images[0].any() and not last.images[2].any() and first.images[1:].any()


def test_jpg_preferred_over_png(kitti_tree):
    tree = kitti_tree(frames=3)
    tree.path("image", 0).unlink()
    tree.add_image(0, suffix="jpg")
    tree.add_image(1, suffix="jpg")  # in addition to the png
    images = open_split(tree.config, "train")[1].images
    for frame in range(2):
        assert np.abs(images[frame].astype(int) - tree.images[frame, 2]).mean() < 3
    np.testing.assert_array_equal(images[2], tree.images[2, 2])


def test_masks_none(kitti_tree):
    tree = kitti_tree(frames=3)
    tree.add_mask(1)
    assert open_split(tree.config, "train")[1].masks.any()
    tree.config.masks = "none"
    assert not open_split(tree.config, "train")[1].masks.any()


def test_camera_and_size_per_date(kitti_tree):
    tree = kitti_tree(frames=3)
    other = tree.folder.replace("2011_09_26", "2011_10_03")
    (tree.root / other).parent.mkdir()
    (tree.root / tree.folder).rename(tree.root / other)
    tree.calibrate("2011_10_03", fx=718.856, cx=607.1928, cy=315.2157, size=(620, 1241))  # twice as wide as high, as the images
    tree.write_split("train", [f"{other} 1 l"])
    K = open_split(tree.config, "train")[0].K
    sx, sy = 64 / 1241, 32 / 620
    np.testing.assert_allclose(K[0], [718.856 * sx, 0, 607.6928 * sx - 0.5], rtol=1e-6)
    np.testing.assert_allclose(K[1], [0, 718.856 * sy, 315.7157 * sy - 0.5], rtol=1e-6)


@pytest.mark.parametrize("intrinsics", ["calib", "nominal"])
def test_pictures_that_are_not_of_the_calibration_are_refused(kitti_tree, intrinsics):
    """The size of the pictures is compared with S_rect for each drive, since drives of a date share a calibration."""
    tree = kitti_tree(frames=3, cameras=(2, 3))
    tree.config.intrinsics = intrinsics
    open_split(tree.config, "train")
    tree.size = (28, 60)
    for frame in range(3):
        tree.add_image(frame, camera=3)
    with pytest.raises(ConfigError, match=r"image_03/data/.* has 60 x 28 pixels, but .*\(S_rect_03\) is for 64 x 32: .* cropped"):
        open_split(tree.config, "train")
    tree.size = (50, 72)
    for frame in range(3):
        tree.add_image(frame, camera=3)
    with pytest.raises(ConfigError, match=r"has 72 x 50 pixels, but .* is for 64 x 32: .* distorted, not rectified"):
        open_split(tree.config, "train")
    tree.size = (16, 32)
    for frame in range(3):
        tree.add_image(frame, camera=3)
    source = open_split(tree.config, "train")
    np.testing.assert_allclose(source[len(source) - 1].K, source[0].K)


def test_nominal_camera_needs_no_calibration(kitti_tree):
    tree = kitti_tree(frames=3)
    (tree.root / "2011_09_26/calib_cam_to_cam.txt").unlink()
    with pytest.raises(ConfigError, match=r"calib_cam_to_cam.txt does not exist.*--config.data.intrinsics=nominal"):
        open_split(tree.config, "train")
    tree.config.intrinsics = "nominal"
    K = open_split(tree.config, "train")[0].K
    np.testing.assert_allclose(K, [[0.58 * 64, 0, 32], [0, 1.92 * 32, 16], [0, 0, 1]], rtol=1e-6)


def test_principal_point_outside_image_raises(kitti_tree):
    tree = kitti_tree(frames=3)
    tree.calibrate("2011_09_26", fx=40.0, cx=70.0, cy=14.0)
    with pytest.raises(ConfigError, match=r"calib_cam_to_cam.txt \(P_rect_02\).*cx=70 cy=14.*64 x 32"):
        open_split(tree.config, "train")
    tree.calibrate("2011_09_26", fx=-40.0, cx=30.0, cy=14.0)
    with pytest.raises(ConfigError, match=r"fx=-40"):
        open_split(tree.config, "train")


def test_velodyne_ground_truth(kitti_tree):
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
    np.testing.assert_array_equal(truth.depth, raw.depth_map(*texts, points))
    assert truth.depth.max() > 5
    np.testing.assert_array_equal(truth.dynamic, dynamic)
    np.testing.assert_array_equal(truth.moving, moving)
    assert source.ground_truth(0, "velodyne") is None and source.ground_truth(1, "annotated") is None


@pytest.mark.parametrize("place", ["{folder}", "train/{drive}", "val/{drive}"])
def test_annotated_ground_truth_in_every_layout(kitti_tree, place):
    tree = kitti_tree(frames=3)
    path = tree.root / place.format(folder=tree.folder, drive=tree.folder.split("/")[1])
    path = path / "proj_depth/groundtruth/image_02/0000000001.png"
    path.parent.mkdir(parents=True)
    values = np.random.default_rng(0).integers(0, 20_000, (40, 80)).astype(np.uint16)
    cv2.imwrite(str(path), values)
    truth = open_split(tree.config, "test").ground_truth(1, "annotated")
    np.testing.assert_array_equal(truth.depth, (values / 256).astype(np.float32))
    assert truth.dynamic is None and truth.moving is None


def test_masks_resized_to_ground_truth(kitti_tree):
    tree = kitti_tree(frames=3)
    path = tree.root / tree.folder / "proj_depth/groundtruth/image_02/0000000001.png"
    path.parent.mkdir(parents=True)
    cv2.imwrite(str(path), np.full((64, 128), 256, np.uint16))
    mask = tree.add_mask(1)
    truth = open_split(tree.config, "test").ground_truth(1, "annotated")
    np.testing.assert_array_equal(truth.dynamic, np.kron(mask, np.ones((2, 2), bool)))
    cv2.imwrite(str(path), np.full((64, 128), 25, np.uint8))
    with pytest.raises(
        ConfigError, match=r"0000000001.png \(8 bits per value, grey\) is not a 16-bit grey PNG, or is incomplete: unpack KITTI"
    ):
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
def test_invalid_splits_name_file_and_flag(kitti_tree, lines, complaint):
    tree = kitti_tree(frames=3)
    (tree.root / "splits/train_files.txt").unlink()
    if lines is not None:
        tree.write_split("train", lines)
    with pytest.raises(ConfigError, match=complaint):
        open_split(tree.config, "train")


def test_split_dir_replaces_root_lists(kitti_tree, tmp_path):
    tree = kitti_tree(frames=3)
    (tree.root / "splits").rename(tmp_path / "mine")
    tree.config.split_dir = str(tmp_path / "mine")
    (tmp_path / "mine/train_files.txt").write_text(f"{tree.folder} 0000000002 2\n")
    assert open_split(tree.config, "train").name(0) == f"{tree.folder} 2 l"


@pytest.mark.parametrize("camera, side", [(2, "l"), (3, "r")])
@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize("intrinsics", ["calib", "nominal"])
def test_camera_formats_and_intrinsics(kitti_tree, camera, side, suffix, intrinsics):
    tree = kitti_tree(frames=3, cameras=(camera,), suffix=suffix)
    tree.config.intrinsics = intrinsics
    tree.calibrate("2011_09_26", fx=41.0, cx=28.0, cy=15.0)
    source = open_split(tree.config, "train")
    assert source.name(1) == f"{tree.folder} 1 {side}"
    sample = source[1]
    for frame in range(3):
        assert np.abs(sample.images[frame].astype(int) - tree.images[frame, camera]).mean() < (3 if suffix == "jpg" else 1e-9)
    calibrated, nominal = [[41, 0, 28], [0, 41, 15], [0, 0, 1]], [[0.58 * 64, 0, 32], [0, 1.92 * 32, 16], [0, 0, 1]]
    np.testing.assert_allclose(sample.K, calibrated if intrinsics == "calib" else nominal, rtol=1e-6)


def test_right_camera_depth(kitti_tree):
    """A point 5 m ahead moves to the left by fx * baseline / z, in the image of the right camera."""
    tree = kitti_tree(frames=3, cameras=(2, 3), height=370, width=1242)
    tree.calibrate("2011_09_26", fx=721.5377, cx=609.5593, cy=172.854)
    path = tree.root / tree.folder / "velodyne_points/data/0000000001.bin"
    path.parent.mkdir(parents=True)
    scan((5, 0, 0)).tofile(path)
    tree.config.height, tree.config.width = 32, 64
    source = open_split(tree.config, "test")
    left, right = (source.ground_truth(index, "velodyne").depth for index in (1, 4))
    (_, u_left), (_, u_right) = np.argwhere(left)[0], np.argwhere(right)[0]
    assert abs(u_left - u_right - 721.5377 * 0.5327 / (5 - 0.27)) < 1.5


def eigen_tree(kitti_tree):
    """A tree with one frame of the Eigen test split, and a list of that frame."""
    tree = kitti_tree(frames=4)
    drive = tree.root / tree.folder
    drive.rename(drive.with_name("2011_09_26_drive_0002_sync"))
    tree.folder = "2011_09_26/2011_09_26_drive_0002_sync"
    tree.config.split = "eigen_zhou"
    return tree


def test_named_split_from_raw_folders(kitti_tree, caplog):
    tree = eigen_tree(kitti_tree)
    (tree.root / "splits/test_files.txt").unlink()
    with pytest.raises(ConfigError, match=r"695 of 697 target images of eigen/test_files.txt do not exist, .*0006.jpg"):
        open_split(tree.config, "test")
    (tree.root / "splits/test_files.txt").write_text(f"{tree.folder} 3 l\n")
    source = open_split(tree.config, "test")
    assert len(source) == 1 and source.name(0) == f"{tree.folder} 3 l"
    np.testing.assert_array_equal(source[0].exists, [True, True, False])
    assert "has 1 frames" in caplog.text
    named = tree.root / "splits/eigen_zhou"
    named.mkdir()
    (tree.root / "splits/train_files.txt").rename(named / "train_files.txt")
    with pytest.raises(ConfigError, match=r"train_files.txt: 1 of 4 frames do not belong"):
        open_split(tree.config, "train")


def refused(tree, complaint, kind="velodyne"):
    with pytest.raises(ConfigError, match=complaint):
        open_split(tree.config, "test").ground_truth(1, kind)


@pytest.mark.parametrize("bad", ["nan", "inf", "x", ""])
def test_malformed_calibration_raises(kitti_tree, bad):
    tree = kitti_tree(frames=3)
    path = tree.root / "2011_09_26/calib_cam_to_cam.txt"
    good = path.read_text()
    for key, old in {"P_rect_02": "0.2163791", "S_rect_02": "64 32"}.items():
        path.write_text(good.replace(old, f"{bad} 32" if key[0] == "S" else bad, 1))
        refused(tree, rf"calib_cam_to_cam.txt: {key} must be (12|2) finite numbers: unpack KITTI's archive")
    path.write_text(good)
    scan_file = tree.root / tree.folder / "velodyne_points/data/0000000001.bin"
    scan_file.parent.mkdir(parents=True)
    scan((5, 0, 0)).tofile(scan_file)
    scanner = path.with_name("calib_velo_to_cam.txt")
    before = scanner.read_text()
    scanner.write_text(before.replace("-7.631618e-02", bad))
    refused(tree, r"calib_velo_to_cam.txt: T must be 3 finite numbers: unpack")
    scanner.write_text(before)
    path.write_text(good.replace("9.999239e-01", bad))
    refused(tree, r"calib_cam_to_cam.txt: R_rect_00 must be 9 finite numbers: unpack")


@pytest.mark.parametrize(
    "data, complaint",
    [
        (b"", r"has 0 bytes"),
        (b"\0" * 40, r"has 40 bytes, but a laser scan has 16 per point"),
        (scan((5, 0, 0), (5, float("nan"), 0)).tobytes(), r"1 of 2 points are not finite, the first is 1"),
        (scan((float("inf"), 0, 0)).tobytes(), r"1 of 1 points are not finite"),
    ],
)
def test_damaged_scan_raises(kitti_tree, data, complaint):
    tree = kitti_tree(frames=3)
    path = tree.root / tree.folder / "velodyne_points/data/0000000001.bin"
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    refused(tree, rf"velodyne_points/data/0000000001.bin.*{complaint}.*unpack KITTI's archive")


@pytest.mark.parametrize("keep", [0, 60, -20])
def test_damaged_annotated_depth_raises(kitti_tree, keep):
    tree = kitti_tree(frames=3)
    path = tree.root / tree.folder / "proj_depth/groundtruth/image_02/0000000001.png"
    path.parent.mkdir(parents=True)
    cv2.imwrite(str(path), np.full((32, 64), 256, np.uint16))
    path.write_bytes(path.read_bytes()[:keep])
    refused(tree, r"0000000001.png is not a 16-bit grey PNG, or is incomplete: unpack", "annotated")


def test_damaged_evaluation_mask_raises(kitti_tree):
    tree = kitti_tree(frames=3)
    tree.config.masks = "none"
    path = tree.root / tree.folder / "proj_depth/groundtruth/image_02/0000000001.png"
    path.parent.mkdir(parents=True)
    cv2.imwrite(str(path), np.full((32, 64), 256, np.uint16))
    tree.add_mask(1)
    tree.path("mask", 1).write_bytes(b"")
    refused(tree, r"mask_02/data/0000000001.png cannot be decoded: write it again, or delete it", "annotated")


def test_absent_root_named(kitti_tree):
    config = kitti_tree(frames=1).config
    config.root = "/no/such/place"
    with pytest.raises(ConfigError, match=r"--config.data.root='/no/such/place' is not a folder"):
        open_split(config, "train")
