import numpy as np
import pytest

from dd_jax.data.synthetic import ego, ground

ROADS = ground.Roads(block=60.0, pavement=3.0, **ground.STREET)


@pytest.mark.parametrize("turn", [-1, 0, 1])
def test_route_ends_on_lane_of_other_street(turn):
    route = ego.route(1.75, turn, 9.0)
    x, z, heading = route.at(np.array([-80.0, 80.0]))
    assert x[0] == pytest.approx(1.75, abs=1e-6) and heading[0] == 0
    assert heading[1] == pytest.approx(turn * np.pi / 2)
    if turn:
        assert z[1] == pytest.approx(-turn * 1.75, abs=0.05)  # right-hand traffic there too
        assert np.sign(x[1]) == turn
    steps = np.hypot(np.diff(route.x), np.diff(route.z))
    np.testing.assert_allclose(steps, np.diff(route.s), rtol=1e-6)


def test_offset_to_the_right_and_quarter_turns():
    route = ego.route(0.0, 0, 1.0)
    x, z, _ = route.at(np.array([10.0]), 2.0)
    assert (x[0], z[0]) == pytest.approx((2.0, 10.0))
    x, z, heading = route.rotated(1, (5.0, 7.0)).at(np.array([10.0]), 2.0)  # towards +X, so right is -Z
    assert (x[0], z[0], heading[0]) == pytest.approx((15.0, 5.0, np.pi / 2))


@pytest.mark.parametrize("maneuver", ego.MANEUVERS)
def test_maneuver_trajectories(maneuver):
    for seed in range(5):
        motion = ego.drive(maneuver, 50, ROADS, np.random.default_rng(seed))
        assert motion.T_world_cam.shape == (52, 4, 4)
        R = motion.T_world_cam[:, :3, :3]
        np.testing.assert_allclose(R @ R.transpose(0, 2, 1), np.broadcast_to(np.eye(3), R.shape), atol=1e-12)
        step = np.linalg.norm(np.diff(motion.xz, axis=0), axis=1)
        heading = np.degrees(np.arctan2(R[:, 0, 2], R[:, 2, 2]))
        assert step.max() < 1.55
        assert np.abs(motion.T_world_cam[:, 1, 3] + ego.CAMERA_HEIGHT).max() < 0.03
        if maneuver == "stop":
            assert (step < 1e-3).sum() >= 8 and step.max() > 0.5
            standing = motion.T_world_cam[1:][step == 0]
            assert np.abs(np.diff(standing, axis=0)).max() < 1e-9  # a standing car does not sway
            assert (motion.xz[:, 1].min() < -ROADS.half_road) and motion.xz[25, 1] < -ROADS.half_road - 4
        elif maneuver in ("right", "left"):
            assert (75 if maneuver == "right" else -105) < heading[-1] < (105 if maneuver == "right" else -75)
        else:
            assert 0.5 < step.mean() < 1.05 and np.abs(heading).max() < 14
            assert np.ptp(step) > 0.4  # it accelerates


def test_speeds_and_yaw_rates_fill_their_ranges():
    motions = [ego.drive(m, 40, ROADS, np.random.default_rng((i, k))) for i, m in enumerate(ego.MANEUVERS) for k in range(20)]
    speed = np.concatenate([np.linalg.norm(np.diff(motion.xz, axis=0), axis=1) for motion in motions])
    heading = [np.unwrap(np.arctan2(motion.T_world_cam[:, 0, 2], motion.T_world_cam[:, 2, 2])) for motion in motions]
    yaw = np.degrees(np.abs(np.concatenate([np.diff(angle) for angle in heading])))
    assert np.histogram(speed, np.arange(0, 1.5, 0.1))[0].min() > 0.01 * speed.size
    assert np.histogram(yaw, np.arange(0, 4.1, 0.5))[0].min() > 0.01 * yaw.size
