import dataclasses
import json
from importlib import import_module
from pathlib import Path

import pytest
import tiny

from dd_jax.config import Config, ConfigError, from_dict, to_dict
from dd_jax.config.rules import validate

ROOT = Path(__file__).parents[2]
VARIANTS = ("demo", "ablation", "synthetic", "kitti", "cityscapes", "folder")
SYSTEMS = sorted(
    path for path in (ROOT / "configs").glob("*.py") if path.stem not in ("ablations", "recipe")
)  # have their own tests


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("path", SYSTEMS, ids=lambda path: path.stem)
def test_every_config_is_valid(path, variant):
    config = import_module(f"configs.{path.stem}").get_config(variant)
    validate(config, num_devices=1)
    assert config.name == path.stem


def test_unknown_variant_raises():
    from configs import dynamic_depth

    with pytest.raises(ConfigError, match="nuscenes"):
        dynamic_depth.get_config("nuscenes")


def test_dict_round_trip_through_json():
    config = tiny.config(loss={"ssim": 0.7}, optim={"freeze_step": 5})
    assert from_dict(json.loads(json.dumps(to_dict(config)))) == config


@pytest.mark.parametrize("values", [{"losses": {}}, {"loss": {"sim": 0.5}}])
def test_unknown_key_raises(values):
    with pytest.raises(ConfigError, match=r"losses|sim"):
        from_dict(values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model": []}, r"config has model=\[\], which must be of type dict"),
        ({"model": {"width": 8.0}}, "config has model.width=8.0, which must be of type int"),
        ({"model": {"width": True}}, "config has model.width=True, which must be of type int"),
        ({"loss": {"ssim": "0.5"}}, "config has loss.ssim='0.5', which must be of type float"),
        ({"loss": {"ssim": False}}, "config has loss.ssim=False, which must be of type float"),
        ({"domd": {"enabled": "no"}}, "config has domd.enabled='no', which must be of type bool"),
        ({"domd": {"enabled": 1}}, "config has domd.enabled=1, which must be of type bool"),
        ({"train": {"init_encoders": None}}, "config has train.init_encoders=None, which must be of type str"),
        ({"name": 5}, "config has name=5, which must be of type str"),
    ],
)
def test_value_of_wrong_type_raises(values, message):
    with pytest.raises(ConfigError, match=message):
        from_dict(values)


def test_integers_are_valid_floats():
    assert from_dict({"loss": {"ssim": 1}}).loss.ssim == 1
    with pytest.raises(ConfigError, match=r"config has loss.ssim=10*, which must be of type float"):
        from_dict({"loss": {"ssim": 10**400}})


def test_every_field_is_typed_and_has_a_default():
    for section in dataclasses.fields(Config):
        if section.name != "name":
            for field in dataclasses.fields(section.default_factory):
                assert isinstance(field.default, eval(field.type) if isinstance(field.type, str) else field.type)
