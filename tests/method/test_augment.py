import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from skimage.color import hsv2rgb, rgb2hsv

from dd_jax.config import AugmentConfig
from dd_jax.method.augment import augment, jitter
from dd_jax.runtime import forms
from dd_jax.types import Batch

H, W = 8, 12
BOTH = AugmentConfig()
FLIP = AugmentConfig(flip=1.0, jitter=0.0)
JITTER = AugmentConfig(flip=0.0, jitter=1.0)
ZOOM = AugmentConfig(flip=0.0, jitter=0.0, zoom=1.5)
augment_flip = jax.jit(partial(augment, config=FLIP, train=True))
augment_both = jax.jit(partial(augment, config=BOTH, train=True))
augment_colour = jax.jit(partial(augment, config=JITTER, train=True))


def make_batch(samples=8, frames=3, seed=0):
    rng = np.random.default_rng(seed)
    K = np.tile(np.array([[9, 0.5, 4], [0, 10, 3], [0, 0, 1]], np.float32), (samples, 1, 1))
    return jax.device_put(
        Batch(
            images=rng.integers(0, 256, (samples, frames, H, W, 3), dtype=np.uint8),
            masks=rng.random((samples, frames, H, W)) < 0.4,
            K=K,
            exists=rng.random((samples, frames)) < 0.9,
            seed=rng.integers(2**32, size=samples, dtype=np.uint32),
        )
    )


def grey(image):
    return (image @ np.array([0.2989, 0.587, 0.114]))[..., None]


def reference_jitter(frames, draws, config):
    """torchvision's definitions on (f, h, w, 3), in float64."""
    x = frames.astype(np.float64)
    brightness, contrast, saturation = (
        1 + limit * (2 * draw - 1) for limit, draw in zip((config.brightness, config.contrast, config.saturation), draws[1:4])
    )
    turn = config.hue * (2 * draws[4] - 1)
    for operation in np.argsort(draws[5:9]):
        if operation == 0:
            x = brightness * x
        elif operation == 1:
            x = contrast * x + (1 - contrast) * grey(x).mean(axis=(1, 2, 3), keepdims=True)
        elif operation == 2:
            x = saturation * x + (1 - saturation) * grey(x)
        else:
            hsv = rgb2hsv(x)
            hsv[..., 0] = (hsv[..., 0] + turn) % 1
            x = hsv2rgb(hsv)
        x = np.clip(x, 0, 1)
    return x


@pytest.mark.parametrize("form", forms.OPERATIONS["jitter"])
def test_jitter_equals_torchvision_in_all_24_orders(form):
    rng = np.random.default_rng(0)
    images = rng.random((24, 2, H, W, 3), dtype=np.float32)
    images[:, :, :2] = np.round(images[:, :, :2])  # pure colours and greys: ties in the hue, clamping
    images[:, 1, 3] = images[:, 1, 3, :, :1]
    draws = rng.random((24, 9), dtype=np.float32)
    draws[:, 0] = 0
    draws[:, 5:] = np.array(list(itertools.permutations((0.1, 0.3, 0.5, 0.9))))
    config = AugmentConfig(brightness=0.5, contrast=0.6, saturation=0.9, hue=0.4)
    with forms.use(jitter=form):
        result = np.asarray(jax.jit(lambda images, draws: jitter(images, draws, config))(images, draws))
    for sample in range(24):
        expected = reference_jitter(images[sample], draws[sample], config)
        np.testing.assert_allclose(result[sample], expected, atol=2e-5, err_msg=f"order {draws[sample, 5:]}")


