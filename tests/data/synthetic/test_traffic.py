import numpy as np

from dd_jax.data.synthetic import ego, ground, traffic

ROADS = ground.Roads(block=60.0, pavement=3.0, **ground.STREET)


def test_space_refuses_overlap_at_any_time():
    motion = ego.drive("straight", 10, ROADS, np.random.default_rng(0))
    space = traffic.Space(motion)
    fixed = lambda x, z: traffic.Track("car", np.array([x]), np.array([z]), np.array([0.0]))  # noqa: E731
    assert not space.claim(fixed(*motion.xz[6]))
    assert space.claim(fixed(motion.xz[6, 0] + 4, motion.xz[6, 1]))
    assert not space.claim(fixed(motion.xz[6, 0] + 5, motion.xz[6, 1]))
    assert space.claim(fixed(motion.xz[6, 0] + 7.5, motion.xz[6, 1]))


def test_parked_cars_in_parking_lane():
    motion = ego.drive("straight", 10, ROADS, np.random.default_rng(0))
    space = traffic.Space(motion)
    tracks = traffic.parked(ROADS, [(0.0, 0.0, 0.0, 60.0), (0.0, 60.0, 60.0, 60.0)], space, np.random.default_rng(1))
    assert len(tracks) > 8
    for track in tracks:
        x, z, heading = track.x[0], track.z[0], track.heading[0]
        along_z = 8 < z < 52
        side = x if along_z else -(z - 60)
        assert abs(abs(side) - ROADS.parking) < 0.15
        street = 0 if along_z else np.pi / 2
        expected = street + (np.pi if side < 0 else 0)  # right-hand traffic
        assert abs(np.sin(heading - expected)) < 0.1 and np.cos(heading - expected) > 0


def test_movers_cover_whole_drive():
    motion = ego.drive("stop", 20, ROADS, np.random.default_rng(0))
    tracks = traffic.movers(ROADS, motion, "stop", traffic.Space(motion), np.random.default_rng(1))
    assert len(tracks) > 8
    for track in tracks:
        assert track.x.shape == track.z.shape == track.heading.shape == (22,)
        step = np.hypot(np.diff(track.x), np.diff(track.z))
        assert step.max() < 2.5
        if step.min() > 0.02:  # moves forwards, not sideways
            ahead = np.sin(track.heading[1:]) * np.diff(track.x) + np.cos(track.heading[1:]) * np.diff(track.z)
            assert (ahead > 0.9 * step).all(), track.kind
