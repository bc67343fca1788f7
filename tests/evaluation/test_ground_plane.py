"""The height of the camera follows from any map that shows a road, whatever its unit, tilt, noise and traffic."""

import numpy as np
import pytest

from dd_jax.data.synthetic import calibration, world
from dd_jax.data.synthetic.ego import CAMERA_HEIGHT, MANEUVERS
from dd_jax.data.synthetic.raycast import pinhole
from dd_jax.data.synthetic.render import Renderer
from dd_jax.evaluation.ground_plane import camera_height

HEIGHT, WIDTH = 64, 192
K = calibration.intrinsics(HEIGHT, WIDTH)


def road(height, pitch=0.0, roll=0.0, wall=40.0):
    """Inverse depth of a plane ``height`` below a camera that is turned by ``pitch`` and ``roll``, and of a wall behind it."""
    v, u = np.mgrid[:HEIGHT, :WIDTH]
    rays = np.stack([u, v, np.ones_like(u)], axis=-1) @ np.linalg.inv(K).T
    normal = np.array([np.sin(roll) * np.cos(pitch), np.cos(roll) * np.cos(pitch), np.sin(pitch)])
    return np.maximum(rays @ normal / height, 1 / wall).astype(np.float32)


def test_a_level_road_is_found_exactly():
    assert camera_height(road(1.65), K) == pytest.approx(1.65, rel=1e-4)


@pytest.mark.parametrize(("pitch", "roll"), [(0.5, 0), (-1, 0), (1, 1), (-1.5, 0.5), (0, 3)])
def test_a_camera_may_be_tilted_a_little(pitch, roll):
    assert camera_height(road(1.65, np.radians(pitch), np.radians(roll)), K) == pytest.approx(1.65, rel=0.03)


@pytest.mark.parametrize(("mounted", "off"), [(2.2, 0), (2.2, -0.5), (2.2, 1), (-3.0, 0), (10.0, 0.5), (25.0, 0)])
def test_a_camera_may_be_mounted_at_an_angle(mounted, off):
    """Cityscapes' looks down by 2.2 degrees, that of a lorry by more."""
    disp = road(1.22, np.radians(mounted + off))
    assert camera_height(disp, K, mounted) == pytest.approx(1.22, rel=0.02 if off else 1e-4)
    assert off or abs(camera_height(disp, K) / 1.22 - 1) > 0.03  # a level camera is not what it is taken for


def test_a_tilt_that_no_camera_has_is_the_networks():
    """Of a road that is bent by ten degrees the height below a level camera counts."""
    disp = road(1.65, np.radians(10))
    found, slope = camera_height(disp, K), (np.arange(HEIGHT) - K[1, 2]) / K[1, 1]
    below = (slope / disp[:, WIDTH // 2])[40:]
    assert below.min() < found < below.max() and found < 0.7 * 1.65


def test_the_unit_carries_over():
    disp = road(1.5, np.radians(2))
    assert camera_height(disp / 7, K) == pytest.approx(7 * camera_height(disp, K), rel=1e-6)


def test_size_of_the_map_does_not_matter():
    """A larger map with intrinsics to match."""
    half = calibration.intrinsics(2 * HEIGHT, 2 * WIDTH)
    v, u = np.mgrid[: 2 * HEIGHT, : 2 * WIDTH]
    rays = np.stack([u, v, np.ones_like(u)], axis=-1) @ np.linalg.inv(half).T
    assert camera_height(np.maximum(rays[..., 1] / 1.65, 1 / 40), half) == pytest.approx(1.65, rel=1e-4)


def test_noise_and_traffic_do_not_fool_it():
    rng = np.random.default_rng(0)
    disp = road(1.65, np.radians(1)) * rng.normal(1, 0.02, (HEIGHT, WIDTH)).astype(np.float32)
    disp[40:, 60:110] = 1 / 8.0  # a lorry ahead, in a third of the pixels looked at
    disp[:, :50] = 1 / 5.0
    assert camera_height(disp, K) == pytest.approx(1.65, rel=0.03)


@pytest.mark.parametrize("disp", [np.full((HEIGHT, WIDTH), 0.1), np.random.default_rng(1).uniform(0.01, 1, (HEIGHT, WIDTH))])
def test_without_a_road_it_is_still_positive_and_finite(disp):
    found = camera_height(disp.astype(np.float32), K)
    assert np.isfinite(found) and found > 0


@pytest.mark.parametrize(("number", "maneuver"), list(enumerate(MANEUVERS)))
def test_rendered_drives_have_their_height(number, maneuver):
    """Houses, parked and moving cars, pavements, a nodding camera: 1.65 m within a few per cent in every frame."""
    scene = world.build(maneuver, 6, np.random.default_rng([5, number]))
    renderer = Renderer(scene, K, HEIGHT, WIDTH)
    for frame in range(0, 6, 2):
        T = scene.ego.T_world_cam[frame + 1]
        inverse = renderer.cast(frame, pinhole(K, HEIGHT, WIDTH), T)[0].inverse
        assert camera_height(np.maximum(inverse, 0.01), K) == pytest.approx(-T[1, 3], rel=0.03)
        assert CAMERA_HEIGHT == 1.65