@pytest.mark.parametrize("probability", [0.0, 0.5, 1.0])
def test_forms_of_the_jitter_are_equal(probability):
    rng = np.random.default_rng(1)
    images, draws = rng.random((6, 3, H, W, 3), np.float32), rng.random((6, 9), np.float32)
    images[0], images[1, :, :, :2] = 0, 0.5  # black, and grey: hue without meaning
    config = AugmentConfig(jitter=probability)
    colours = jax.jit(lambda images, draws: jitter(images, draws, config))
    found = np.asarray(colours(images, draws))
    with forms.use(jitter="batch"):
        other = np.asarray(colours(images, draws))
    np.testing.assert_allclose(other, found, atol=1e-6)
    kept = draws[:, 0] >= probability
    np.testing.assert_array_equal(other[kept], images[kept])


def test_evaluation_only_scales():
    batch = make_batch()
    result = augment(batch, BOTH, train=False)
    np.testing.assert_allclose(result.images, np.asarray(batch.images) / np.float32(255), rtol=1e-6)
    assert result.inputs is result.images and result.images.dtype == jnp.float32
    for name in ("masks", "K", "exists", "seed"):
        np.testing.assert_array_equal(getattr(result, name), getattr(batch, name))


def test_flip_mirrors_images_masks_and_principal_point():
    batch = make_batch()
    result = augment_flip(batch)
    plain = augment(batch, FLIP, train=False)
    np.testing.assert_array_equal(result.images, plain.images[..., ::-1, :])
    np.testing.assert_array_equal(result.masks, batch.masks[..., ::-1])
    np.testing.assert_allclose(result.K[:, 0], np.tile([9, -0.5, W - 1 - 4], (8, 1)))
    np.testing.assert_array_equal(result.K[:, 1:], batch.K[:, 1:])
    np.testing.assert_array_equal(result.exists, batch.exists)
    np.testing.assert_array_equal(result.seed, batch.seed)
    np.testing.assert_array_equal(result.inputs, result.images)


def test_flip_preserves_rays():
    """Pixel u of the mirrored image is pixel W-1-u of the original: its ray has the opposite x."""
    batch = make_batch()
    mirrored = augment_flip(batch).K
    pixels = np.array([[3.0, 5.0, 1.0], [W - 1 - 3.0, 5.0, 1.0]])
    original = np.linalg.solve(np.asarray(batch.K[0], np.float64), pixels[0])
    np.testing.assert_allclose(np.linalg.solve(np.asarray(mirrored[0], np.float64), pixels[1]), original * [-1, 1, 1], rtol=1e-6)


def test_half_of_the_samples_are_flipped_and_half_are_jittered():
    batch = make_batch()
    plain = np.asarray(batch.images, np.float32) / np.float32(255)
    turned, untouched = [], []
    for seed in range(50):
        result = augment_both(batch.replace(seed=jnp.arange(8 * seed, 8 * seed + 8, dtype=jnp.uint32)))
        straight, mirrored = (np.isclose(result.images, x, rtol=1e-6).all((1, 2, 3, 4)) for x in (plain, plain[..., ::-1, :]))
        assert np.all(straight ^ mirrored)
        np.testing.assert_array_equal(mirrored, np.asarray(result.K[:, 0, 2]) == W - 1 - 4)
        turned += mirrored.tolist()
        untouched += np.asarray(result.inputs == result.images).all((1, 2, 3, 4)).tolist()
    both = np.logical_and(turned, untouched)
    assert 0.4 < np.mean(turned) < 0.6 and 0.4 < np.mean(untouched) < 0.6 and 0.2 < both.mean() < 0.3


def test_augmentation_does_not_depend_on_batch_position():
    batch = make_batch()
    order = np.array([3, 1, 7, 0, 5, 2, 6, 4])
    moved = augment_both(jax.tree.map(lambda x: x[order], batch))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b[order], atol=1e-6), moved, augment_both(batch))


def test_frames_of_a_triplet_share_the_jitter():
    batch = make_batch()
    same = batch.replace(images=jnp.repeat(batch.images[:, :1], 3, axis=1))
    result = augment_colour(same)
    inputs = result.inputs
    np.testing.assert_allclose(inputs[:, 0], inputs[:, 1], atol=1e-6)
    np.testing.assert_allclose(inputs[:, 0], inputs[:, 2], atol=1e-6)
    assert np.abs(inputs - result.images).max() > 0.02


