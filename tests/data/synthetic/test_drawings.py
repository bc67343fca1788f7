import numpy as np
import pytest

from dd_jax.data.synthetic import drawings, textures


@pytest.fixture(scope="module")
def pictures():
    return drawings.draw_all(np.random.default_rng(0))


def test_every_material_has_texture(pictures):
    assert set(pictures) | {"ground"} == set(textures.NAMES)
    for name, picture in pictures.items():
        assert picture.dtype == np.uint8 and picture.shape[2] == 4, name


def test_noise_tileable_unit_variance():
    field = drawings.noise(np.random.default_rng(1), 128, 1.5)
    assert abs(field.mean()) < 0.05 and 0.8 < field.std() < 1.05
    inner = np.abs(np.diff(field, axis=1)).mean()
    seam = np.abs(field[:, 0] - field[:, -1]).mean()
    assert seam < 1.5 * inner


def test_distant_surfaces_keep_contrast(pictures):
    """Averaged over a sixteenth of a repeat, the large surfaces still vary: texture at middle frequencies."""
    for name in ("foliage_0", "facade_0", "facade_3", "concrete", "bark"):
        grey = pictures[name][..., :3].mean(-1)
        k = len(grey) // 16
        blocks = grey.reshape(16, k, 16, k).mean((1, 3))
        assert blocks.std() > 5, name


def test_windows_and_lamps_keep_colour(pictures):
    for name in ("facade_0", "car_rear", "glass", "bus_side"):
        alpha = pictures[name][..., 3]
        assert (alpha > 250).any() and (alpha < 50).any(), name
