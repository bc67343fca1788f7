import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax.config import DomdConfig
from dd_jax.geometry import se3
from dd_jax.method import domd
from dd_jax.types import Batch

K = np.float32([[20.0, 0.0, 15.5], [0.0, 20.0, 11.5], [0.0, 0.0, 1.0]])
OBJECT = np.s_[8:16, 10:20]  # in the target, at depth 4 before a wall at depth 10
STATIC = np.s_[8:16, 13:23]  # its position in the source had it not moved (3 columns to the right)
MOVED = np.s_[8:16, 4:14]  # its true position in the source


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    images = rng.uniform(0.3, 0.9, (2, 3, 24, 32, 3)).astype(np.float32)
    masks = np.zeros((2, 3, 24, 32), bool)
    masks[:, 1][:, *OBJECT] = True
    masks[:, ::2][:, :, *MOVED] = True
    arrays = [images, masks, np.tile(K, (2, 1, 1)), np.ones((2, 3), bool), np.zeros(2, np.uint32), images * 0.5]
    return Batch(*map(jnp.asarray, arrays))


@pytest.fixture
def depth():
    depth = np.full((2, 24, 32), 10.0, np.float32)
    depth[:, *OBJECT] = 4.0
    return jnp.asarray(depth)


@pytest.fixture
def poses():
    return se3.pose_from_parameters(jnp.zeros((2, 2, 3)), jnp.tile(jnp.array([0.6, 0.0, 0.0]), (2, 2, 1)))


@functools.cache
def compiled(frames, exclude, lookups):
    config = DomdConfig(exclude_from_loss=exclude)
    return jax.jit(lambda batch, depth, T, lookup: domd.disentangle(batch, frames, lookups, depth, T, lookup, config))


def run(batch, depth, poses, lookup=(True, True), frames=(0, 2), exclude_from_loss=False, lookups=1):
    return compiled(frames, exclude_from_loss, lookups)(batch, depth, poses, jnp.array(lookup))


def test_object_is_rendered_at_its_static_position(batch, depth, poses):
    result = run(batch, depth, poses)
    target = np.asarray(batch.images)[:, 1][:, *OBJECT]
    for f in range(2):
        np.testing.assert_allclose(np.asarray(result.images)[:, f][:, *STATIC], target, atol=2e-3)
    np.testing.assert_allclose(np.asarray(result.lookups)[:, 0, *STATIC], 0.5 * target, atol=2e-3)


def test_uncovered_pixels_are_black_holes(batch, depth, poses):
    result = run(batch, depth, poses)
    holes = np.zeros((24, 32), bool)
    holes[MOVED], holes[STATIC] = True, False
    np.testing.assert_array_equal(result.holes, np.broadcast_to(holes, (2, 2, 24, 32)))
    np.testing.assert_array_equal(result.lookup_holes, np.broadcast_to(holes, (2, 1, 24, 32)))
    assert np.all(np.asarray(result.images)[:, :, holes] == 0) and np.all(np.asarray(result.lookups)[:, 0, holes] == 0)


def test_static_pixels_are_unchanged(batch, depth, poses):
    result = run(batch, depth, poses)
    rest = np.ones((24, 32), bool)
    rest[MOVED] = rest[STATIC] = False
    np.testing.assert_array_equal(np.asarray(result.images)[:, :, rest], np.asarray(batch.images)[:, ::2][:, :, rest])
    np.testing.assert_array_equal(np.asarray(result.lookups)[:, 0, rest], np.asarray(batch.inputs)[:, 0][:, rest])


def test_no_objects_is_the_identity(batch, depth, poses):
    result = run(batch.replace(masks=jnp.zeros_like(batch.masks)), depth, poses)
    np.testing.assert_array_equal(result.images, batch.images[:, ::2])
    np.testing.assert_array_equal(result.lookups[:, 0], batch.inputs[:, 0])
    assert not np.any(result.holes) and not np.any(result.lookup_holes)


def test_object_borders_are_not_darkened(batch, depth):
    """A shift of half a pixel blends the object's border with the black background; colours must be normalised."""
    half = se3.pose_from_parameters(jnp.zeros((2, 2, 3)), jnp.tile(jnp.array([0.5, 0.1, 0.0]), (2, 2, 1)))
    white = batch.replace(images=jnp.where(batch.masks[:, 1, None, :, :, None], 1.0, 0.25 * jnp.ones_like(batch.images)))
    images = np.asarray(run(white, depth, half).images)
    assert not np.any((images > 0.26) & (images < 0.99))


