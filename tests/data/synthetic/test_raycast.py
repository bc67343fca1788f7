import numpy as np
import pytest

from dd_jax.data.synthetic import lidar, raycast
from dd_jax.data.synthetic.primitives import DISC, Builder
from dd_jax.data.synthetic.textures import ID

K = np.array([[60.0, 0, 39.5], [0, 60, 23.5], [0, 0, 1]])
STILL = np.eye(3)[None], np.zeros((1, 3))
DOWN = np.array([0.0, 1, 0])


def hits_of(grid, fill, camera_height=1.65, far=250.0):
    """Casts the primitives that ``fill`` adds; the sensor is at the origin of their axes."""
    builder = Builder(np.random.default_rng(0))
    behind = (0, 0, -50)
    builder.ellipsoid(behind, (1, 1, 1), ID["metal"])
    builder.patch(behind, (1, 0, 0), (0, 1, 0), (0, 0, -1), ID["metal"])
    fill(builder)
    patches, quadrics = builder.finish()
    placed = raycast.place(patches, *STILL), raycast.place(quadrics, *STILL)
    return raycast.cast(grid, patches, placed[0], quadrics, placed[1], DOWN, camera_height, far)


def rays(grid):
    return np.stack(np.broadcast_arrays(grid.p[None], grid.q[:, None], grid.s[None]), -1)


GRIDS = {"camera": raycast.pinhole(K, 48, 80), "scanner": lidar.GRID}


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("centre", [(0.3, 0.2, 7.0), (-2.5, 0.1, 4.0), (0.05, -0.02, 1.3), (20.0, 0.5, 40.0)])
def test_ellipsoid_hits_satisfy_equation(name, centre):
    grid, half = GRIDS[name], np.array([0.6, 0.45, 0.8])
    hits = hits_of(grid, lambda b: b.ellipsoid(centre, half, ID["metal"]))
    d = rays(grid) / half
    o = -np.array(centre) / half
    a, b, c = (d * d).sum(-1), d @ o, o @ o - 1
    root = b * b - a * c
    t = (-b - np.sqrt(np.maximum(root, 0))) / a
    above_ground = t * np.maximum(grid.q[:, None], 0) < 1.65
    visible = (root > 0) & (t > 0) & above_ground
    found = hits.primitive >= 0
    edge = np.abs(root) < 1e-4 * a  # silhouettes may differ
    assert (found == visible)[~edge].all()
    np.testing.assert_allclose(hits.inverse[found & ~edge] * t[found & ~edge], 1, rtol=2e-5)
    assert found.any()


def test_thin_far_tube_hit():
    hits = hits_of(raycast.pinhole(K, 48, 80), lambda b: b.tube((2, 1.6, 60), (2, -20, 60), 0.6, ID["metal"]))
    found = hits.primitive >= 0
    columns = np.flatnonzero(found.any(0))
    expected = [u for u in range(80) if abs(np.arctan((u - 39.5) / 60) - np.arctan2(2, 60)) < np.arcsin(0.6 / np.hypot(2, 60))]
    assert columns.tolist() == expected
    depth = 1 / hits.inverse[found]
    assert depth.min() > 59.3 and depth.max() < 60.1


@pytest.mark.parametrize("shape", [0.0, 0.5, DISC])
@pytest.mark.parametrize("tilt", [0.0, 0.9])
def test_patch_hits_in_plane_and_outline(shape, tilt):
    grid = raycast.pinhole(K, 48, 80)
    centre, s, q = np.array([0.4, -0.2, 5.0]), np.array([1.1, 0, 1.1 * tilt]), np.array([0, 0.9, 0.0])
    hits = hits_of(grid, lambda b: b.patch(centre, s, q, (0, 0, -1), ID["metal"], shape=shape))
    found = hits.primitive >= 0
    points = rays(grid) / np.where(hits.inverse > 0, hits.inverse, 1)[..., None]
    normal = np.cross(s, q)
    assert np.abs((points[found] - centre) @ normal).max() < 1e-4
    u, v = (points - centre) @ s / (s @ s), (points - centre) @ q / (q @ q)
    np.testing.assert_allclose(np.abs(hits.s[found]), np.abs(u[found]), atol=1e-4)
    np.testing.assert_allclose(hits.q[found], v[found], atol=1e-4)
    t = (normal @ centre) / (rays(grid) @ normal)  # independent intersection
    point = rays(grid) * t[..., None] - centre
    u, v = point @ s / (s @ s), point @ q / (q @ q)
    size = np.hypot(u, v) if shape == DISC else np.maximum(np.abs(v), np.abs(u) + shape / 2 * (1 - v))
    inside, edge = (size < 1) & (t > 0), np.abs(size - 1) < 1e-3
    inside &= 1 / t > np.maximum(grid.q[:, None] / 1.65, 0)
    assert (found == inside)[~edge].all() and found.sum() > 50


def test_patch_back_not_drawn():
    hits = hits_of(raycast.pinhole(K, 48, 80), lambda b: b.patch((0, 0, 5), (2, 0, 0), (0, 1, 0), (0, 0, 1), ID["metal"]))
    assert (hits.primitive < 0).all()


def test_nearest_surface_wins_in_any_order():
    def near_then_far(b):
        b.patch((0, 0, 4), (1, 0, 0), (0, 1, 0), (0, 0, -1), ID["metal"])
        b.patch((0, 0, 9), (9, 0, 0), (0, 9, 0), (0, 0, -1), ID["metal"])

    def far_then_near(b):
        b.patch((0, 0, 9), (9, 0, 0), (0, 9, 0), (0, 0, -1), ID["metal"])
        b.patch((0, 0, 4), (1, 0, 0), (0, 1, 0), (0, 0, -1), ID["metal"])

    grid = raycast.pinhole(K, 200, 300)  # large enough for both code paths
    a, b = hits_of(grid, near_then_far), hits_of(grid, far_then_near)
    np.testing.assert_array_equal(a.inverse, b.inverse)
    np.testing.assert_allclose((a.inverse[23, 39], a.inverse[23, 79]), (1 / 4, 1 / 9), rtol=1e-6)


def test_near_plane_clips_wall_beside_camera():
    """A wall from behind the camera to far ahead fills every ray that meets it."""
    grid = raycast.pinhole(K, 48, 80)
    hits = hits_of(grid, lambda b: b.wall(2.0, -30, 2.0, 40, (-1, 0, 0), 8.0, ID["concrete"], (1, 1, 1), base=-3.0))
    x = (np.arange(80) - 39.5) / 60
    t = np.where(x > 0, 2 / np.maximum(x, 1e-9), np.inf)
    expected = (t < 40) & (t > raycast.NEAR)
    above = 10  # rows above the horizon where the wall is tall enough
    height_ok = np.abs((above - 23.5) / 60 * t) < 5
    np.testing.assert_array_equal((hits.primitive >= 0)[above], expected & height_ok)


def test_ground_exact_up_to_far():
    grid = raycast.pinhole(K, 48, 80)
    hits = hits_of(grid, lambda b: None, far=100.0)
    rows = (np.arange(48) - 23.5) / 60
    depth = np.where(rows > 0, 1.65 / np.maximum(rows, 1e-9), np.inf)
    np.testing.assert_allclose(hits.inverse[:, 5], np.where(depth < 100, 1 / depth, 0), rtol=1e-7)
    assert (hits.primitive[depth >= 100] == raycast.SKY).all()
