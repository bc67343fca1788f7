import dataclasses
import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import tiny

from dd_jax import command_line
from dd_jax.config import Config, ConfigError, from_dict, to_dict, validate

ROOT = Path(__file__).parents[1]
DEMO = "--config=configs/dynamic_depth.py:demo"
VARIANTS = ("demo", "ablation", "synthetic", "kitti", "cityscapes", "folder")
SYSTEMS = sorted(path for path in (ROOT / "configs").glob("*.py") if path.stem != "ablations")  # whose rows test_ablations checks


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("path", SYSTEMS, ids=lambda path: path.stem)
def test_every_config_is_valid(path, variant):
    config = import_module(f"configs.{path.stem}").get_config(variant)
    validate(config, num_devices=1)
    assert config.name == path.stem


def test_unknown_variant_is_named():
    from configs import dynamic_depth

    with pytest.raises(ConfigError, match="nuscenes"):
        dynamic_depth.get_config("nuscenes")


def test_dict_round_trip_through_json():
    config = tiny.config(loss={"ssim": 0.7}, optim={"freeze_step": 5})
    assert from_dict(json.loads(json.dumps(to_dict(config)))) == config


@pytest.mark.parametrize("values", [{"losses": {}}, {"loss": {"sim": 0.5}}])
def test_unknown_key_in_a_stored_config_is_named(values):
    with pytest.raises(ConfigError, match=r"losses|sim"):
        from_dict(values)


@pytest.mark.parametrize(
    ("section", "field", "value"),
    [
        ("data", "width", 100),
        ("data", "source", "nuscenes"),
        ("data", "mask_format", "ade20k"),
        ("data", "batch_size", 0),
        ("data", "split", "eigen"),
        ("data", "root", ""),
        ("augment", "hue", 0.7),
        ("augment", "zoom", 0.9),
        ("model", "width", 12),
        ("model", "max_depth", 0.05),
        ("model", "initial_depth", 1000.0),
        ("model", "rotation_scale", 0.0),
        ("cost_volume", "bins", 1),
        ("cost_volume", "max_depth", 500.0),
        ("cost_volume", "static_probability", 0.9),
        ("domd", "upscale", 0),
        ("loss", "smoothness", -1.0),
        ("loss", "normal_rank", -0.1),
        ("loss", "mask_weight", "maybe"),
        ("loss", "mask_power", 0.0),
        ("model", "flow_scale", 0.0),
        ("loss", "occlusion_rule", "maybe"),
        ("optim", "steps", 0),
        ("optim", "learning_rate", 0.0),
        ("optim", "freeze_step", 0),
        ("train", "backend", "xmap"),
        ("train", "keep", 0),
        ("eval", "crop", "garg"),
        ("eval", "min_depth", 90.0),
    ],
)
def test_each_impossible_value_names_its_flag_in_one_sentence(section, field, value):
    config = tiny.config(**{section: {field: value}})
    with pytest.raises(ConfigError, match=f"{section}.{field}") as error:
        validate(config)
    assert "\n" not in str(error.value)


