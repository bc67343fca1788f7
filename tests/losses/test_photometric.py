import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from dd_jax.config import LossConfig
from dd_jax.losses import photometric, ssim
from dd_jax.losses.photometric import combine_sources
from dd_jax.runtime import forms

# Compiled as a whole, which is much faster than compiling each operation.
photometric_error = jax.jit(photometric.photometric_error, static_argnums=2)
target_statistics = jax.jit(ssim.reference)


@jax.jit
def ssim_distance(pred, target):
    return jnp.moveaxis(ssim.distance_of(ssim.moments(ssim.planes(pred), target), target), -3, -1)


def noise(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).random(shape, np.float32))


@jax.jit
def error_of(pred, target):
    return photometric_error(pred, target_statistics(target), 0.85)


def literal_ssim_distance(x, y):
    """SSIM distance of two images (h, w), pixel by pixel in float64."""
    x, y = (np.pad(np.asarray(a, np.float64), 1, mode="reflect") for a in (x, y))
    out = np.zeros((x.shape[0] - 2, x.shape[1] - 2))
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            a, b = x[i : i + 3, j : j + 3], y[i : i + 3, j : j + 3]
            covariance = np.mean(a * b) - a.mean() * b.mean()
            ssim = (2 * a.mean() * b.mean() + 1e-4) * (2 * covariance + 9e-4)
            ssim /= (a.mean() ** 2 + b.mean() ** 2 + 1e-4) * (a.var() + b.var() + 9e-4)
            out[i, j] = np.clip((1 - ssim) / 2, 0, 1)
    return out


def test_ssim_matches_its_definition():
    x, y = noise(0, 1, 5, 7, 3), noise(1, 1, 5, 7, 3)
    ours = ssim_distance(x, target_statistics(y))
    for c in range(3):
        np.testing.assert_allclose(ours[0, ..., c], literal_ssim_distance(x[0, ..., c], y[0, ..., c]), atol=2e-6)


def test_error_of_equal_images_is_zero():
    image = noise(2, 2, 8, 12, 3)
    np.testing.assert_allclose(error_of(image, image), 0, atol=1e-6)


def test_error_is_a_weighted_sum_and_broadcasts_over_the_target():
    pred, target = noise(3, 4, 2, 2, 6, 8, 3), target_statistics(noise(4, 2, 6, 8, 3))
    l1 = photometric_error(pred, target, 0.0)
    mixed = photometric_error(pred, target, 0.85)
    np.testing.assert_allclose(mixed, 0.85 * ssim_distance(pred, target).mean(-1) + 0.15 * l1, atol=1e-6)
    np.testing.assert_allclose(mixed[2, 1], photometric_error(pred[2, 1], target, 0.85), atol=1e-6)


def test_custom_gradient_equals_autodiff():
    target, weights = noise(5, 1, 6, 7, 3), noise(6, 1, 6, 7)
    pred = jnp.clip(target + 0.2 * (noise(7, 1, 6, 7, 3) - 0.5), 0, 1)

    def written_out(pred):
        return jnp.sum(photometric_error(pred, target_statistics(target), 0.85) * weights)

    def automatic(pred):
        mixed = 0.85 * ssim_distance(pred, target_statistics(target)) + 0.15 * jnp.abs(pred - target)
        return jnp.sum(mixed.mean(-1) * weights)

    np.testing.assert_allclose(jax.jit(jax.grad(written_out))(pred), jax.jit(jax.grad(automatic))(pred), atol=2e-5)
    check_grads(jax.jit(written_out), (pred,), order=1, modes=("rev",), atol=5e-2, rtol=5e-2, eps=1e-3)


def test_gradient_is_finite_for_constant_images():
    for a, b in ((0.0, 0.0), (0.5, 0.5), (0.0, 1.0)):
        gradient = jax.grad(lambda p, b=b: error_of(p, jnp.full((1, 6, 8, 3), b)).sum())(jnp.full((1, 6, 8, 3), a))
        assert jnp.isfinite(gradient).all()


