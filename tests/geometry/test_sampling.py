import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy.ndimage import map_coordinates

from dd_jax.geometry import sampling
from dd_jax.runtime import forms


def scene(rng, height=7, width=9, channels=3, scale=1.3):
    image = rng.standard_normal((2, height, width, channels)).astype(np.float32)
    low, high = -0.3 * np.array([width, height]), scale * np.array([width, height])
    return image, rng.uniform(low, high, (2, 5, 6, 2)).astype(np.float32)


@pytest.mark.parametrize(("sample", "mode"), [(sampling.sample_border, "nearest"), (sampling.sample_zeros, "grid-constant")])
def test_equals_scipy(sample, mode):
    image, coords = scene(np.random.default_rng(0))
    expected = np.empty((*coords.shape[:-1], 3))
    for b in range(2):
        for c in range(3):
            expected[b, ..., c] = map_coordinates(image[b, ..., c], [coords[b, ..., 1], coords[b, ..., 0]], order=1, mode=mode)
    np.testing.assert_allclose(sample(jnp.asarray(image), jnp.asarray(coords)), expected, atol=2e-6)


@pytest.mark.parametrize("sample", [sampling.sample_border, sampling.sample_zeros])
def test_gradients_match_finite_differences(sample):
    image, coords = scene(np.random.default_rng(1))
    coords = np.floor(coords) + 0.25 + 0.5 * (coords - np.floor(coords))  # away from the kinks
    check_grads(
        jax.jit(sample), (jnp.asarray(image), jnp.asarray(coords)), order=1, modes=["rev"], atol=1e-2, rtol=1e-2, eps=1e-2
    )


def test_pixel_centres_return_the_image():
    image, _ = scene(np.random.default_rng(2))
    u, v = np.meshgrid(np.arange(9.0), np.arange(7.0))
    coords = jnp.asarray(np.tile(np.stack([u, v], -1), (2, 1, 1, 1)), jnp.float32)
    for sample in (sampling.sample_border, sampling.sample_zeros):
        np.testing.assert_array_equal(sample(jnp.asarray(image), coords), image)


def test_leading_axes_broadcast_over_images():
    rng = np.random.default_rng(3)
    image, coords = jnp.asarray(scene(rng)[0]), jnp.asarray(np.stack([scene(rng)[1] for _ in range(4)]))
    sample = jax.jit(sampling.sample_border)
    np.testing.assert_array_equal(sample(image, coords), jnp.stack([sample(image, c) for c in coords]))


def test_clamped_coordinates_have_no_gradient():
    image = jnp.asarray(scene(np.random.default_rng(4))[0])
    coords = jnp.full((2, 1, 1, 2), jnp.array([-0.5, 3.3])) + jnp.array([[0.0, 0.0], [30.0, 0.0]])[:, None, None]
    gradient = jax.grad(lambda c: sampling.sample_border(image, c).sum())(coords)
    np.testing.assert_array_equal(gradient[..., 0], 0.0)
    assert np.all(np.asarray(gradient[..., 1]) != 0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e30])
def test_extreme_coordinates_stay_in_bounds(bad):
    image = jnp.asarray(scene(np.random.default_rng(5))[0])
    coords = jnp.full((2, 3, 3, 2), bad)
    border = sampling.sample_border(image, coords)
    assert np.isnan(bad) or np.all(np.isfinite(border))
    assert np.isnan(bad) or np.all(np.asarray(sampling.sample_zeros(image, coords)) == 0)


def test_images_one_pixel_wide():
    image = jnp.arange(4.0).reshape(1, 4, 1, 1)
    values = sampling.sample_border(image, jnp.array([[[[0.0, 1.5], [7.0, 3.0], [-2.0, 9.0]]]]))
    np.testing.assert_allclose(values[0, 0, :, 0], [1.5, 3.0, 3.0])


@pytest.mark.parametrize("shape", [(2, 7, 9, 3), (2, 7, 9, 70), (3, 1, 5, 1), (1, 6, 1, 4)])
@pytest.mark.parametrize("sample", [sampling.sample_border, sampling.sample_zeros])
def test_forms_are_equal(shape, sample):
    rng = np.random.default_rng(6)
    image = jnp.asarray(rng.standard_normal(shape).astype(np.float32))
    coords = jnp.asarray(rng.uniform(-2, 11, (2, shape[0], 4, 5, 2)).astype(np.float32))

    value_and_gradient = jax.jit(jax.value_and_grad(lambda coords: jnp.sum(jnp.square(sample(image, coords)))))
    value, gradient = value_and_gradient(coords)
    for other in ({"sampling": "rows"}, {"images": "batch"}):
        with forms.use(**other):
            other_value, other_gradient = value_and_gradient(coords)
        np.testing.assert_allclose(value, other_value, rtol=1e-6)
        np.testing.assert_allclose(gradient, other_gradient, rtol=1e-5, atol=1e-5)


def test_tpu_form_gathers_each_cell_once():
    image, coords = (jnp.asarray(x) for x in scene(np.random.default_rng(7)))
    traced = jax.jit(sampling.sample_border).trace(image, coords)
    gathers = {
        platform: traced.lower(lowering_platforms=(platform,)).as_text().count('"stablehlo.gather"')
        for platform in ("cpu", "tpu")
    }
    assert gathers == {"cpu": 4, "tpu": 1}


def test_reduced_image_is_the_mean_of_blocks():
    image = np.random.default_rng(3).random((2, 8, 12, 3), np.float32)
    expected = image.reshape(2, 2, 4, 3, 4, 3).mean((2, 4))
    np.testing.assert_allclose(sampling.reduce_image(jnp.asarray(image), 2), expected, atol=1e-6)
    np.testing.assert_array_equal(sampling.reduce_image(jnp.asarray(image), 0), image)


def test_holes_do_not_darken_a_reduced_image():
    holes = np.zeros((1, 4, 4), bool)
    holes[0, 0, 0] = holes[0, 2:, 2:] = holes[0, :2, 2] = True  # a quarter, nothing, all and half of the four blocks
    image = np.where(holes[..., None], 0.0, 0.8).astype(np.float32).repeat(3, -1)
    reduced, reduced_holes = sampling.reduce_image_with_holes(jnp.asarray(image), jnp.asarray(holes), 1)
    np.testing.assert_array_equal(reduced_holes, [[[False, False], [False, True]]])
    np.testing.assert_allclose(reduced[..., 0], [[[0.8, 0.8], [0.8, 0.0]]], rtol=1e-6)
