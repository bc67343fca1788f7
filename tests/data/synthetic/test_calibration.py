import numpy as np
import pytest

from dd_jax.data.synthetic import calibration


def test_intrinsics_scale_pixel_centres():
    K = calibration.intrinsics(375, 1242)
    np.testing.assert_allclose(K, [[721.5377, 0, 609.5593], [0, 721.5377, 172.854], [0, 0, 1]])
    half = calibration.intrinsics(750, 2484)
    point = np.array([1.3, -0.4, 6.0])
    u, U = (K @ point)[:2] / 6, (half @ point)[:2] / 6
    np.testing.assert_allclose(U, (u + 0.5) * 2 - 0.5)


def test_transforms_rigid_and_match_kitti():
    for T in (calibration.T_cam2_velo, calibration.T_cam2_imu):
        np.testing.assert_allclose(T[:3, :3] @ T[:3, :3].T, np.eye(3), atol=1e-6)
    ahead = calibration.T_cam2_velo @ [10, 0, 0, 1]
    assert abs(ahead[2] - 9.73) < 0.05 and abs(ahead[0]) < 0.2
    assert 0.3 < -calibration.T_cam2_imu[2, 3] + 0.0 < 1.3 or 0.3 < calibration.T_cam2_imu[2, 3] < 1.3


@pytest.mark.parametrize("frames", [1, 2, 7])
def test_oxts_thirty_numbers_and_true_velocity(frames):
    T = np.tile(np.eye(4), (frames, 1, 1))
    T[:, 2, 3] = 0.8 * np.arange(frames)  # north
    lines = calibration.oxts(T)
    values = np.array([[float(v) for v in line.split()] for line in lines])
    assert values.shape == (frames, 30)
    speed = 8.0 if frames > 1 else 0.0
    np.testing.assert_allclose(values[:, 6], speed, atol=1e-6)  # vn
    np.testing.assert_allclose(values[:, 7], 0, atol=1e-6)  # ve
    np.testing.assert_allclose(values[:, 8], speed, rtol=2e-3, atol=1e-6)  # vf; the unit is mounted slightly rotated


def test_calibration_text_has_scaled_intrinsics():
    text = calibration.files(96, 320)["calib_cam_to_cam.txt"]
    lines = dict(line.split(":", 1) for line in text.splitlines())
    P = np.array([float(v) for v in lines["P_rect_02"].split()]).reshape(3, 4)
    np.testing.assert_allclose(P[:, :3], calibration.intrinsics(96, 320))
    native = np.array([44.85728, 0.2163791, 0.002745884])
    # the offset of camera 2 is a property of the rig, not of the image's size
    np.testing.assert_allclose(np.linalg.solve(P[:, :3], P[:, 3]), np.linalg.solve(calibration.intrinsics(375, 1242), native))
    assert lines["S_rect_02"].split() == ["3.2000000000e+02", "9.6000000000e+01"]
