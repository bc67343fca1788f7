"""Metrics, masks, the config and the formats of text, for random values."""

import copy
import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dd_jax.config import Config, ConfigError, EvalConfig, from_dict, to_dict
from dd_jax.config.rules import validate
from dd_jax.data import frames, masks, splits
from dd_jax.data.kitti import calibration, timestamps
from dd_jax.diagnosis import true_poses
from dd_jax.evaluation import metrics
from dd_jax.runtime.file_order import in_order

pytestmark = pytest.mark.property

SHAPE = (6, 8)
PROTOCOL = EvalConfig(crop="none", min_depth=1e-3, max_depth=80.0)
depths = arrays(np.float32, SHAPE, elements=st.floats(0.5, 60, width=32))


@given(depths, depths, st.floats(0.01, 100))
def test_scale_does_not_matter_after_median_scaling(prediction, truth, factor):
    one, other = (metrics.evaluate_image(1 / (prediction * np.float32(f)), truth, {}, PROTOCOL) for f in (1, factor))
    for name, value in one["all"].items():
        assert other["all"][name] == pytest.approx(value, rel=1e-3, abs=1e-5) or name in ("a1", "a2", "a3")
    assert other["scale"]["ratio"] * factor == pytest.approx(one["scale"]["ratio"], rel=1e-4)


@given(depths, arrays(bool, SHAPE))
def test_perfect_prediction_has_no_error_in_any_region(truth, mask):
    found = metrics.evaluate_image(1 / truth, truth, metrics.regions(mask, None), PROTOCOL)
    assert found["dynamic"]["pixels"] + found["static"]["pixels"] == found["all"]["pixels"]
    for region in ("all", "dynamic", "static"):
        if found[region]["pixels"]:
            assert found[region]["abs_rel"] < 1e-5 and found[region]["a1"] == 1


@given(depths, depths)
def test_log_errors_and_shares_are_symmetric(one, other):
    there, back = metrics.depth_errors(one.ravel(), other.ravel()), metrics.depth_errors(other.ravel(), one.ravel())
    for name in ("rmse_log", "log10", "a1", "a2", "a3", "rmse", "abs_diff"):
        assert there[name] == pytest.approx(back[name], rel=1e-9, abs=1e-12)


@given(st.integers(0, SHAPE[0] - 1), st.integers(0, SHAPE[1] - 1), st.floats(0.5, 60))
def test_one_valid_pixel_is_enough(row, column, depth):
    truth = np.zeros(SHAPE, np.float32)
    truth[row, column] = depth
    found = metrics.evaluate_image(np.ones(SHAPE, np.float32), truth, {}, PROTOCOL)
    assert found["all"]["pixels"] == 1 and found["all"]["abs_rel"] < 1e-5


@given(arrays(bool, SHAPE), st.integers(1, 4))
def test_masks_keep_their_objects_when_enlarged(mask, times):
    large = frames.resize_mask(mask, SHAPE[0] * times, SHAPE[1] * times)
    np.testing.assert_array_equal(large, np.kron(mask, np.ones((times, times), bool)).astype(bool))
    np.testing.assert_array_equal(frames.resize_mask(large, *SHAPE), mask)
    np.testing.assert_array_equal(masks.is_object(mask.astype(np.uint8) * 255, "binary"), mask)


def leaves(config):
    return [(section, name) for section, fields in to_dict(config).items() if isinstance(fields, dict) for name in fields]


FIELDS = leaves(Config())
values = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.just([]))


@given(st.lists(st.tuples(st.sampled_from(FIELDS), values), min_size=1, max_size=4))
def test_config_is_read_back_or_refused(changes):
    document = to_dict(Config())
    for (section, name), value in changes:
        document[section][name] = value
    try:
        config = from_dict(copy.deepcopy(document))
    except ConfigError as error:
        assert str(error).isprintable()
        return
    assert repr(to_dict(config)) == repr(to_dict(from_dict(json.loads(json.dumps(to_dict(config))))))


def typed(field):
    kinds = {
        bool: st.booleans(),
        int: st.integers(-3, 2**40),
        float: st.floats(),
        str: st.sampled_from(["", "none", "files", "x"]),
    }
    return kinds[type(to_dict(Config())[field[0]][field[1]])]


@given(st.data())
def test_rules_refuse_random_values_in_one_sentence(data):
    config = Config()
    config.data.root = "unused"
    for section, name in data.draw(st.lists(st.sampled_from(FIELDS), min_size=1, max_size=3)):
        setattr(getattr(config, section), name, data.draw(typed((section, name))))
    try:
        validate(config, num_devices=data.draw(st.integers(1, 8)))
    except ConfigError as error:
        assert str(error).isprintable() and "--config." in str(error)
    assert dataclasses.is_dataclass(config)


names = st.text("abc_019", min_size=1, max_size=6)
entries = st.lists(st.tuples(names, st.integers(0, 10**9), st.sampled_from("lr")), min_size=1, max_size=5, unique=True)


@given(entries, st.sampled_from(["\n", "\r\n", "\n\n", " \n"]), st.sampled_from(["", "\ufeff"]))
def test_lists_are_read_as_they_were_written(tmp_path_factory, found, ending, start):
    path = tmp_path_factory.mktemp("list") / "train_files.txt"
    path.write_bytes((start + "".join(f"{name} {frame} {side}{ending}" for name, frame, side in found)).encode())
    assert splits.read_kitti(path) == [(name, frame, splits.SIDES[side]) for name, frame, side in found]


@given(arrays(np.float64, 7, elements=st.floats(-1e5, 1e5)), st.text("abP_02", min_size=1, max_size=5))
def test_calibrations_are_read_as_they_were_written(numbers, key):
    text = f"{key}: {' '.join(map(repr, numbers.tolist()))}\n"
    np.testing.assert_array_equal(calibration.parse_calibration(text)[key], numbers)


@given(st.lists(st.decimals(0, 10**6, places=6), min_size=2, max_size=5, unique=True).map(sorted))
def test_times_are_read_as_they_were_written(tmp_path_factory, times):
    path = tmp_path_factory.mktemp("times") / "times.txt"
    path.write_text("".join(f"{time}\n" for time in times))
    assert timestamps.seconds_of(path, [str(number) for number in range(len(times))]) == times


@given(arrays(np.float64, (3, 3), elements=st.floats(-5, 5)))
def test_poses_are_read_as_they_were_written(tmp_path_factory, numbers):
    rotation, _ = np.linalg.qr(numbers + 20 * np.eye(3))
    rotation[:, 0] *= np.linalg.det(rotation)
    pose = np.column_stack([rotation, numbers[0]])
    path = tmp_path_factory.mktemp("poses") / "poses.txt"
    np.savetxt(path, pose.reshape(1, 12), fmt="%.17g")
    np.testing.assert_array_equal(true_poses.read_poses(path)[0, :3], pose)


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=6, unique=True), st.integers(1, 9))
def test_numbered_frames_come_in_the_order_of_their_numbers(numbers, digits):
    files = [f"frame_{number:0{digits}d}.png" for number in sorted(numbers)]
    assert in_order(sorted(files), "here") == files