def test_missing_frames_stay_black():
    batch = make_batch()
    batch = batch.replace(images=batch.images.at[:, 0].set(0))
    inputs = augment_colour(batch).inputs
    assert not inputs[:, 0].any() and inputs[:, 1:].any(axis=(2, 3, 4)).all()


@pytest.mark.parametrize("number", [2, 4, 8])
@pytest.mark.parametrize("how", ["pmap", "jit"])
def test_augmentation_does_not_depend_on_devices(how, number):
    devices = jax.local_devices()[:number]
    assert len(devices) == number
    batch = make_batch()
    one = augment_both(batch)
    mesh = jax.make_mesh((number,), ("batch",), axis_types=(AxisType.Auto,), devices=devices)
    split = NamedSharding(mesh, PartitionSpec("batch"))
    if how == "pmap":
        shares = jax.device_put(jax.tree.map(lambda x: np.reshape(x, (number, -1, *x.shape[1:])), batch), split)
        many = jax.pmap(partial(augment, config=BOTH, train=True), devices=devices)(shares)
        many = jax.tree.map(lambda x: np.asarray(x).reshape(8, *x.shape[2:]), many)
    else:
        many = augment_both(jax.device_put(batch, split))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), many, one)


def test_prior_becomes_depth_and_is_flipped():
    batch = make_batch()
    stored = np.random.default_rng(1).integers(0, 2**16, (8, H, W), dtype=np.uint16)
    stored[0, 0, 0] = 0  # sky
    depth = augment_flip(batch.replace(prior=jnp.asarray(stored))).prior[:, :, ::-1]
    np.testing.assert_allclose(depth, np.minimum(65535 / np.maximum(stored, 1), 100), rtol=1e-5)


def test_zoom_preserves_rays():
    """Each ray keeps its values under the zoomed intrinsics: colours interpolated, mask and prior by nearest neighbour."""
    batch = make_batch()
    u, v = np.meshgrid(np.arange(W), np.arange(H))
    ramp = (10 * u + 7 * v).astype(np.uint8)[None, None, :, :, None]
    stored = np.random.default_rng(1).integers(700, 2**16, (8, H, W), dtype=np.uint16)
    batch = batch.replace(images=jnp.tile(ramp, (8, 3, 1, 1, 3)), prior=jnp.asarray(stored))
    result = jax.jit(partial(augment, config=ZOOM, train=True))(batch)
    pixels = np.stack([u, v, np.ones_like(u)], axis=-1)
    for sample in range(8):
        back = np.asarray(batch.K[sample], np.float64) @ np.linalg.inv(np.asarray(result.K[sample], np.float64))
        x, y = (pixels @ back.T)[..., 0], (pixels @ back.T)[..., 1]
        assert (x > -0.5).all() and (x < W - 0.5).all() and (y > -0.5).all() and (y < H - 0.5).all()
        colour = 10 * np.clip(x, 0, W - 1) + 7 * np.clip(y, 0, H - 1)
        np.testing.assert_allclose(result.images[sample, 1, :, :, 2] * 255, colour, atol=1e-3)
        nearest = np.rint(y).astype(int), np.rint(x).astype(int)
        np.testing.assert_array_equal(result.masks[sample, 2], np.asarray(batch.masks[sample, 2])[nearest])
        np.testing.assert_allclose(result.prior[sample], 65535 / stored[sample][nearest], rtol=1e-5)
    factors = np.asarray(result.K / batch.K)[:, (0, 1), (0, 1)]
    assert factors.min() >= 1 and factors.max() <= 1.5 and np.ptp(factors) > 0.2
    assert (np.abs(factors[:, 0] - factors[:, 1]) > 1e-3).all()
