"""This library's KITTI reader compared with ManyDepth's code, on drives rendered at KITTI's size.

The package ``manydepth`` has the ground truth and the preprocessing of single images; its dataset classes are only in a
checkout of its repository, which has to be on PYTHONPATH.
"""

import numpy as np
import pytest
from PIL import Image

from dd_jax.config import DataConfig
from dd_jax.data.kitti import raw
from dd_jax.data.loader import open_split
from dd_jax.data.synthetic import make

# old code on new libraries warns, which is an error in other tests
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

SIZE = 192, 640
PACKAGE = "needs the PyPI package manydepth, torch, torchvision and matplotlib"
CHECKOUT = "needs a checkout of ManyDepth's repository on PYTHONPATH (the PyPI package lacks manydepth.datasets), and torchvision"


@pytest.fixture(scope="module")
def drives(tmp_path_factory):
    root = tmp_path_factory.mktemp("drives")
    make(root, "tiny", height=375, width=1242, workers=1, progress=False)
    return root


@pytest.fixture
def config(drives, monkeypatch):
    """ManyDepth's settings; its code of 2021 uses names that have since been removed."""
    monkeypatch.setattr(np, "int", int, raising=False)
    monkeypatch.setattr(Image, "ANTIALIAS", Image.Resampling.LANCZOS, raising=False)
    height, width = SIZE
    return DataConfig(root=str(drives), height=height, width=width, resize="lanczos", intrinsics="nominal", masks="none")


def names(source):
    return [source.name(index) for index in range(len(source))]


def test_matches_manydepth_dataset(config):
    datasets = pytest.importorskip("manydepth.datasets", reason=CHECKOUT)
    source = open_split(config, "test")
    theirs = datasets.KITTIRAWDataset(config.root, names(source), *SIZE, [0, -1, 1], 4, img_ext=".png")
    assert len(theirs) == len(source) == 10
    for index in range(len(source)):
        ours, sample = source[index], theirs[index]
        for frame in (-1, 0, 1):
            picture = np.rint(sample["color", frame, 0].numpy().transpose(1, 2, 0) * 255)
            np.testing.assert_array_equal(ours.images[frame + 1], picture)
        np.testing.assert_allclose(ours.K, sample["K", 0].numpy()[:3, :3], rtol=1e-6)


def test_missing_neighbour_black_in_both(config, drives):
    datasets = pytest.importorskip("manydepth.datasets", reason=CHECKOUT)
    drive = next(path for path in (drives / "2011_09_26").iterdir() if path.is_dir())
    (drives / "ends").mkdir(exist_ok=True)
    lines = [f"2011_09_26/{drive.name} {frame} l" for frame in (0, 11)]
    (drives / "ends/test_files.txt").write_text("\n".join(lines))
    config.split_dir = str(drives / "ends")
    source = open_split(config, "test")
    theirs = datasets.KITTIRAWDataset(config.root, lines, *SIZE, [0, -1, 1], 4, img_ext=".png")
    for index, missing in ((0, -1), (1, 1)):
        assert not source[index].exists[missing + 1] and source[index].exists.sum() == 2
        for frame in (-1, 0, 1):
            picture = np.rint(theirs[index]["color", frame, 0].numpy().transpose(1, 2, 0) * 255)
            np.testing.assert_array_equal(source[index].images[frame + 1], picture)


def test_matches_manydepth_dataset_ground_truth(config):
    """Ignores the first and last column of the classes' ground truth, which they treat as one column."""
    datasets = pytest.importorskip("manydepth.datasets", reason=CHECKOUT)
    listing = raw.list_split(config, "test")
    arguments = (config.root, listing.names, *SIZE, [0, -1, 1], 4)
    scans, annotated = (kind(*arguments, img_ext=".png") for kind in (datasets.KITTIRAWDataset, datasets.KITTIDepthDataset))
    texts = [(listing.root / f"2011_09_26/calib_{name}.txt").read_text() for name in ("cam_to_cam", "velo_to_cam")]
    for index, name in enumerate(listing.names):
        folder, frame, side = name.split()
        scan = raw.read_scan(listing.root / folder / f"velodyne_points/data/{int(frame):010d}.bin")
        depth = scans.get_depth(folder, int(frame), side, False)
        np.testing.assert_allclose(raw.depth_map(*texts, scan, forward=False)[:, 1:-1], depth[:, 1:-1], rtol=1e-5)
        truth = listing.ground_truth(index, "annotated").depth
        np.testing.assert_array_equal(truth, annotated.get_depth(folder, int(frame), side, False))


def test_matches_manydepth_exported_ground_truth(config):
    """With the scanner's forward coordinate, as in the evaluation of the Eigen split."""
    kitti_utils = pytest.importorskip("manydepth.kitti_utils", reason=PACKAGE)
    listing = raw.list_split(config, "test")
    for index, name in enumerate(listing.names):
        folder, frame, _ = name.split()
        scan = listing.root / folder / f"velodyne_points/data/{int(frame):010d}.bin"
        wanted = kitti_utils.generate_depth_map(str(listing.root / "2011_09_26"), str(scan), 2, True).astype(np.float32)
        ours = listing.ground_truth(index, "velodyne").depth
        assert (ours > 0).sum() > 10_000
        np.testing.assert_array_equal(ours[:, 1:-1], wanted[:, 1:-1])


def test_matches_manydepth_preprocessing(config):
    test_simple = pytest.importorskip("manydepth.test_simple", reason=PACKAGE)
    source = open_split(config, "test")
    folder, frame, _ = source.name(3).split()
    with Image.open(f"{config.root}/{folder}/image_02/data/{int(frame):010d}.png") as file:
        picture, _ = test_simple.preprocess_image(np.asarray(file.convert("RGB")), SIZE[1], SIZE[0])
    wanted = np.rint(picture[0].numpy().transpose(1, 2, 0) * 255)
    np.testing.assert_array_equal(source[3].images[1], wanted)
