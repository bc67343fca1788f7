"""A rotating laser scanner with the beams of the Velodyne HDL-64E, front sector only."""

import numpy as np
from jaxtyping import Float32

from dd_jax.data.synthetic import calibration
from dd_jax.data.synthetic.raycast import Grid
from dd_jax.data.synthetic.render import Renderer

_ELEVATION = np.radians(np.concatenate([2 - np.arange(32) / 3, -8.83 - np.arange(32) * 0.5]))
_AZIMUTH = np.radians(np.arange(-48, 48, 0.1728))
_SENSOR_FROM_VELO = np.array([[0.0, -1, 0], [0, 0, -1], [1, 0, 0]])  # forward, left, up -> right, down, forward
_RANGE = 100.0  # metres

GRID = Grid(np.sin(_AZIMUTH), np.cos(_AZIMUTH), np.tan(-_ELEVATION), spherical=True)


def scan(renderer: Renderer, frame: int, rng: np.random.Generator) -> Float32[np.ndarray, "n 4"]:
    """Points in Velodyne axes (metres, with 1.5 cm range noise and range-dependent drop-out) and reflectance in 0..1."""
    T_world_velo = renderer.world.ego.T_world_cam[frame + 1] @ calibration.T_cam2_velo
    T_world_sensor = T_world_velo.copy()
    T_world_sensor[:3, :3] = T_world_velo[:3, :3] @ _SENSOR_FROM_VELO.T
    hits = renderer.cast(frame, GRID, T_world_sensor)[0]
    along = np.sqrt(1 + GRID.q**2)[:, None]
    with np.errstate(divide="ignore"):
        length = along / hits.inverse
    kept = (length < _RANGE) & (rng.random(length.shape) > 0.02 + 0.5 * (length / _RANGE) ** 2)
    noisy = (length + 0.015 * rng.standard_normal(length.shape)) / along
    row, col = np.nonzero(kept)
    r = noisy[row, col]
    points = np.stack([r * GRID.s[col], -r * GRID.p[col], -r * GRID.q[row]], -1)
    primitive = hits.primitive[row, col]
    tint = np.concatenate([renderer.world.patches.tint, renderer.world.quadrics.tint, np.full((2, 3), 0.7)]).mean(1)
    reflectance = np.clip(0.35 * tint[primitive] + 0.06 * rng.standard_normal(len(row)), 0, 0.99)
    return np.column_stack([points, reflectance]).astype(np.float32)
