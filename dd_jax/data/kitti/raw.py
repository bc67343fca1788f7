"""KITTI raw: ``ROOT/DATE/DRIVE_sync/image_02/data/%010d.png|jpg`` and calibration per date.

This library adds ``mask_02/data/%010d.png`` (potentially dynamic objects, nonzero = object; no file = no object), ``prior_02``
(16-bit inverse depth by another network) and ``moving_02`` (objects in motion, for evaluation). Camera 3 has ``image_03``,
``mask_03``, ...
Geiger et al., "Vision meets Robotics: The KITTI Dataset", 2013.
"""

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from dd_jax.config import ConfigError, DataConfig
from dd_jax.data import ground_truth_file, published_order
from dd_jax.data.frames import FrameFile, GroundTruth, Listing, UnreadableFrame, decode_depth, frame_file, object_mask
from dd_jax.data.kitti import odometry, splits
from dd_jax.data.kitti.calibration import (
    AGAIN,
    CALIBRATION,
    check_rectified,
    drive_camera,
    nominal_camera,
    parse_calibration,
    read_calibration,
)
from dd_jax.data.kitti.splits import Entry
from dd_jax.data.kitti.triplets import images_by_camera, list_triplets
from dd_jax.runtime.files import Folders


def depth_map(
    cam_to_cam: str, velo_to_cam: str, points: Float32[np.ndarray, "n 4"], camera: int = 2, forward: bool = True
) -> Float32[np.ndarray, "H W"]:
    """A laser scan projected into a rectified colour camera: metres, 0 = no measurement, nearest point per pixel.

    ``cam_to_cam`` and ``velo_to_cam`` are the texts of the calibration files. ``forward`` stores the scanner's forward
    coordinate, as the ground truth of the Eigen split does, instead of the camera's depth. Pixels are ``round(u) - 1``,
    the convention of KITTI's Matlab tools (Eigen et al. 2014; Monodepth2's ground-truth export).
    """
    cameras, scanner = parse_calibration(cam_to_cam), parse_calibration(velo_to_cam)
    rectify, camera_from_velo = np.eye(4), np.eye(4)
    rectify[:3, :3] = cameras["R_rect_00"].reshape(3, 3)
    camera_from_velo[:3, :3] = scanner["R"].reshape(3, 3)
    camera_from_velo[:3, 3] = scanner["T"]
    projection = cameras[f"P_rect_0{camera}"].reshape(3, 4) @ rectify @ camera_from_velo
    width, height = cameras["S_rect_02"].astype(int)

    points = points[points[:, 0] >= 0]
    homogeneous = np.column_stack([points[:, :3], np.ones(len(points))])
    x, y, z = projection @ homogeneous.T
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        u, v = np.round(x / z) - 1, np.round(y / z) - 1
    inside = (u >= 0) & (v >= 0) & (u < width) & (v < height)
    pixels = (v[inside] * width + u[inside]).astype(int)
    depth = np.full(width * height, np.inf)
    np.minimum.at(depth, pixels, (points[:, 0] if forward else z)[inside])
    depth[np.isinf(depth)] = 0
    return np.maximum(depth, 0).reshape(height, width).astype(np.float32)


def list_split(config: DataConfig, split: str) -> Listing:
    """Triplets (t-k, t, t+k) of a split, k = ``config.frame_step``; absent neighbours are MISSING.

    Raises:
      ConfigError: folder, split file, target images or calibration files are absent or invalid.
    """
    if config.split == "odom":
        return odometry.list_split(config, split)
    entries, source = splits.read(config, split)
    root, folders = Path(config.root), Folders(Path(config.root))
    size = (config.height, config.width)

    def file_of(folder: str, frame: int, camera: int) -> FrameFile | None:
        name = f"{frame:010d}"
        image = folders.find(f"{folder}/image_0{camera}/data", f"{name}.jpg", f"{name}.png")
        mask = folders.find(f"{folder}/mask_0{camera}/data", f"{name}.png", f"{name}.npy") if config.masks == "files" else None
        prior = folders.find(f"{folder}/prior_0{camera}/data", f"{name}.png", f"{name}.npy") if config.priors == "files" else None
        return frame_file(image, mask, prior)

    def image_path(folder: str, frame: int, camera: int) -> str:
        return f"{root}/{folder}/image_0{camera}/data/{frame:010d}.jpg|.png"

    files, triplets = list_triplets(entries, file_of, image_path, source, config.frame_step)
    images = images_by_camera(root, entries, files, triplets)

    @functools.cache
    def camera_of(folder: str, camera: int) -> Float32[np.ndarray, "3 3"]:
        path = root / folder.split("/")[0] / CALIBRATION
        if config.intrinsics == "nominal":
            check_rectified(path, camera, images[folder, camera])
            return nominal_camera(size)
        return drive_camera(path, camera, images[folder, camera], size)

    names = splits.lines(entries)
    out_of_order = published_order.other_order(names) if config.split else ""  # custom lists define their own order
    from_file = ground_truth_file.of_split(config, split, names, out_of_order)
    truth = _GroundTruth(root, entries, from_file, config.mask_format, [root / files[row[1]].image for row in triplets])
    return Listing(
        root=root,
        files=files,
        triplets=triplets,
        K=np.stack([camera_of(folder, camera) for folder, _, camera in entries]),
        names=names,
        ground_truth=truth,
        truth_files=truth.files,
        out_of_order=out_of_order,
        measured=truth.depth,
    )


