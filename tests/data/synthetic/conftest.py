"""A small data set and a small world, made once per session."""

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest

from dd_jax.data.synthetic import calibration, make, world
from dd_jax.data.synthetic.render import Renderer

SIZE = 96, 320


@pytest.fixture(scope="session")
def drives(tmp_path_factory):
    """Root folder of the preset ``tiny``."""
    root = tmp_path_factory.mktemp("synthetic")
    make(root, "tiny", progress=False)
    return root


@dataclasses.dataclass
class View:
    """A rendered frame with its ground truth."""

    image: np.ndarray
    inverse: np.ndarray
    owner: np.ndarray
    ground: np.ndarray
    moving: np.ndarray
    T_world_cam: np.ndarray


class Street:
    """A world, its renderer at a small size, and rendered frames."""

    def __init__(self, maneuver, seed, frames=16):
        self.K = calibration.intrinsics(*SIZE)
        self.world = world.build(maneuver, frames, np.random.default_rng(seed))
        self.renderer = Renderer(self.world, self.K, *SIZE)

    def view(self, t):
        frame = self.renderer.render(t, np.random.default_rng(t))
        T_world_cam = self.world.ego.T_world_cam[t + 1]
        hits = self.renderer.cast(t, self.renderer.grid, T_world_cam)[0]
        moving = np.concatenate([[False], self.world.moving[:, t + 1]])[frame.owner]
        return View(frame.image, frame.inverse, frame.owner, hits.primitive == -1, moving, T_world_cam)


@pytest.fixture(scope="session")
def street():
    return Street("straight", (5, 0, 1))


def read(folder: Path, kind: str, t: int) -> np.ndarray:
    """A PNG of a drive, RGB if it has colours."""
    picture = cv2.imread(str(folder / kind / f"{t:010d}.png"), cv2.IMREAD_UNCHANGED)
    assert picture is not None, folder / kind
    return picture[..., ::-1] if picture.ndim == 3 else picture


@pytest.fixture(scope="session")
def read_png():
    return read
