import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax.config import ScDepthConfig
from dd_jax.losses.sc_depth import (
    Comparison,
    best_source,
    compare,
    mean_inconsistency,
    mean_photometric,
    static_weight,
    valid_planes,
)
from dd_jax.method.sc_depth import compare_pair

H, W = 16, 24
SC = ScDepthConfig()
K = jnp.array([[[20.0, 0, 11.5], [0, 20, 7.5], [0, 0, 1]]])


def picture(seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(1, H, W, 3)).astype(np.float32))


def sideways(shift):
    return jnp.eye(4)[None].at[0, 0, 3].set(shift)


def wall(depth=5.0):
    return jnp.full((1, H, W), depth)


def maps(valid, colour=1.0, photometric=1.0, inconsistency=0.0):
    valid = jnp.asarray(valid)
    return Comparison(
        *(jnp.broadcast_to(jnp.asarray(x, jnp.float32), valid.shape) for x in (colour, photometric, inconsistency)), valid
    )


def test_static_wall_after_sideways_motion_has_no_error():
    image = picture()
    other = jnp.roll(image, 4, axis=2)  # a step of one unit: 20 / 5 = 4 pixels
    found = compare_pair((image, wall()), (other, wall()), K, sideways(1.0), jnp.array([True]), SC)
    np.testing.assert_allclose(found.photometric[:, :, : W - 7], 0, atol=1e-5)  # SSIM's window reaches three pixels out
    np.testing.assert_allclose(found.inconsistency[:, :, : W - 4], 0, atol=1e-6)
    assert found.valid[:, :, : W - 4].all() and not found.valid[:, :, W - 4 :].any()


def test_inconsistent_depths_reduce_the_photometric_weight():
    image, other = picture(), picture(1)
    near = compare_pair((image, wall()), (other, wall()), K, sideways(0.5), jnp.array([True]), SC)
    far = compare_pair((image, wall()), (other, wall(10.0)), K, sideways(0.5), jnp.array([True]), SC)
    inside = np.s_[:, :, : W - 2]
    np.testing.assert_allclose(far.inconsistency[inside], 1 / 3, rtol=1e-5)
    np.testing.assert_allclose(far.photometric[inside], near.photometric[inside] * 2 / 3, rtol=1e-4)


def test_points_behind_the_camera_and_missing_frames_are_invalid():
    image, other = picture(), picture(1)
    turned = jnp.diag(jnp.array([-1.0, 1, -1, 1]))[None]
    assert not compare_pair((image, wall()), (other, wall()), K, turned, jnp.array([True]), SC).valid.any()
    assert not compare_pair((image, wall()), (other, wall()), K, sideways(0.1), jnp.array([False]), SC).valid.any()


def test_auto_mask_drops_static_pixels():
    image = picture()
    same = compare(image, image, image, wall(), wall(), jnp.ones((1, H, W), bool), SC)
    assert not same.valid.any() and not same.inconsistency.any()
    np.testing.assert_allclose(same.photometric, 0, atol=1e-6)


def test_best_takes_the_valid_source_with_the_smallest_colour_difference():
    valid = jnp.array([[[[True, True, False, False]]], [[[True, False, True, False]]]])
    colour = jnp.array([[[[2.0, 9.0, 0.1, 1.0]]], [[[1.0, 0.1, 9.0, 1.0]]]])
    pairs = maps(valid).replace(colour=colour, photometric=10 * colour)
    found = best_source(pairs)
    np.testing.assert_allclose(found.photometric[0, 0, :3], [10, 90, 90])
    np.testing.assert_array_equal(found.valid[0, 0], [True, True, True, False])


def test_means_are_over_valid_pixels_of_all_planes():
    valid = jnp.ones((2, 1, H, W), bool)
    target, sources = maps(valid, photometric=1.0, inconsistency=0.2), maps(valid, photometric=4.0, inconsistency=0.5)
    planes = valid_planes(target, sources, SC, None)
    assert mean_photometric(planes, None) == pytest.approx(3.0)  # one map against two
    assert mean_inconsistency(planes, None) == pytest.approx(0.4)
    few = maps(valid.at[:].set(False).at[:, 0, 0, :10].set(True))
    planes = valid_planes(few, few, SC, None)
    assert mean_photometric(planes, None) == mean_inconsistency(planes, None) == 0


def test_static_weight_is_one_where_sources_agree_or_are_invalid():
    valid = jnp.array([[[[True, True, False]]], [[[True, False, False]]]])
    np.testing.assert_allclose(static_weight(maps(valid, inconsistency=0.4)), [[[0.6, 0.8, 1.0]]], rtol=1e-6)


def test_gradients_are_finite_for_constant_images():
    def cost(depth, other_depth, shift):
        found = compare_pair(
            (jnp.zeros((1, H, W, 3)), depth), (jnp.zeros((1, H, W, 3)), other_depth), K, sideways(shift), jnp.array([True]), SC
        )
        return jnp.sum(found.photometric) + jnp.sum(found.inconsistency)

    for gradient in jax.jit(jax.grad(cost, (0, 1, 2)))(wall(), wall(), jnp.float32(0.0)):
        assert jnp.isfinite(gradient).all()
