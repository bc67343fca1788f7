import numpy as np
import pytest

from dd_jax.data.synthetic import textures
from dd_jax.data.synthetic.textures import ID, Atlas


@pytest.fixture(scope="module")
def chart():
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (64, 128, 4), dtype=np.uint8)
    return picture, Atlas({"sky": picture})


def sample(atlas, u, v, wide_u, wide_v):
    f32 = lambda a: np.asarray(a, np.float32)  # noqa: E731
    return atlas.sample(np.full(len(u), ID["sky"], np.int32), f32(u), f32(v), f32(wide_u), f32(wide_v))


def test_texel_centres_return_texels(chart):
    picture, atlas = chart
    row, col = np.mgrid[:64, :128].reshape(2, -1)
    tiny = np.full(len(row), 1e-4)
    got = sample(atlas, (col + 0.5) / 128, (row + 0.5) / 64, tiny, tiny)
    np.testing.assert_allclose(got, picture.reshape(-1, 4), atol=0.05)


def test_texture_repeats(chart):
    _, atlas = chart
    u, v = np.random.default_rng(1).random((2, 50))
    tiny = np.full(50, 1e-3)
    np.testing.assert_allclose(sample(atlas, u, v, tiny, tiny), sample(atlas, u + 3, v - 2, tiny, tiny), atol=0.5)


def test_wide_footprint_averages_own_axis_only(chart):
    picture, atlas = chart
    rows = (np.arange(64) + 0.5) / 64
    got = sample(atlas, np.full(64, 0.3), rows, np.ones(64), np.full(64, 1e-4))
    np.testing.assert_allclose(got, picture.astype(float).mean(1), atol=1.5)
    whole = sample(atlas, np.array([0.2]), np.array([0.7]), np.array([5.0]), np.array([5.0]))
    np.testing.assert_allclose(whole[0], picture.astype(float).mean((0, 1)), atol=2)


def test_detail_is_first_channel():
    grey = np.random.default_rng(2).integers(0, 256, (32, 32, 4), dtype=np.uint8)
    atlas = Atlas({"detail": grey})
    u, v = np.random.default_rng(3).random((2, 40)).astype(np.float32)
    wide = np.full(40, 1 / 16, np.float32)
    whole = atlas.sample(np.full(40, ID["detail"], np.int32), u, v, wide, wide)
    np.testing.assert_array_equal(atlas.sample_detail(u, v, wide, wide), whole[:, 0])


def test_extended_atlas_keeps_textures(chart):
    _, atlas = chart
    both = Atlas({"bark": np.full((8, 8, 4), 77, np.uint8)}, onto=atlas)
    u, v = np.random.default_rng(4).random((2, 20))
    tiny = np.full(20, 1e-3)
    np.testing.assert_array_equal(sample(both, u, v, tiny, tiny), sample(atlas, u, v, tiny, tiny))
    f32 = np.full(3, 0.4, np.float32)
    np.testing.assert_array_equal(both.sample(np.full(3, ID["bark"], np.int32), f32, f32, f32, f32), 77)


def test_texture_size_not_power_of_two_raises():
    with pytest.raises(ValueError, match="powers of two"):
        textures.Atlas({"sky": np.zeros((48, 64, 4), np.uint8)})
