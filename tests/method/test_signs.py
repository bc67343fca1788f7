import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax.config import Config
from dd_jax.geometry.se3 import pose_from_parameters
from dd_jax.method import signs
from dd_jax.method.cost_volume import depth_bins
from dd_jax.types import CostVolume

MODEL = Config().model
K = jnp.array([[[40.0, 0, 31.5], [0, 40.0, 15.5], [0, 0, 1]]])


def disp_of(depth):
    """Sigmoid disparity of a depth."""
    far = 1 / MODEL.max_depth
    return (1 / jnp.asarray(depth, jnp.float32) - far) / (1 / MODEL.min_depth - far)


def test_spread_is_relative_and_by_image():
    image = jnp.array([[1.0, 3.0], [1.0, 3.0]])
    np.testing.assert_allclose(signs.spread(jnp.stack([image, 7 * image, jnp.ones((2, 2))])), [0.5, 0.5, 0], rtol=1e-6)


def test_motion_does_not_depend_on_the_scale_of_depth():
    """Half of the image at depth 2, half at 4: the harmonic mean is 8/3."""
    depth = jnp.array([[[2.0, 4.0]]])
    T = jnp.stack([pose_from_parameters(jnp.array([[0, 0.02, 0]]), jnp.array([[0, 0, z]])) for z in (0.1, -0.3)], axis=1)
    expected = {"motion/parallax": 0.2, "motion/parallax_squared": 0.05, "motion/rotation": np.rad2deg(0.02)}
    motion = jax.jit(lambda T, disp: signs.motion(T, disp, MODEL))
    for scale in (1, 5):
        found = motion(T.at[..., :3, 3].multiply(scale), disp_of(depth * scale))
        for name, value in expected.items():
            factor = {"motion/parallax": 3 / 8, "motion/parallax_squared": (3 / 8) ** 2}.get(name, 1)
            assert float(found[name]) == pytest.approx(value * factor, rel=1e-4), name


def test_share_of_pixels_that_the_source_frames_show():
    """Sideways by a quarter of the image width, behind the camera, and not at all, at depth 1."""
    disp = disp_of(jnp.ones((1, 32, 64)))
    shifts = jnp.array([[16 / 40, 0, 0], [0, 0, -1.5], [0, 0, 0]])
    T = jnp.tile(jnp.eye(4), (1, 3, 1, 1)).at[0, :, :3, 3].set(shifts)
    shown = jax.jit(lambda *arrays: signs.visible(*arrays, MODEL))(disp, T, K)
    assert shown.shape == (1, 3, 4, 8)
    np.testing.assert_array_equal(shown.mean((0, 2, 3)), [0.75, 0, 1])


def test_use_of_the_cost_volume():
    """Four cells: the second bin, clearly; the first; all equal, which counts as the first; not observed."""
    config = Config()
    config.cost_volume.bins = 4
    depth_range = jnp.array([1.0, 8.0])
    bins = depth_bins(depth_range, config.cost_volume)
    costs = jnp.array([[[[3.0, 1, 3, 3], [0, 2, 1, 1]], [[2, 2, 2, 2], [1, 0, 0, 0]]]])
    lowest = 1 / bins[jnp.argmin(costs, axis=-1)]
    confidence = jnp.array([[[1.0, 1], [1, 0]]])
    volume = CostVolume(costs=costs, observed=costs >= 0, confidence=confidence, lowest=lowest)
    matching = jax.jit(lambda *arrays: signs.matching(*arrays, config))
    found = matching(volume, confidence, depth_range)
    expected = {"matching/confident": 3 / 4, "matching/at_border": 2 / 4, "matching/contrast": (0.6 + 1 + 0) / 4}
    assert {name: pytest.approx(float(value), abs=1e-6) for name, value in found.items()} == expected
    far = volume.replace(lowest=jnp.full((1, 2, 2), 1 / bins[-1]))
    assert float(matching(far, confidence, depth_range)["matching/at_border"]) == 0.75
