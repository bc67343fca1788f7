import dataclasses

import cv2
import numpy as np
import pytest


@pytest.fixture
def drives(kitti_tree):
    """A drive with masks, prior depth, scans and annotated depth; some frames lack some of these."""
    tree = kitti_tree(frames=9, suffix="jpg")
    for frame in range(9):
        tree.add_prior(frame)
        if frame != 4:
            tree.add_mask(frame)
    tree.add_mask(2, kind="moving")
    rng = np.random.default_rng(0)
    scan = np.column_stack([rng.uniform(5, 60, 300), rng.uniform(-20, 20, 300), rng.uniform(-2, 1, 300), np.ones(300)])
    for frame in range(2, 9):
        path = tree.path("velodyne_points", frame).parents[2] / f"velodyne_points/data/{frame:010d}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(scan.astype("<f4").tobytes())
    annotated = tree.root / tree.folder / "proj_depth/groundtruth/image_02"
    annotated.mkdir(parents=True)
    for frame in range(1, 8):
        cv2.imwrite(str(annotated / f"{frame:010d}.png"), rng.integers(0, 2**16, tree.size).astype(np.uint16))
    tree.write_split("train", [f"{tree.folder} {frame} l" for frame in (5, 0, 3, 2, 8)])
    tree.write_split("val", [f"{tree.folder} {frame} l" for frame in (1, 4)])
    tree.write_split("test", [f"{tree.folder} {frame} l" for frame in (7, 6)])
    tree.config = dataclasses.replace(tree.config, height=64, width=96, priors="files")
    return tree
