import numpy as np
import pytest

from dd_jax.data.synthetic import ego, shapes, world


@pytest.fixture(scope="module")
def worlds():
    return [world.build(maneuver, 40, np.random.default_rng((3, i))) for i, maneuver in enumerate(ego.MANEUVERS)]


def test_all_classes_move_and_cars_park(worlds):
    moving = {kind for w in worlds for kind, m in zip(w.kinds, w.moving, strict=True) if m.any()}
    assert {"car", "van", "truck", "cyclist", "pedestrian"} <= moving <= set(shapes.FOOTPRINT)
    parked = [kind for w in worlds for kind, m in zip(w.kinds, w.moving, strict=True) if not m.any()]
    assert len(parked) > 40 and set(parked) >= {"car", "van"}


def test_mover_directions(worlds):
    """Relative headings of moving vehicles near the recording car cover all four quarters; some change their heading."""
    quarters, turning = set(), 0
    for w in worlds:
        own = np.arctan2(w.ego.T_world_cam[:, 0, 2], w.ego.T_world_cam[:, 2, 2])
        for kind, place, m in zip(w.kinds, w.place, w.moving, strict=True):
            if kind == "pedestrian" or not m.all():
                continue
            relative = np.degrees(place[:, 2] - own)
            near = np.hypot(*(place[:, :2] - w.ego.xz).T) < 40
            quarters |= set((np.round(relative[near] / 90) % 4).astype(int))
            turning += np.degrees(np.ptp(place[:, 2])) > 45
    assert quarters == {0, 1, 2, 3}
    assert turning >= 2


def test_no_collisions_with_recording_car(worlds):
    for w in worlds:
        for kind, place in zip(w.kinds, w.place, strict=True):
            gap = np.hypot(*(place[:, :2] - w.ego.xz).T)
            assert gap.min() > (0.95 + shapes.FOOTPRINT[kind][1] / 2) * 0.95, kind


def test_object_ids_fit_eight_bits(worlds):
    for w in worlds:
        assert 10 < len(w.kinds) <= 255
        owners = np.union1d(w.patches.owner, w.quadrics.owner)
        assert set(owners) == set(range(len(w.kinds) + 1))


def test_object_front_follows_heading(worlds):
    w = worlds[0]
    R, p = w.object_poses(4)
    place = w.place[:, 5]
    np.testing.assert_allclose(p[1:, [0, 2]], place[:, :2])
    np.testing.assert_allclose(R[1:, :, 2], np.stack([np.sin(place[:, 2]), 0 * place[:, 2], np.cos(place[:, 2])], -1))
    np.testing.assert_allclose(np.linalg.det(R), 1)


def test_moving_flag_from_displacement(worlds):
    for w in worlds:
        step = np.hypot(*np.diff(w.place[:, :, :2], axis=1).transpose(2, 0, 1))
        np.testing.assert_array_equal(w.moving[:, 1:-1], (step[:, 1:] > 0.02) | (step[:, :-1] > 0.02))


def test_world_determined_by_seed():
    a, b, c = (world.build("wave", 6, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(a.patches.center, b.patches.center)
    np.testing.assert_array_equal(a.ground, b.ground)
    assert a.light.noise == b.light.noise and a.light.noise != c.light.noise
    assert not np.allclose(a.light.to_sun, c.light.to_sun)
    assert a.roads.block != c.roads.block