def test_missing_frames_are_unchanged(batch, depth, poses):
    exists = jnp.array([[False, True, True], [True, True, False]])
    result, whole = run(batch.replace(exists=exists), depth, poses), run(batch, depth, poses)
    for b, f, frame in ((0, 0, 0), (1, 1, 2)):
        np.testing.assert_array_equal(result.images[b, f], batch.images[b, frame])
        assert not np.any(result.holes[b, f])
        np.testing.assert_array_equal(result.images[b, 1 - f], whole.images[b, 1 - f])
    np.testing.assert_array_equal(result.lookups[0, 0], batch.inputs[0, 0])
    np.testing.assert_array_equal(result.lookups[1, 0], whole.lookups[1, 0])
    assert not np.any(result.lookup_holes[0])


def test_augmented_samples_keep_their_lookup_frame(batch, depth, poses):
    result, whole = run(batch, depth, poses, lookup=(False, True)), run(batch, depth, poses)
    np.testing.assert_array_equal(result.lookups[0, 0], batch.inputs[0, 0])
    assert not np.any(result.lookup_holes[0])
    np.testing.assert_array_equal(result.lookups[1, 0], whole.lookups[1, 0])
    np.testing.assert_array_equal(result.images, whole.images)


def test_both_neighbours_can_be_lookup_frames(batch, depth, poses):
    """The augmented lookup frames are composited like the frames of the loss; the first one as if it were the only one."""
    result, one = run(batch, depth, poses, lookups=2), run(batch, depth, poses)
    np.testing.assert_array_equal(result.lookups[:, :1], one.lookups)
    np.testing.assert_array_equal(result.lookup_holes, result.holes)
    np.testing.assert_allclose(result.lookups, 0.5 * result.images, atol=1e-6)


def test_excluding_objects_from_the_loss(batch, depth, poses):
    result, whole = run(batch, depth, poses, exclude_from_loss=True), run(batch, depth, poses)
    unknown = np.zeros((24, 32), bool)
    unknown[MOVED] = unknown[STATIC] = True
    np.testing.assert_array_equal(result.holes, np.broadcast_to(unknown, (2, 2, 24, 32)))
    assert np.all(np.asarray(result.images)[:, :, unknown] == 0)
    np.testing.assert_array_equal(result.lookups, whole.lookups)
    np.testing.assert_array_equal(result.lookup_holes, whole.lookup_holes)


def test_next_frame_is_optional_in_evaluation(batch, depth, poses):
    two = Batch(**{k: v[:, :2] if k in ("images", "masks", "exists", "inputs") else v for k, v in vars(batch).items()})
    result, whole = run(two, depth, poses[:, :1], frames=(0,)), run(batch, depth, poses)
    np.testing.assert_array_equal(result.images[:, 0], whole.images[:, 0])
    np.testing.assert_array_equal(result.lookups, whole.lookups)


def test_no_gradient_passes(batch, depth, poses):
    gradients = jax.jit(
        jax.grad(
            lambda depth, T: domd.disentangle(batch, (0, 2), 1, depth, T, jnp.ones(2, bool), DomdConfig()).images.sum(), (0, 1)
        )
    )(depth, poses)
    assert not any(np.any(g) for g in gradients)


@pytest.mark.parametrize("source", ["ground", "ground_or_border"])
def test_objects_stand_on_the_ground_below_them(source):
    rng = np.random.default_rng(1)
    depth, objects = rng.random((3, 2, 24, 32), np.float32), rng.random((2, 24, 32)) < 0.8
    objects[0, -9:, :5] = True
    found = np.asarray(jax.jit(domd.object_depth, static_argnums=2)(depth, objects, source))
    for sample, y, x in np.ndindex(objects.shape):
        below = np.flatnonzero(~objects[sample, y:, x])  # the first one is the pixel itself outside of objects
        row = y + below[0] if below.size else y if source == "ground" else -1
        np.testing.assert_array_equal(found[:, sample, y, x], depth[:, sample, row, x])


def test_ground_decides_where_an_object_is_rendered(batch, depth, poses):
    """The teacher sees the wall through the object; its feet are at depth 4, so it moves by three columns, not one."""
    ground = depth.at[:, *OBJECT].set(10.0).at[:, 16:].set(4.0)
    placed = domd.object_depth(ground, batch.masks[:, 1], "ground")
    np.testing.assert_array_equal(placed[:, *OBJECT], 4.0)
    target = np.asarray(batch.images)[:, 1][:, *OBJECT]
    right, wrong = (np.asarray(run(batch, depths, poses).images)[:, 0, *STATIC] for depths in (placed, ground))
    assert np.abs(right - target).max() < 2e-3 < 0.1 < np.abs(wrong - target).mean()
