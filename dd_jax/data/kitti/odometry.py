"""KITTI odometry: ``ROOT/sequences/%02d/image_2/%06d.png|jpg`` (left), ``image_3`` (right), and ``calib.txt`` per sequence.

Masks and prior depth are beside the images as ``mask_2/%06d.png`` and ``prior_2/%06d.png``, as in ``kitti``. The benchmark has
no depth maps, so there is no ground truth. Geiger et al., "Are we ready for Autonomous Driving?", 2012.
"""

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from dd_jax.config import ConfigError, DataConfig
from dd_jax.data.camera_check import check_pictures
from dd_jax.data.frames import FrameFile, Listing, first_readable, frame_file, intrinsics
from dd_jax.data.kitti import splits
from dd_jax.data.kitti.calibration import AGAIN, nominal_camera, read_calibration
from dd_jax.data.kitti.triplets import images_by_camera, list_triplets
from dd_jax.runtime.files import Folders

CALIBRATION = "calib.txt"

PUBLISHED_SIZES = {718.856: (376, 1241), 721.5377: (375, 1242), 707.0912: (370, 1226)}
"""Focal length of the sequences -> size (height, width) of their images."""


def list_split(config: DataConfig, split: str) -> Listing:
    """Triplets (t-k, t, t+k), k = ``config.frame_step``, of the sequences 00 to 08 (train, val), or 09 and 10 (test).

    Without list files, an extract of these sequences is enough.

    Raises:
      ConfigError: folder, lists, target images or calibration files are absent or invalid.
    """
    root, folders = Path(config.root), Folders(Path(config.root))
    size = (config.height, config.width)

    def file_of(sequence: str, frame: int, camera: int) -> FrameFile | None:
        base, name = sequence_folder(sequence), f"{frame:06d}"
        image = folders.find(f"{base}/image_{camera}", f"{name}.jpg", f"{name}.png")
        mask = folders.find(f"{base}/mask_{camera}", f"{name}.png", f"{name}.npy") if config.masks == "files" else None
        prior = folders.find(f"{base}/prior_{camera}", f"{name}.png", f"{name}.npy") if config.priors == "files" else None
        return frame_file(image, mask, prior)

    def image_path(sequence: str, frame: int, camera: int) -> str:
        return f"{root}/{sequence_folder(sequence)}/image_{camera}/{frame:06d}.jpg|.png"

    entries, source = splits.read(config, split, exists=lambda *entry: file_of(*entry) is not None)
    files, triplets = list_triplets(entries, file_of, image_path, source, config.frame_step)
    images = images_by_camera(root, entries, files, triplets)

    @functools.cache
    def camera_of(sequence: str, camera: int) -> Float32[np.ndarray, "3 3"]:
        if config.intrinsics == "nominal":
            return nominal_camera(size)
        return sequence_camera(root / sequence_folder(sequence) / CALIBRATION, camera, images[sequence, camera], size)

    return Listing(
        root=root,
        files=files,
        triplets=triplets,
        K=np.stack([camera_of(sequence, camera) for sequence, _, camera in entries]),
        names=splits.lines(entries),
        ground_truth=lambda index, kind: None,
    )


def sequence_folder(sequence: str) -> str:
    """Folder of a sequence, relative to the root."""
    return f"sequences/{int(sequence):02d}"


def sequence_camera(path: Path, camera: int, images: Sequence[Path], target: tuple[int, int]) -> Float32[np.ndarray, "3 3"]:
    """Intrinsics of a camera at the ``target`` size (height, width) from a ``calib.txt``, which does not state the images' size.

    Raises:
      ConfigError: the file is absent or invalid, no image can be read to find the size, or it is not that of the calibration.
    """
    key = f"P{camera}"
    (fx, _, cx, _), (_, fy, cy, _), _ = read_calibration(path, **{key: 12})[key].reshape(3, 4)
    found = first_readable(images)
    if found is None:
        raise ConfigError(
            f"none of {len(images)} frames like {images[0]} can be read to find the image size of the sequence: {AGAIN}"
        )
    image, size = found
    published = next((size for focal, size in PUBLISHED_SIZES.items() if abs(fx - focal) < 1e-3), size)
    check_pictures(image, size, published, f"{path} ({key})")
    return intrinsics(fx, fy, cx, cy, published, target, f"{path} ({key})")
