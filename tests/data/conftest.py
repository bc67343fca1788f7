"""Tiny data sets on disk, made of random images."""

import cv2
import numpy as np
import pytest

from dd_jax.config import Config, DataConfig

DATE, DRIVE = "2011_09_26", "2011_09_26_drive_0001_sync"

CAM_TO_CAM = """calib_time: 09-Jan-2012 13:57:47
corner_dist: 9.950000e-02
S_rect_02: {w} {h}
R_rect_00: 9.999239e-01 9.837760e-03 -7.445048e-03 -9.869795e-03 9.999421e-01 -4.278459e-03 7.402527e-03 4.351614e-03 9.999631e-01
P_rect_02: {fx} 0 {cx} 44.85728 0 {fx} {cy} 0.2163791 0 0 1 0.002745884
S_rect_03: {w} {h}
P_rect_03: {fx} 0 {cx} -339.5242 0 {fx} {cy} 2.199936 0 0 1 0.002729905
"""
VELO_TO_CAM = """calib_time: 15-Mar-2012 11:37:16
R: 7.533745e-03 -9.999714e-01 -6.166020e-04 1.480249e-02 7.280733e-04 -9.998902e-01 9.998621e-01 7.523790e-03 1.480755e-02
T: -4.069766e-03 -7.631618e-02 -2.717806e-01
delta_f: 0.000000e+00 0.000000e+00
"""


def smooth_picture(rng, height, width):
    """Random colours that survive JPEG."""
    small = rng.integers(0, 256, (max(2, height // 16), max(2, width // 16), 3), dtype=np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


class KittiTree:
    """One drive in the raw layout; ``config`` reads it at its native size, so frames come back unchanged from PNG."""

    def __init__(self, root, frames=8, height=32, width=64, suffix="png", cameras=(2,)):
        self.root, self.size, self.suffix = root, (height, width), suffix
        self.folder = f"{DATE}/{DRIVE}"
        self.rng = np.random.default_rng(0)
        self.images, self.masks = {}, {}
        for camera in cameras:
            for frame in range(frames):
                self.add_image(frame, camera)
        self.calibrate(DATE, fx=40.0, cx=30.0, cy=14.0)
        lines = [f"{self.folder} {frame} {'lr'[camera - 2]}" for camera in cameras for frame in range(frames)]
        for split in ("train", "val", "test"):
            self.write_split(split, lines)
        self.config = DataConfig(source="kitti", root=str(root), height=height, width=width, batch_size=4)

    def path(self, kind, frame, camera=2, suffix=None):
        return self.root / self.folder / f"{kind}_0{camera}/data/{frame:010d}.{suffix or self.suffix}"

    def add_image(self, frame, camera=2, suffix=None):
        image = smooth_picture(self.rng, *self.size)
        path = self.path("image", frame, camera, suffix)
        path.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(path), image[..., ::-1])
        self.images[frame, camera] = image

    def add_mask(self, frame, camera=2, kind="mask", values=None):
        mask = self.rng.integers(0, 3, self.size, dtype=np.uint8) if values is None else values
        path = self.path(kind, frame, camera, "png")
        path.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(path), mask)
        self.masks[frame, camera] = mask > 0
        return mask > 0

    def add_prior(self, frame, camera=2):
        prior = self.rng.integers(0, 2**16, self.size, dtype=np.uint16)
        path = self.path("prior", frame, camera, "png")
        path.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(path), prior)
        return prior

    def calibrate(self, date, fx, cx, cy, size=None):
        height, width = size or self.size
        (self.root / date).mkdir(exist_ok=True)
        (self.root / date / "calib_cam_to_cam.txt").write_text(CAM_TO_CAM.format(w=width, h=height, fx=fx, cx=cx, cy=cy))
        (self.root / date / "calib_velo_to_cam.txt").write_text(VELO_TO_CAM)

    def write_split(self, split, lines):
        (self.root / "splits").mkdir(exist_ok=True)
        (self.root / "splits" / f"{split}_files.txt").write_text("".join(f"{line}\n" for line in lines))

    def experiment(self, **data):
        """A whole config around this tree's."""
        config = Config(data=self.config)
        for key, value in data.items():
            setattr(config.data, key, value)
        return config


@pytest.fixture
def kitti_tree(tmp_path):
    """Makes a :class:`KittiTree`."""
    return lambda **kwargs: KittiTree(tmp_path, **kwargs)


@pytest.fixture
def picture():
    """``picture(seed, height, width)``: random colours that survive JPEG."""
    return lambda seed, height, width: smooth_picture(np.random.default_rng(seed), height, width)