def read_scan(path: Path) -> Float32[np.ndarray, "n 4"]:
    """A laser scan: x forward, y left, z up in metres, and reflectance.

    Raises:
      ConfigError: empty, truncated, or with values that are not finite.
    """
    data = path.read_bytes()
    if not data or len(data) % 16:
        raise ConfigError(f"{path} has {len(data)} bytes, but a laser scan has 16 per point and is not empty: {AGAIN}")
    points = np.frombuffer(data, "<f4").reshape(-1, 4)
    bad = ~np.isfinite(points).all(axis=1)
    if bad.any():
        raise ConfigError(f"{path}: {bad.sum()} of {len(points)} points are not finite, the first is {bad.argmax()}: {AGAIN}")
    return points


def read_annotated(path: Path, remedy: str = AGAIN) -> Float32[np.ndarray, "H W"]:
    """KITTI's annotated depth, 16-bit PNG, metres = value / 256, 0 = none (Uhrig et al. 2017); ``remedy`` for other files.

    Raises:
      ConfigError: damaged, or not a 16-bit image.
    """
    try:
        return decode_depth(path).astype(np.float32) / 256
    except UnreadableFrame as error:
        raise ConfigError(f"{error} is not a 16-bit grey PNG, or is incomplete: {remedy}") from error


class _GroundTruth:
    """Ground truth of the target frames of ``entries``, whose ``images`` it must show as a whole, and its files."""

    def __init__(
        self,
        root: Path,
        entries: list[Entry],
        from_file: Callable[[int], Float32[np.ndarray, "H W"] | None],
        mask_format: str,
        images: list[Path],
    ):
        self.root, self.entries, self.from_file, self.mask_format, self.images = root, entries, from_file, mask_format, images
        self.texts = functools.cache(self._texts)

    def _texts(self, date: str, camera: int) -> tuple[str, str]:
        cameras, scanner = self.root / date / CALIBRATION, self.root / date / "calib_velo_to_cam.txt"
        read_calibration(cameras, **{"R_rect_00": 9, f"P_rect_0{camera}": 12, "S_rect_02": 2})
        read_calibration(scanner, R=9, T=3)
        return cameras.read_text(errors="replace"), scanner.read_text(errors="replace")

    def _measured(self, index: int) -> dict[str, list[Path]]:
        """Candidate files for the depth of each kind; the first one that exists is used."""
        folder, frame, camera = self.entries[index]
        place = f"proj_depth/groundtruth/image_0{camera}/{frame:010d}.png"
        drive = folder.split("/")[-1]
        annotated = [self.root / home / place for home in (folder, f"train/{drive}", f"val/{drive}")]
        return {"velodyne": [self.root / folder / f"velodyne_points/data/{frame:010d}.bin"], "annotated": annotated}

    def _mask(self, index: int, kind: str) -> str:
        folder, frame, camera = self.entries[index]
        return f"{folder}/{kind}_0{camera}/data/{frame:010d}.png"

    def files(self, index: int) -> list[Path]:
        """Candidate files for a frame's ground truth; some do not exist."""
        measured = self._measured(index)
        masks = [self.root / self._mask(index, kind) for kind in ("mask", "moving")]
        return [*measured["velodyne"], *measured["annotated"], *masks, *(path.with_suffix(".npy") for path in masks)]

    def __call__(self, index: int, kind: str) -> GroundTruth | None:
        """Depth of a kind, with potentially dynamic and moving objects; None if there is no such file."""
        depth = self.depth(index, kind)
        if depth is None:
            return None
        dynamic = object_mask(self.root, self._mask(index, "mask"), depth.shape, self.mask_format)
        return GroundTruth(depth, dynamic, object_mask(self.root, self._mask(index, "moving"), depth.shape))

    def depth(self, index: int, kind: str) -> Float32[np.ndarray, "H W"] | None:
        """Depth of a kind, without masks."""
        if kind == "file":
            depth = self.from_file(index)
            return depth if depth is None else ground_truth_file.checked_view(depth, self.images[index])
        folder, _, camera = self.entries[index]
        found = next((path for path in self._measured(index)[kind] if path.is_file()), None)
        if found is None or kind == "annotated":
            return None if found is None else ground_truth_file.checked_view(read_annotated(found), self.images[index])
        return depth_map(*self.texts(folder.split("/")[0], camera), read_scan(found), camera)
