import dataclasses

import pytest

from configs import dynamic_depth
from dd_jax.config import ConfigError, EvalConfig, protocols


@pytest.mark.parametrize("name", protocols.PROTOCOLS)
def test_name_of_protocol(name):
    config = protocols.protocol(name)
    assert protocols.name_of(config) == name
    assert protocols.name_of(dataclasses.replace(config, batch_size=3)) == name
    assert protocols.name_of(dataclasses.replace(config, max_depth=79.0)) == "own"
    assert f"Protocol {name}: " in protocols.describe(config)


def test_protocols_of_the_papers():
    """Crop and range of Eigen et al. 2014; the improved ground truth of Uhrig et al. 2017 without crop or cap."""
    fields = ("crop", "ground_truth", "resize", "median", "far_truth", "scaling", "min_depth", "max_depth")
    found = {name: tuple(getattr(protocols.protocol(name), field) for field in fields) for name in protocols.PROTOCOLS}
    assert found["eigen"] == ("eigen", "velodyne", "disparity", "average", False, "median", 1e-3, 80.0)
    assert found["eigen_improved"] == ("none", "annotated", "disparity", "average", True, "median", 1e-3, 80.0)
    assert found["cityscapes"][:1] + found["cityscapes"][2:] == ("cityscapes", "depth", "lower", False, "median", 1e-3, 80.0)
    assert found["synthetic"] == ("none", "annotated", "disparity", "average", False, "median", 1e-3, 80.0)
    masks = {name: protocols.protocol(name).object_masks for name in protocols.PROTOCOLS}
    assert masks == dict.fromkeys(protocols.PROTOCOLS, "native") | {"cityscapes": "network"}
    assert found["make3d"] == (*found["synthetic"][:-1], 70.0)


def test_choose_changes_fields_and_keeps_batch_size():
    current = EvalConfig(batch_size=3, crop="none")
    assert protocols.choose(current) == current
    assert protocols.choose(current, "eigen") == EvalConfig(batch_size=3)
    changed = protocols.choose(current, "make3d", {"min_depth": 1.0, "scaling": "given", "scale": 5.4})
    assert changed == dataclasses.replace(protocols.protocol("make3d"), batch_size=3, min_depth=1.0, scaling="given", scale=5.4)
    with pytest.raises(ConfigError, match="unknown evaluation protocol 'kitti': use one of eigen, eigen_improved"):
        protocols.choose(current, "kitti")


@pytest.mark.parametrize(
    ("variant", "name"), [("kitti", "eigen"), ("cityscapes", "cityscapes"), ("synthetic", "synthetic"), ("demo", "synthetic")]
)
def test_configs_use_protocols(variant, name):
    assert protocols.name_of(dynamic_depth.get_config(variant).eval) == name


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "velodyne ground truth from 0.001 to 80 m, crop eigen; predicted disparity"),
        ({"median": "lower"}, "ratio of medians (of an even count: lower)"),
        ({"scaling": "given", "scale": 5.4}, "multiplied by 5.4"),
        ({"scaling": "camera_height"}, "the camera is 1.65 m above the road."),
        ({"scaling": "camera_height", "camera_pitch": 2.2}, "1.65 m above the road, looking down by 2.2 degrees."),
        ({"far_truth": True}, "from 0.001 on, predictions clamped to 80 m"),
        ({"crop": "cityscapes"}, "Protocol own: ground truth"),
        ({"object_masks": "network"}, "(of an even count: average); object masks resized to training size first."),
    ],
)
def test_describe(fields, message):
    assert message in protocols.describe(EvalConfig(**fields))
