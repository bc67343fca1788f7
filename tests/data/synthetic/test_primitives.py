import numpy as np
import pytest

from dd_jax.data.synthetic.primitives import Builder
from dd_jax.data.synthetic.textures import ID, METRES


@pytest.fixture
def build():
    return Builder(np.random.default_rng(0))


def test_normal_points_outwards_for_any_edge_order(build):
    for outward in ((0, 0, 1), (0, 0, -1)):
        build.patch((1, 2, 3), (2, 0, 0), (0, 1, 0), outward, ID["metal"])
    build.ellipsoid((0, 0, 5), (1, 1, 1), ID["metal"])
    patches, _ = build.finish()
    np.testing.assert_allclose(patches.axes[:, 2], [(0, 0, 1), (0, 0, -1)])
    for axes in patches.axes:
        np.testing.assert_allclose(np.cross(axes[0], axes[1]) / 2, axes[2], atol=1e-6)


def test_tube_ends(build):
    start, end = np.array([1.0, 0, 2]), np.array([0.5, -2, 3])
    build.tube(start, end, 0.1, ID["metal"])
    build.patch((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), ID["metal"])
    _, quadrics = build.finish()
    center, axes = quadrics.center[0], quadrics.axes[0]
    np.testing.assert_allclose(center - axes[1], start, atol=1e-6)
    np.testing.assert_allclose(center + axes[1], end, atol=1e-6)
    np.testing.assert_allclose(axes @ axes.T, np.diag([0.01, axes[1] @ axes[1], 0.01]), atol=1e-6)


def test_wall_texture_metric_and_aligned_with_base(build):
    build.wall(0, 0, 0, 10, (1, 0, 0), 6.4, ID["facade_0"], (1, 1, 1))
    build.ellipsoid((0, 0, 5), (1, 1, 1), ID["metal"])
    patches, _ = build.finish()
    us, _, vs, v0 = patches.uv[0]
    np.testing.assert_allclose(2 * us * METRES[ID["facade_0"]], 10, rtol=1e-6)
    np.testing.assert_allclose(2 * vs * METRES[ID["facade_0"]], 6.4, rtol=1e-6)
    assert v0 + vs == pytest.approx(1)  # the lower edge is the image's lower edge
    assert patches.center[0, 1] == pytest.approx(-3.2)


def test_box_without_bottom_records_owner(build):
    build.owner = 7
    build.box((0, -1, 0), (1, 1, 2), (ID["metal"],) * 4)
    build.ellipsoid((0, 0, 5), (1, 1, 1), ID["metal"])
    patches, quadrics = build.finish()
    assert len(patches) == 5 and set(patches.owner) == set(quadrics.owner) == {7}
    assert patches.axes[:, 2, 1].max() < 0.5


def test_empty_scene_raises(build):
    with pytest.raises(ValueError, match="at least one"):
        build.finish()
