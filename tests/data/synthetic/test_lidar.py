import numpy as np

from dd_jax.data.synthetic import calibration, lidar


def test_scan_matches_dense_depth(street):
    view = street.view(4)
    points = lidar.scan(street.renderer, 4, np.random.default_rng(0))
    assert points.dtype == np.float32 and 8_000 < len(points) < 40_000
    assert (points[:, 0] > 0).all() and (points[:, 3] >= 0).all() and (points[:, 3] < 1).all()
    camera = points[:, :3].astype(float) @ calibration.T_cam2_velo[:3, :3].T + calibration.T_cam2_velo[:3, 3]
    camera = camera[camera[:, 2] > 1]
    u, v = (np.rint(camera[:, i] / camera[:, 2] * street.K[i, i] + street.K[i, 2]).astype(int) for i in (0, 1))
    h, w = view.inverse.shape
    on = (u >= 0) & (u < w) & (v >= 0) & (v < h)
    dense = view.inverse[v[on], u[on]]
    relative = np.abs(camera[on, 2] * dense - 1)[dense > 0]
    assert len(relative) > 5000
    assert np.median(relative) < 0.01


def test_scan_beam_elevations(street):
    points = lidar.scan(street.renderer, 4, np.random.default_rng(0))[:, :3]
    elevation = np.degrees(np.arctan2(points[:, 2], np.hypot(points[:, 0], points[:, 1])))
    assert -24.4 < elevation.min() < -20 and elevation.max() < 2.01
    assert len(np.unique(np.round(elevation, 2))) <= 64
    ground = points[(np.hypot(points[:, 0], points[:, 1]) < 9) & (np.abs(points[:, 1]) < 1)]
    scanner = street.world.ego.T_world_cam[5] @ calibration.T_cam2_velo
    heights = (ground @ scanner[:3, :3].T + scanner[:3, 3])[:, 1]
    assert np.abs(heights).min() < 0.02
