"""Writes one drive in the KITTI raw layout, with dense depth, object masks and an imperfect prior."""

import dataclasses
import datetime
import json
import pathlib
import shutil

import cv2
import numpy as np
from jaxtyping import Bool, Float32, UInt16

from dd_jax.data.synthetic import calibration, lidar, world
from dd_jax.data.synthetic.render import Frame, Renderer
from dd_jax.runtime.files import read_json

VERSION = 2
"""Increased whenever the same recipe gives other files."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Everything that determines the content of one drive."""

    name: str  # KITTI drive number, four digits
    split: str
    maneuver: str
    frames: int
    height: int
    width: int
    velodyne: bool
    seed: tuple[int, int, int]  # data set, split, drive
    version: int = VERSION

    @property
    def folder(self) -> str:
        return f"{calibration.DATE}/{calibration.DATE}_drive_{self.name}_sync"


def is_complete(root: pathlib.Path, recipe: Recipe) -> bool:
    """Whether exactly this drive exists under ``root``."""
    try:
        return read_json(root / recipe.folder / "drive.json")["recipe"] == _plain(recipe)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def write_drive(root: pathlib.Path, recipe: Recipe) -> dict:
    """Renders the drive into a temporary folder and renames it; returns its statistics."""
    final = root / recipe.folder
    partial = final.with_name(f".{final.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    scene = world.build(recipe.maneuver, recipe.frames, np.random.default_rng(recipe.seed))
    renderer = Renderer(scene, calibration.intrinsics(recipe.height, recipe.width), recipe.height, recipe.width)
    folders = _folders(partial, recipe)
    shares = []
    for t in range(recipe.frames):
        rng = np.random.default_rng([*recipe.seed, t])
        frame = renderer.render(t, rng)
        moving = np.concatenate([[False], scene.moving[:, t + 1]])[frame.owner]
        _write_frame(folders, f"{t:010d}", frame, moving, rng)
        if recipe.velodyne:
            lidar.scan(renderer, t, rng).tofile(folders["velodyne_points"] / f"{t:010d}.bin")
        shares.append((moving.mean(), (frame.owner > 0).mean(), *np.histogram(1 / frame.inverse[frame.inverse > 0], _DEPTHS)[0]))
    _write_motion(partial, recipe, scene.ego.T_world_cam[1:-1])
    statistics = _statistics(np.array(shares, float), scene, recipe)
    (partial / "drive.json").write_text(json.dumps({"recipe": _plain(recipe), "statistics": statistics}, indent=1))
    shutil.rmtree(final, ignore_errors=True)
    partial.rename(final)
    return statistics


_DEPTHS = (0, 2.5, 5, 10, 20, 40, 80, 260)


def _plain(recipe: Recipe) -> dict:
    return json.loads(json.dumps(dataclasses.asdict(recipe)))


def _folders(drive: pathlib.Path, recipe: Recipe) -> dict[str, pathlib.Path]:
    names = ["image_02", "mask_02", "moving_02", "prior_02", "oxts"] + ["velodyne_points"] * recipe.velodyne
    folders = {name: drive / name / "data" for name in names} | {"depth": drive / "proj_depth" / "groundtruth" / "image_02"}
    for folder in folders.values():
        folder.mkdir(parents=True)
    return folders


def _write_frame(folders, stem: str, frame: Frame, moving: Bool[np.ndarray, "h w"], rng: np.random.Generator) -> None:
    depth = np.where(frame.inverse > 0, np.rint(256 / np.maximum(frame.inverse, 1e-6)), 0)
    for name, image in (
        ("image_02", frame.image[..., ::-1]),
        ("depth", np.where(depth < 65536, depth, 0).astype(np.uint16)),
        ("mask_02", frame.owner),
        ("moving_02", np.where(moving, frame.owner, 0).astype(np.uint8)),
        ("prior_02", prior(frame.inverse, frame.owner, rng)),
    ):
        path = folders[name] / f"{stem}.png"
        if not cv2.imwrite(str(path), image, [cv2.IMWRITE_PNG_COMPRESSION, 1]):
            raise OSError(f"could not write {path}")


def prior(inverse: Float32[np.ndarray, "h w"], owner: np.ndarray, rng: np.random.Generator) -> UInt16[np.ndarray, "h w"]:
    """Simulated prediction of a single-image depth network: blurred inverse depth up to an affine map, with smooth and
    per-object errors."""
    h, w = inverse.shape
    smooth = cv2.resize(rng.standard_normal((4, 8)).astype(np.float32), (w, h), interpolation=cv2.INTER_CUBIC)
    objects = rng.standard_normal(256).astype(np.float32)
    objects[0] = 0
    estimate = inverse * np.exp(0.10 * smooth + 0.06 * objects[owner])
    estimate = cv2.GaussianBlur(estimate, (0, 0), max(0.5, 1.8 * w / calibration.NATIVE[1]))
    estimate = rng.uniform(0.6, 1.0) * estimate / estimate.max() + rng.uniform(0, 0.05)
    return np.clip(estimate * 60000, 0, 65535).astype(np.uint16)


def _write_motion(drive: pathlib.Path, recipe: Recipe, T_world_cam: np.ndarray) -> None:
    for i, line in enumerate(calibration.oxts(T_world_cam)):
        (drive / "oxts" / "data" / f"{i:010d}.txt").write_text(line + "\n")
    start = datetime.datetime(2011, 9, 26, 13, 2, 25)
    stamps = [start + datetime.timedelta(milliseconds=100 * i) for i in range(recipe.frames)]
    text = "".join(f"{stamp:%Y-%m-%d %H:%M:%S.%f}000\n" for stamp in stamps)
    for name in ["image_02", "oxts"] + ["velodyne_points"] * recipe.velodyne:
        (drive / name / "timestamps.txt").write_text(text)
    T_first = np.linalg.inv(T_world_cam[0])
    rows = [" ".join(f"{v:.12e}" for v in (T_first @ T)[:3].ravel()) for T in T_world_cam]
    (drive / "poses.txt").write_text("\n".join(rows) + "\n")


def _statistics(shares: np.ndarray, scene: world.World, recipe: Recipe) -> dict:
    speed = np.linalg.norm(np.diff(scene.ego.T_world_cam[1:-1, :3, 3], axis=0), axis=1)
    moving = {k: int(sum(m[1:-1].any() for m, kind in zip(scene.moving, scene.kinds, strict=True) if kind == k)) for k in
              sorted(set(scene.kinds))}  # fmt: skip
    return {
        "split": recipe.split,
        "maneuver": recipe.maneuver,
        "moving_share": round(float(shares[:, 0].mean()), 4),
        "moving_share_5_50_95": [round(float(v), 4) for v in np.percentile(shares[:, 0], (5, 50, 95))],
        "dynamic_share": round(float(shares[:, 1].mean()), 4),
        "metres_per_frame": round(float(speed.mean()), 3) if len(speed) else 0.0,
        "slowest_frame": round(float(speed.min()), 3) if len(speed) else 0.0,
        "movers": moving,
        "depth_share": {f"<{hi}": round(float(v), 3) for hi, v in zip(_DEPTHS[1:], shares[:, 2:].sum(0) / shares[:, 2:].sum())},
    }