def test_combinations_that_cannot_work_are_refused():
    with pytest.raises(ConfigError, match="4 devices"):
        validate(tiny.config(data={"batch_size": 6}), num_devices=4)
    with pytest.raises(ConfigError, match="masks"):
        validate(tiny.config(data={"masks": "none"}))
    with pytest.raises(ConfigError, match="without a student"):
        validate(tiny.config(model={"student": False}, optim={"freeze_step": 10}))
    with pytest.raises(ConfigError, match="normal_l1"):
        validate(tiny.config(model={"student": False}, optim={"freeze_step": -1}, loss={"normal_l1": 0.1}))
    with pytest.raises(ConfigError, match="dynamic_cycle needs object masks"):
        validate(tiny.config(data={"masks": "none"}, domd={"enabled": False}, loss={"dynamic_cycle": 0.1}))
    with pytest.raises(ConfigError, match=r"data.split is for --config.data.source=kitti"):
        validate(tiny.config(data={"split": "odom", "source": "folder"}))
    with pytest.raises(ConfigError, match=r"data.ground_truth_file names no file"):
        validate(tiny.config(eval={"ground_truth": "file"}))
    with pytest.raises(ConfigError, match=r"data\.priors=files"):
        validate(tiny.config(loss={"normal_l1": 0.1, "normal_prior": "file"}))
    for message, changes in (
        ("needs a student", {"model": {"student": False}, "domd": {"enabled": False}, "optim": {"freeze_step": -1}}),
        ("domd.enabled=False", {}),
        ("flow network of its own", {"domd": {"enabled": False}, "model": {"flow": True}}),
        ("freeze_step=0", {"domd": {"enabled": False}, "optim": {"freeze_step": 0}, "train": {"init_from": "runs/teacher"}}),
    ):
        with pytest.raises(ConfigError, match=message):
            validate(tiny.config(ds={"enabled": True}, **changes))
    for message, sc, loss in (
        ("model.student=False", {}, {}),
        ("smoothness", {"student": False}, {"smoothness": 1e-3}),
        ("data.priors=files", {"student": False}, {"smoothness": 0.0}),
    ):
        with pytest.raises(ConfigError, match=message):
            validate(tiny.config(sc={"enabled": True}, model=sc, loss=loss, optim={"freeze_step": -1}))
    with pytest.raises(ConfigError, match="mask_weight"):
        validate(tiny.config(data={"masks": "none"}, domd={"enabled": False}, loss={"mask_weight": "less"}))
    with pytest.raises(ConfigError, match=r"model\.flow"):
        frozen = {"freeze_step": 0}
        validate(tiny.config(model={"flow": True}, optim=frozen, train={"init_from": "runs/teacher"}))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([DEMO, "--config.loss.sim=1"], r"--config\.loss\.sim is not a field of the config; did you mean --config\.loss\.ssim"),
        ([DEMO, "--config.nothing.like.it=1"], r"--config\.nothing\.like\.it is not a field"),
        ([DEMO, "--config.data=here"], r"--config\.data is not a field"),
        ([DEMO, "--config.optim.steps=many"], r"--config\.optim\.steps=many: .*int"),
        ([DEMO, "--config.domd.enabled=maybe"], r"--config\.domd\.enabled=maybe: .*boolean"),
        (["--config=configs/dynamic_depth.py:none"], r"has no variant 'none'"),
        (["--config=configs/none.py"], r"configs/none\.py"),
        (["--config=configs/none.py", "--config.data.height=64"], r"configs/none\.py"),
        ([DEMO, "--confg=1"], r"confg"),
    ],
)
@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")  # of ml_collections
def test_command_line_refuses_in_one_sentence(arguments, says, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(ConfigError, match=says) as error:
        command_line.config_of(arguments)
    assert "\n" not in str(error.value) and "Traceback" not in str(error.value)


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
def test_command_line_sets_fields(monkeypatch):
    monkeypatch.chdir(ROOT)
    config = command_line.config_of([DEMO, "--config.data.height=96", "--config.domd.enabled=False"])
    assert (config.data.height, config.domd.enabled) == (96, False)


def test_train_script_prints_the_sentence_alone():
    given = [DEMO, "--workdir=unused", "--config.loss.sim=1"]
    result = subprocess.run([sys.executable, "scripts/train.py", *given], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 1 and result.stderr.startswith("error: --config.loss.sim") and result.stderr.count("\n") == 1
    assert not (ROOT / "unused").exists()


def test_every_field_is_typed_and_has_a_default():
    for section in dataclasses.fields(Config):
        if section.name != "name":
            for field in dataclasses.fields(section.default_factory):
                assert isinstance(field.default, eval(field.type) if isinstance(field.type, str) else field.type)
