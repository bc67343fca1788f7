"""KITTI raw: ``ROOT/DATE/DRIVE_sync/image_02/data/%010d.png|jpg`` and calibration per date.

Beside the images this library keeps ``mask_02/data/%010d.png`` (potentially dynamic objects, nonzero = object; no file = no
object), ``prior_02`` (16-bit inverse depth by another network) and ``moving_02`` (objects that really move, for evaluation).
Camera 3 has its own ``image_03``, ``mask_03``, ...
Geiger et al., "Vision meets Robotics: The KITTI Dataset", 2013.
"""

import functools
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, Float32

from dd_jax.config import ConfigError, DataConfig
from dd_jax.data.frames import Folders, FrameTable, GroundTruth, Listing, frame_file, intrinsics, object_mask
from dd_jax.data.splits import read_kitti, refuse_absent, split_file

NOMINAL = (0.58, 1.92, 0.5, 0.5)
"""The field's constant camera (Monodepth2): fx / W, fy / H, cx / W, cy / H."""


def parse_calibration(text: str) -> dict[str, Float[np.ndarray, " n"] | str]:
    """``key: values`` lines, split at the first colon; values that are not all numbers stay text."""
    values: dict[str, np.ndarray | str] = {}
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            try:
                values[key.strip()] = np.array([float(word) for word in value.split()])
            except ValueError:
                values[key.strip()] = value.strip()
    return values


def depth_map(
    cam_to_cam: str, velo_to_cam: str, points: Float32[np.ndarray, "n 4"], camera: int = 2, forward: bool = True
) -> Float32[np.ndarray, "H W"]:
    """A laser scan seen from a rectified colour camera: metres, 0 = no measurement, the nearest point of a pixel wins.

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
    with np.errstate(divide="ignore", invalid="ignore"):
        u, v = np.round(x / z) - 1, np.round(y / z) - 1
    inside = (u >= 0) & (v >= 0) & (u < width) & (v < height)
    pixels = (v[inside] * width + u[inside]).astype(int)
    depth = np.full(width * height, np.inf)
    np.minimum.at(depth, pixels, (points[:, 0] if forward else z)[inside])
    depth[np.isinf(depth)] = 0
    return np.maximum(depth, 0).reshape(height, width).astype(np.float32)


def list_split(config: DataConfig, split: str) -> Listing:
    """Triplets (t-1, t, t+1) of a split; neighbours that do not exist are marked missing.

    Raises:
      ConfigError: folder, split file, target images or calibration files are absent or make no sense.
    """
    path = split_file(config, split)
    entries = read_kitti(path)
    root = Path(config.root)
    folders, table = Folders(root), FrameTable()
    size = (config.height, config.width)

    def file_of(folder: str, frame: int, camera: int):
        name = f"{frame:010d}"
        image = folders.find(f"{folder}/image_0{camera}/data", f"{name}.jpg", f"{name}.png")
        mask = folders.find(f"{folder}/mask_0{camera}/data", f"{name}.png", f"{name}.npy") if config.masks == "files" else None
        prior = folders.find(f"{folder}/prior_0{camera}/data", f"{name}.png", f"{name}.npy") if config.priors == "files" else None
        return frame_file(image, mask, prior)

    def position(folder: str, frame: int, camera: int) -> int:
        return table.position((folder, frame, camera), functools.partial(file_of, folder, frame, camera))

    triplets = np.array([[position(f, t + step, c) for step in (-1, 0, 1)] for f, t, c in entries], np.int32)
    pictures = (f"{root}/{f}/image_0{c}/data/{t:010d}.jpg|.png" for f, t, c in entries)
    refuse_absent([picture for picture, row in zip(pictures, triplets) if row[1] < 0], len(entries), path)

    if config.intrinsics == "nominal":
        nominal = np.diag([NOMINAL[0] * size[1], NOMINAL[1] * size[0], 1]).astype(np.float32)
        nominal[:2, 2] = NOMINAL[2] * size[1], NOMINAL[3] * size[0]
        camera_of = lambda date, camera: nominal  # noqa: E731
    else:
        camera_of = functools.cache(lambda date, camera: _drive_camera(root / date / "calib_cam_to_cam.txt", camera, size))
    return Listing(
        root=root,
        files=table.files,
        triplets=triplets,
        K=np.stack([camera_of(folder.split("/")[0], camera) for folder, _, camera in entries]),
        names=[f"{folder} {frame} {'lr'[camera - 2]}" for folder, frame, camera in entries],
        ground_truth=_ground_truth(root, entries, config.mask_format),
    )


def _read_calibration(path: Path) -> str:
    if not path.is_file():
        raise ConfigError(
            f"the calibration file {path} does not exist: unpack KITTI's calibration archive below --config.data.root "
            "(training alone can do without: --config.data.intrinsics=nominal)"
        )
    return path.read_text()


def _drive_camera(path: Path, camera: int, size: tuple[int, int]) -> Float32[np.ndarray, "3 3"]:
    calibration = parse_calibration(_read_calibration(path))
    projection, rectified = calibration.get(f"P_rect_0{camera}"), calibration.get(f"S_rect_0{camera}")
    if np.size(projection) != 12 or np.size(rectified) != 2:
        raise ConfigError(f"{path} has no usable P_rect_0{camera} and S_rect_0{camera}")
    (fx, _, cx, _), (_, fy, cy, _), _ = projection.reshape(3, 4)
    return intrinsics(fx, fy, cx, cy, tuple(rectified[::-1]), size, f"{path} (P_rect_0{camera})")


def _ground_truth(
    root: Path, entries: list[tuple[str, int, int]], mask_format: str
) -> Callable[[int, str], GroundTruth | None]:
    @functools.cache
    def texts(date: str) -> tuple[str, str]:
        return _read_calibration(root / date / "calib_cam_to_cam.txt"), _read_calibration(root / date / "calib_velo_to_cam.txt")

    def ground_truth(index: int, kind: str) -> GroundTruth | None:
        folder, frame, camera = entries[index]
        date, drive = folder.split("/")[0], folder.split("/")[-1]
        depth = None
        if kind == "velodyne":
            scan = root / folder / f"velodyne_points/data/{frame:010d}.bin"
            if scan.is_file():
                depth = depth_map(*texts(date), np.fromfile(scan, "<f4").reshape(-1, 4), camera)
        else:
            place = f"proj_depth/groundtruth/image_0{camera}/{frame:010d}.png"
            candidates = [root / folder / place, root / "train" / drive / place, root / "val" / drive / place]
            found = next((path for path in candidates if path.is_file()), None)
            depth = None if found is None else read_annotated(found)
        if depth is None:
            return None
        name = f"0{camera}/data/{frame:010d}.png"
        mask = object_mask(root, f"{folder}/mask_{name}", depth.shape, mask_format)
        return GroundTruth(depth, mask, object_mask(root, f"{folder}/moving_{name}", depth.shape))

    return ground_truth


def read_annotated(path: Path) -> Float32[np.ndarray, "H W"]:
    """KITTI's annotated depth, 16-bit PNG, metres = value / 256, 0 = none (Uhrig et al. 2017).

    Raises:
      ConfigError: not a 16-bit picture.
    """
    values = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if values is None or values.dtype != np.uint16 or values.ndim != 2:
        raise ConfigError(f"{path} is not a 16-bit grey PNG")
    return values.astype(np.float32) / 256
