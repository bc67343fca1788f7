import json

import numpy as np
import pykitti
import pytest

from dd_jax.data.synthetic import calibration, writer

FRAMES, SIZE = 12, (96, 320)


@pytest.fixture(scope="module")
def folders(drives):
    return sorted((drives / calibration.DATE).glob("*_sync"))


def poses(folder):
    rows = np.loadtxt(folder / "poses.txt").reshape(-1, 3, 4)
    return np.concatenate([rows, np.tile([[[0, 0, 0, 1.0]]], (len(rows), 1, 1))], 1)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # pykitti and Pillow
def test_pykitti_reads_a_drive(drives):
    data = pykitti.raw(str(drives), calibration.DATE, "9001")
    assert len(data) == FRAMES and len(data.timestamps) == FRAMES
    steps = np.diff([stamp.timestamp() for stamp in data.timestamps])
    np.testing.assert_allclose(steps, 0.1, atol=1e-6)
    assert data.get_cam2(0).size == SIZE[::-1] and data.get_cam2(0).mode == "RGB"
    np.testing.assert_allclose(data.calib.K_cam2, calibration.intrinsics(*SIZE))
    np.testing.assert_allclose(data.calib.T_velo_imu, calibration.T_velo_imu)
    np.testing.assert_allclose(data.calib.T_cam0_velo, calibration.T_rect0_velo)
    scan = data.get_velo(3)
    assert scan.ndim == 2 and scan.shape[1] == 4 and len(scan) > 8000
    assert data.oxts[0].packet.lat == pytest.approx(49.0112128)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("drive", ["9001", "9002", "9501", "9801"])
def test_oxts_roundtrip_preserves_poses(drives, drive):
    data = pykitti.raw(str(drives), calibration.DATE, drive)
    T_world_imu = np.stack([packet.T_w_imu for packet in data.oxts])
    T_imu_cam = np.linalg.inv(calibration.T_cam2_imu)
    T_world_cam = T_world_imu @ T_imu_cam
    relative = np.linalg.inv(T_world_cam[0]) @ T_world_cam
    expected = poses(drives / calibration.DATE / f"{calibration.DATE}_drive_{drive}_sync")
    assert np.abs(relative[:, :3, 3] - expected[:, :3, 3]).max() < 1e-5
    assert np.abs(relative[:, :3, :3] - expected[:, :3, :3]).max() < 1e-6  # KITTI's own matrices are rotations up to 1e-7


def test_masks_moving_and_depth_consistent(folders, read_png):
    for folder in folders:
        for t in (1, 8):
            mask, moving = (read_png(folder, f"{kind}/data", t) for kind in ("mask_02", "moving_02"))
            depth = read_png(folder, "proj_depth/groundtruth/image_02", t)
            assert (mask.dtype, moving.dtype, depth.dtype) == (np.uint8, np.uint8, np.uint16)
            assert mask.shape == moving.shape == depth.shape == SIZE
            assert (moving[moving > 0] == mask[moving > 0]).all()  # moving objects are potentially dynamic
            assert set(np.unique(moving)) - {0} < set(np.unique(mask))  # and some potentially dynamic ones are parked
            assert (depth[mask > 0] > 0).all()
            assert 0.3 < (depth > 0).mean() < 1 and (depth[:10] == 0).any()  # sky has none
            assert depth[depth > 0].min() > 0.5 * 256 and (depth[-1] > 0).all()
            K = calibration.intrinsics(*SIZE)
            ground = 1.65 * K[1, 1] / (SIZE[0] - 1 - K[1, 2])  # objects on the ground can only be nearer
            assert (depth[-1] / 256.0).max() < 1.05 * ground


def test_prior_approximates_affine_inverse_depth(folders, read_png):
    errors = []
    for folder in folders:
        depth = read_png(folder, "proj_depth/groundtruth/image_02", 4) / 256.0
        prior = read_png(folder, "prior_02/data", 4)
        assert prior.dtype == np.uint16 and prior.max() > 30000
        near = (depth > 0) & (depth < 40)
        truth, guess = 1 / depth[near], prior[near].astype(float)
        scale, shift = np.polyfit(guess, truth, 1, w=1 / truth)
        errors.append(np.abs(1 / np.clip(scale * guess + shift, 1 / 200, None) / depth[near] - 1).mean())
    assert 0.02 < np.mean(errors) < 0.2


def test_tiny_has_movers_stops_and_turns(folders):
    facts = [json.loads((folder / "drive.json").read_text())["statistics"] for folder in folders]
    for fact in facts:
        assert 0.02 < fact["moving_share"] < 0.3
        assert fact["moving_share"] < fact["dynamic_share"] < 0.5
        assert sum(fact["depth_share"].values()) == pytest.approx(1, abs=0.01)
    assert {fact["maneuver"] for fact in facts} == {"straight", "stop", "right", "left"}
    assert min(fact["slowest_frame"] for fact in facts) < 1e-3
    movers = {kind for fact in facts for kind, count in fact["movers"].items() if count}
    assert {"car", "truck", "cyclist", "pedestrian"} <= movers
    headings = [np.degrees(np.arctan2(*poses(folder)[-1, [0, 2], 2])) for folder in folders]
    assert max(headings) > 25 and min(headings) < -25


def test_drive_complete_only_for_same_recipe(drives):
    recipe = writer.Recipe("9001", "train", "straight", 12, 96, 320, True, (0, 0, 0))
    assert writer.is_complete(drives, recipe)
    for change in ({"frames": 13}, {"seed": (1, 0, 0)}, {"version": 0}, {"velodyne": False}, {"name": "9009"}):
        assert not writer.is_complete(drives, writer.Recipe(**{**vars(recipe), **change}))


def test_far_and_missing_depth_zero_in_prior():
    inverse = np.zeros((40, 60), np.float32)
    inverse[20:] = np.linspace(0.01, 0.4, 20, dtype=np.float32)[:, None]
    prior = writer.prior(inverse, np.zeros((40, 60), np.uint8), np.random.default_rng(0))
    assert prior[:15].max() == prior[:15].min() < prior[30].min() < prior[-1].min()
