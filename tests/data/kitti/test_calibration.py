import numpy as np
import pytest

from dd_jax.config import ConfigError
from dd_jax.data.kitti import calibration


def test_lines_split_at_first_colon():
    values = calibration.parse_calibration("calib_time: 09-Jan-2012 13:57:47\nR: 1 2.5e+00\n\nno colon\nT:3\n")
    assert values["calib_time"] == "09-Jan-2012 13:57:47"
    np.testing.assert_array_equal(values["R"], [1, 2.5])
    np.testing.assert_array_equal(values["T"], [3])
    assert set(values) == {"calib_time", "R", "T"}


@pytest.mark.parametrize("line", ["", "P: 1 2", "P: 1 2 3 4", "P: 1 2 nan", "P: 1 -inf 3", "P: 1 2 c", "Q: 1 2 3"])
def test_malformed_values_raise(tmp_path, line):
    path = tmp_path / "calib.txt"
    path.write_text("P: 1 2 3\n")
    np.testing.assert_array_equal(calibration.read_calibration(path, P=3)["P"], [1, 2, 3])
    path.write_text(line)
    with pytest.raises(ConfigError, match=r"calib.txt: P must be 3 finite numbers: unpack KITTI's archive of it again"):
        calibration.read_calibration(path, P=3)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"calib.txt: P must be"):
        calibration.read_calibration(path, P=3)


@pytest.mark.parametrize("size", ["-64 32", "0 0", "64 0", "3e5 3e5", "1e9 32"])
def test_implausible_image_size_raises(tmp_path, size):
    path = tmp_path / "calib.txt"
    path.write_text(f"S_rect_02: {size}\n")
    with pytest.raises(ConfigError, match=r"calib.txt: S_rect_02 must be a width and a height between 1 and 10000 pixels: "):
        calibration.read_calibration(path, S_rect_02=2)


def test_nominal_intrinsics_scale_with_size():
    np.testing.assert_allclose(calibration.nominal_camera((100, 200)), [[116, 0, 100], [0, 192, 50], [0, 0, 1]], rtol=1e-6)
