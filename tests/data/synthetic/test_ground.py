import numpy as np
import pytest

from dd_jax.data.synthetic import ground


@pytest.mark.parametrize("style", [ground.STREET, ground.AVENUE])
def test_tile_road_and_marking_colours(style):
    roads = ground.Roads(block=64.0, pavement=3.5, **style)
    tile = ground.draw(roads, np.random.default_rng(0))
    assert tile.shape == (ground.SIZE, ground.SIZE, 4) and tile.dtype == np.uint8
    grey = tile[..., :3].mean(-1)
    at = lambda metres: int(metres / 64 * ground.SIZE)  # noqa: E731
    lane = grey[at(25) : at(40), at(1.0) : at(2.5)]
    walk = grey[at(25) : at(40), at(roads.half_road + 0.6) : at(roads.building_line - 0.3)]
    assert lane.mean() < 110 < walk.mean()
    zebra = grey[at(roads.half_road + 1) : at(roads.half_road + 3), at(0.2) : at(4)]
    assert np.percentile(zebra, 90) > 170 and np.percentile(zebra, 10) < 110
    assert lane.std() > 10  # trackable texture


def test_streets_symmetric_in_both_directions():
    roads = ground.Roads(block=64.0, pavement=3.5, **ground.STREET)
    grey = ground.draw(roads, np.random.default_rng(0))[..., :3].mean(-1)
    bright = grey > 150
    zone = slice(0, int((roads.half_road - 0.3) / 64 * ground.SIZE))
    assert abs(bright[zone, 200:800].mean() - bright[200:800, zone].mean()) < 0.03


def test_tiles_differ_between_worlds():
    roads = ground.Roads(block=64.0, pavement=3.5, **ground.STREET)
    a, b = (ground.draw(roads, np.random.default_rng(seed)).astype(float) for seed in (0, 1))
    assert np.abs(a - b).mean() > 5
