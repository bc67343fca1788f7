import pytest

from dd_jax.data.kitti.raw import depth_map


@pytest.mark.golden("c09_kitti_depth_map")
def test_kitti_depth_map(golden):
    texts = str(golden["in.calib_cam_to_cam"]), str(golden["in.calib_velo_to_cam"])
    points = golden["in.velodyne"]
    width = golden["out.cam2"].shape[1]

    # In the references' pixel index, the last pixel of a row and the first of the next share an index, and only one of them gets
    # the smaller depth. ``cam2_own_index`` is their code with distinct indices; it must agree everywhere.
    golden.check("out.cam2_own_index", depth_map(*texts, points, camera=2, forward=False))
    inner = [0 < column < width - 1 for column in range(width)]
    for camera in (2, 3):
        golden.check(f"out.cam{camera}", depth_map(*texts, points, camera, forward=False), where=inner)
        golden.check(f"out.cam{camera}_vel_depth", depth_map(*texts, points, camera), where=inner)