def test_images_below_4x4_raise():
    with pytest.raises(ValueError, match="at least 4x4"):
        target_statistics(jnp.zeros((1, 3, 8, 3)))


ERRORS = jnp.array([[0.1, 0.2, 0.3, 0.4], [0.4, 0.3, 0.2, 0.1]]).reshape(2, 1, 1, 4)  # two sources, four pixels
HOLES = jnp.array([[False, True, False, True], [False, False, True, True]]).reshape(2, 1, 1, 4)
BOTH_EXIST = jnp.ones((1, 2), bool)


@pytest.mark.parametrize(
    ("rule", "how", "expected", "seen"),
    [
        ("switch", "min", [0.1, 0.3, 0.3, 0.0], [1, 1, 1, 0]),
        ("switch", "mean", [0.25, 0.3, 0.3, 0.0], [1, 1, 1, 0]),
        ("union", "min", [0.1, 0.0, 0.0, 0.0], [1, 0, 0, 0]),
        ("min", "min", [0.1, 0.2, 0.2, 0.1], [1, 1, 1, 1]),
        ("min", "mean", [0.25, 0.25, 0.25, 0.25], [1, 1, 1, 1]),
    ],
)
def test_occlusion_rule_of_holes(rule, how, expected, seen):
    error, found = combine_sources(ERRORS, BOTH_EXIST, HOLES, LossConfig(occlusion_rule=rule, source_reduce=how))
    np.testing.assert_allclose(error[0, 0], expected, rtol=1e-6)
    np.testing.assert_array_equal(jnp.broadcast_to(found, (1, 1, 4))[0, 0], seen)


@pytest.mark.parametrize("rule", ["switch", "union", "min"])
def test_missing_frames_are_ignored(rule):
    loss = LossConfig(occlusion_rule=rule)
    only_next = jnp.array([[False, True]])
    error, seen = combine_sources(ERRORS, only_next, None, loss)
    np.testing.assert_allclose(error[0, 0], ERRORS[1, 0, 0])
    assert seen.all()
    # Holes of a frame that does not exist have no effect.
    error, seen = combine_sources(ERRORS, only_next, HOLES.at[1].set(False), loss)
    np.testing.assert_allclose(error[0, 0], ERRORS[1, 0, 0])
    assert seen.all()
    error, seen = combine_sources(ERRORS, jnp.array([[False, False]]), HOLES, loss)
    assert not seen.any() and not error.any()


def test_occluded_pixels_have_no_gradient():
    gradient = jax.grad(lambda e: combine_sources(e, BOTH_EXIST, HOLES, LossConfig())[0].sum())(ERRORS)
    np.testing.assert_array_equal(gradient[:, 0, 0], [[1, 0, 1, 0], [0, 1, 0, 0]])


def test_adaptive_error_is_at_most_the_mean_of_both_errors():
    one, two, picture = (jnp.asarray(x) for x in np.random.default_rng(0).uniform(size=(3, 2, 8, 12, 3)).astype(np.float32))
    target = target_statistics(picture)
    usual = photometric.photometric_error(one, target, 0.85)
    np.testing.assert_allclose(photometric.adaptive_error(one, one, target, 0.85), usual, atol=1e-6)
    mean = (usual + photometric.photometric_error(two, target, 0.85)) / 2
    assert (photometric.adaptive_error(one, two, target, 0.85) <= mean + 1e-6).all()


@pytest.mark.parametrize("sources", [1, 3])
def test_forms_are_equal(sources):
    pred, target, weights = noise(30, sources, 2, 9, 12, 3), noise(31, 2, 9, 12, 3), noise(32, sources, 2, 9, 12)

    def values(form):
        with forms.use(images=form):
            error = jax.jit(lambda pred: photometric.photometric_error(pred, ssim.reference(target), 0.85))
            return error(pred), jax.jit(jax.grad(lambda pred: jnp.sum(weights * error(pred))))(pred)

    for looped, batched in zip(values("loop"), values("batch"), strict=True):
        np.testing.assert_allclose(looped, batched, atol=2e-6)
