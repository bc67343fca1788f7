import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax.geometry import se3, splat
from dd_jax.runtime import forms

K = jnp.array([[[20.0, 0.0, 15.5], [0.0, 20.0, 11.5], [0.0, 0.0, 1.0]]])
forward_warp = functools.partial(jax.jit, static_argnums=4)(splat.forward_warp)


def sideways(x=0.0, y=0.0, z=0.0):
    return se3.pose_from_parameters(jnp.zeros((1, 3)), jnp.array([[x, y, z]]))


@pytest.fixture
def toy():
    """An object 8 rows by 10 columns at depth 4 before a wall at depth 10."""
    depth = np.full((1, 24, 32), 10.0, np.float32)
    depth[:, 8:16, 10:20] = 4.0
    mask = (depth == 4.0).astype(np.float32)
    return jnp.asarray(depth), jnp.asarray(mask[..., None])


def test_identity_pose_returns_the_image():
    rng = np.random.default_rng(0)
    image = jnp.asarray(rng.random((2, 24, 32, 3)), jnp.float32)
    depth = jnp.asarray(rng.uniform(1, 30, (2, 24, 32)), jnp.float32)
    warped, near, valid = forward_warp(image, depth, jnp.tile(jnp.eye(4), (2, 1, 1)), jnp.tile(K, (2, 1, 1)), 3)
    assert np.all(valid)
    np.testing.assert_allclose(warped, image, atol=1e-6)
    np.testing.assert_allclose(near, depth, rtol=1e-6)


def test_toy_scene_moves_by_three_columns(toy):
    depth, mask = toy
    warped, near, valid = forward_warp(mask, depth, sideways(x=0.6), K, 3)
    expected = np.roll(np.asarray(mask), 3, axis=2)
    drawn = np.asarray(warped)[..., 0] > 0.5
    assert drawn.sum() == 80
    np.testing.assert_array_equal(drawn, expected[..., 0] == 1)
    near = np.asarray(near)[np.asarray(valid)]
    assert (near.min(), near.max()) == (4.0, 10.0)


def test_disocclusion_is_not_valid(toy):
    depth, _ = toy
    _, near, valid = forward_warp(depth[..., None], depth, sideways(x=0.6), K, 3)
    # The object moves by 3 columns, the wall by 1.2: between them nothing is known.
    np.testing.assert_array_equal(np.asarray(valid)[0, 10, 11:13], False)
    np.testing.assert_array_equal(np.asarray(near)[0, 10, 11:13], 0.0)


def test_nearest_point_wins():
    depth = np.full((1, 24, 32), 10.0, np.float32)
    depth[:, :, 4] = 2.0
    warped, near, _ = forward_warp(jnp.asarray(depth)[..., None], jnp.asarray(depth), sideways(x=1.0), K, 1)
    # Column 4 moves by 10 columns, onto the wall's, which moved by 2.
    np.testing.assert_array_equal(near[0, 1:-1, 14], 2.0)
    np.testing.assert_allclose(warped[0, 1:-1, 14, 0], 2.0, atol=1e-4)
    np.testing.assert_array_equal(near[0, 1:-1, 15], 10.0)


def test_points_just_outside_are_dropped():
    depth = jnp.full((1, 24, 32), 10.0)
    _, hit = splat.splat_depth(depth, sideways(x=-0.25, y=-0.25), K, 1)  # moves by -0.5 pixel: rows and columns from -0.5 on
    assert np.all(np.asarray(hit)[:, :-1, :-1]) and not np.any(np.asarray(hit)[:, -1]) and not np.any(np.asarray(hit)[..., -1])
    near, hit = splat.splat_depth(depth.at[:, :, 0].set(5.0), sideways(x=-0.25), K, 1)
    assert np.all(np.asarray(near)[np.asarray(hit)] == 10.0)  # the first column left the image and hides nothing


VIEWS = {
    "as it is": sideways(),
    "many points in a cell": sideways(z=60.0),
    "holes": sideways(x=0.7, y=-0.3, z=-4.0),
    "out of view": sideways(x=500.0),
    "half behind the camera": sideways(z=-15.0),
}


@pytest.mark.parametrize("view", VIEWS)
def test_forms_of_the_z_buffer_are_equal_bit_by_bit(view):
    rng = np.random.default_rng(1)
    depth = np.stack([rng.uniform(1, 30, (24, 32)), np.full((24, 32), 7.0), rng.choice([4.0, 9.0], (24, 32))])  # with ties
    depth[0, 5, 5] = np.nan
    arguments = jnp.asarray(depth, jnp.float32), jnp.tile(VIEWS[view], (3, 1, 1)), jnp.tile(K, (3, 1, 1))
    splatted = jax.jit(lambda *arguments: splat.splat_depth(*arguments, 3))
    nearest, hit = splatted(*arguments)
    with forms.use(z_buffer="max"):
        other_nearest, other_hit = splatted(*arguments)
    assert np.any(hit) == (view != "out of view")
    np.testing.assert_array_equal(hit, other_hit)
    np.testing.assert_array_equal(nearest, other_nearest)


def test_a_gpu_gets_maxima_without_a_cell_for_points_outside():
    depth = jnp.full((1, 24, 32), 10.0)
    traced = jax.jit(lambda depth: splat.splat_depth(depth, sideways(), K, 1)).trace(depth)
    for platform, cells in {"cpu": 24 * 32 + 1, "cuda": 24 * 32, "tpu": 24 * 32 + 1}.items():
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        assert text.count('"stablehlo.scatter"') == 1 and f"tensor<1x{cells}xf32>" in text


def test_upscaling_closes_gaps():
    depth, closer = jnp.full((1, 24, 32), 10.0), sideways(z=-5.0)
    coarse, fine = (float(jnp.mean(splat.splat_depth(depth, closer, K, upscale)[1])) for upscale in (1, 3))
    assert coarse < 0.5 and fine == 1.0


def test_points_behind_the_camera_stay_finite(toy):
    depth, mask = toy
    warped, near, valid = forward_warp(mask, depth, sideways(z=-6.0), K, 3)
    assert np.all(np.isfinite(warped)) and np.all(np.isfinite(near))
    assert np.all(np.asarray(near)[np.asarray(valid)] > 0)
