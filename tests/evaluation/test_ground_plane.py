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
    """Inverse depth of a plane ``height`` below a camera rotated by ``pitch`` and ``roll``, and of a wall behind it."""
    v, u = np.mgrid[:HEIGHT, :WIDTH]
    rays = np.stack([u, v, np.ones_like(u)], axis=-1) @ np.linalg.inv(K).T
    normal = np.array([np.sin(roll) * np.cos(pitch), np.cos(roll) * np.cos(pitch), np.sin(pitch)])
    return np.maximum(rays @ normal / height, 1 / wall).astype(np.float32)


def test_level_road_exact():
    assert camera_height(road(1.65), K) == pytest.approx(1.65, rel=1e-4)


@pytest.mark.parametrize(("pitch", "roll"), [(0.5, 0), (-1, 0), (1, 1), (-1.5, 0.5), (0, 3)])
def test_slightly_tilted_camera(pitch, roll):
    assert camera_height(road(1.65, np.radians(pitch), np.radians(roll)), K) == pytest.approx(1.65, rel=0.03)


@pytest.mark.parametrize(("mounted", "off"), [(2.2, 0), (2.2, -0.5), (2.2, 1), (-3.0, 0), (10.0, 0.5), (25.0, 0)])
def test_mounting_pitch(mounted, off):
    """That of Cityscapes is 2.2 degrees, that of a lorry is larger."""
    disp = road(1.22, np.radians(mounted + off))
    assert camera_height(disp, K, mounted) == pytest.approx(1.22, rel=0.02 if off else 1e-4)
    assert off or abs(camera_height(disp, K) / 1.22 - 1) > 0.03  # assuming a level camera gives a wrong height


def test_large_tilt_ignored():
    """For a road tilted by ten degrees, the height below a level camera is used."""
    disp = road(1.65, np.radians(10))
    found, slope = camera_height(disp, K), (np.arange(HEIGHT) - K[1, 2]) / K[1, 1]
    below = (slope / disp[:, WIDTH // 2])[40:]
    assert below.min() < found < below.max() and found < 0.7 * 1.65


def test_height_in_unit_of_depth():
    disp = road(1.5, np.radians(2))
    assert camera_height(disp / 7, K) == pytest.approx(7 * camera_height(disp, K), rel=1e-6)


def test_independent_of_map_size():
    """A larger map with scaled intrinsics."""
    half = calibration.intrinsics(2 * HEIGHT, 2 * WIDTH)
    v, u = np.mgrid[: 2 * HEIGHT, : 2 * WIDTH]
    rays = np.stack([u, v, np.ones_like(u)], axis=-1) @ np.linalg.inv(half).T
    assert camera_height(np.maximum(rays[..., 1] / 1.65, 1 / 40), half) == pytest.approx(1.65, rel=1e-4)


def test_robust_to_noise_and_traffic():
    rng = np.random.default_rng(0)
    disp = road(1.65, np.radians(1)) * rng.normal(1, 0.02, (HEIGHT, WIDTH)).astype(np.float32)
    disp[40:, 60:110] = 1 / 8.0  # a lorry ahead, in a third of the used pixels
    disp[:, :50] = 1 / 5.0
    assert camera_height(disp, K) == pytest.approx(1.65, rel=0.03)


@pytest.mark.parametrize("disp", [np.full((HEIGHT, WIDTH), 0.1), np.random.default_rng(1).uniform(0.01, 1, (HEIGHT, WIDTH))])
def test_without_road_positive_and_finite(disp):
    found = camera_height(disp.astype(np.float32), K)
    assert np.isfinite(found) and found > 0


@pytest.mark.parametrize(("number", "maneuver"), list(enumerate(MANEUVERS)))
def test_camera_height_of_rendered_drives(number, maneuver):
    """Houses, parked and moving cars, pavements, a pitching camera: 1.65 m within a few per cent in every frame."""
    scene = world.build(maneuver, 6, np.random.default_rng([5, number]))
    renderer = Renderer(scene, K, HEIGHT, WIDTH)
    for frame in range(0, 6, 2):
        T = scene.ego.T_world_cam[frame + 1]
        inverse = renderer.cast(frame, pinhole(K, HEIGHT, WIDTH), T)[0].inverse
        assert camera_height(np.maximum(inverse, 0.01), K) == pytest.approx(-T[1, 3], rel=0.03)
        assert CAMERA_HEIGHT == 1.65
