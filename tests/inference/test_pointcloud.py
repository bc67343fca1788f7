"""Back-projected points, and PLY files that other programs read."""

import io

import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax.geometry.camera import backproject
from dd_jax.inference import pointcloud

K = np.array([[20.0, 0, 7.5], [0, 22.0, 4.5], [0, 0, 1]])


@pytest.fixture
def scene():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (10, 16, 3), dtype=np.uint8), rng.uniform(2, 9, (10, 16)).astype(np.float32)


def test_points_equal_backproject(scene):
    depth = scene[1]
    expected = np.asarray(backproject(jnp.asarray(depth), jnp.asarray(K, jnp.float32)))
    np.testing.assert_allclose(pointcloud.points(depth, K), expected, rtol=1e-5, atol=1e-5)


def test_ply_header_and_vertices(scene):
    image, depth = scene
    header, data = pointcloud.ply(image, depth, K).split(b"end_header\n")
    assert b"format binary_little_endian 1.0\nelement vertex 160\n" in header and len(data) == 160 * 15
    vertices = np.frombuffer(data, pointcloud.VERTEX)
    np.testing.assert_array_equal(vertices["z"].reshape(10, 16), depth)
    np.testing.assert_array_equal(np.stack([vertices[c] for c in ("red", "green", "blue")], -1).reshape(10, 16, 3), image)


def test_trimesh_reads_ply(scene):
    trimesh = pytest.importorskip("trimesh", reason="reading point clouds back needs `pip install -e '.[test]'`")
    image, depth = scene
    cloud = trimesh.load(io.BytesIO(pointcloud.ply(image, depth, K)), file_type="ply")
    points = pointcloud.points(depth, K).reshape(-1, 3)
    np.testing.assert_allclose(cloud.vertices, points, rtol=1e-6)
    np.testing.assert_allclose(cloud.bounds, [points.min(0), points.max(0)], rtol=1e-6)
    np.testing.assert_array_equal(np.asarray(cloud.colors)[:, :3], image.reshape(-1, 3))


def test_invalid_and_far_pixels_are_left_out(scene):
    image, depth = scene
    depth[0, :3] = 0, np.nan, np.inf
    data = pointcloud.ply(image, depth, K, farthest=5.0)
    vertices = np.frombuffer(data.split(b"end_header\n")[1], pointcloud.VERTEX)
    assert len(vertices) == ((depth > 0) & (depth <= 5)).sum() > 0 and vertices["z"].max() <= 5
