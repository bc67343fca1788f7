import pytest
import tiny

from dd_jax.config import ConfigError
from dd_jax.config.rules import validate


@pytest.mark.parametrize(
    ("section", "field", "value"),
    [
        ("data", "width", 100),
        ("data", "source", "nuscenes"),
        ("data", "mask_format", "ade20k"),
        ("data", "batch_size", 0),
        ("data", "frame_step", 0),
        ("data", "frame_step", -2),
        ("data", "frame_step", 1.5),
        ("data", "frame_step", True),
        ("data", "split", "eigen"),
        ("data", "root", ""),
        ("augment", "hue", 0.7),
        ("augment", "zoom", 0.9),
        ("model", "width", 12),
        ("model", "width", 8 * 10**12),
        ("model", "max_depth", 0.05),
        ("model", "initial_depth", 1000.0),
        ("model", "rotation_scale", 0.0),
        ("cost_volume", "bins", 1),
        ("cost_volume", "bins", 2**62),
        ("cost_volume", "max_depth", 500.0),
        ("cost_volume", "static_probability", 0.9),
        ("cost_volume", "pool_radius", -1),
        ("cost_volume", "pool_threshold", 5.0),
        ("domd", "upscale", 0),
        ("loss", "smoothness", -1.0),
        ("loss", "normal_rank", -0.1),
        ("loss", "normal_l1", float("inf")),
        ("eval", "max_depth", float("nan")),
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
def test_invalid_value_raises_one_sentence_with_flag(section, field, value):
    config = tiny.config(**{section: {field: value}})
    with pytest.raises(ConfigError, match=f"{section}.{field}") as error:
        validate(config)
    assert "\n" not in str(error.value)


def test_invalid_combinations_raise():
    with pytest.raises(ConfigError, match="4 devices"):
        validate(tiny.config(data={"batch_size": 6}), num_devices=4)
    with pytest.raises(ConfigError, match=r"2 processes: set --config\.train\.backend=jit"):
        validate(tiny.config(), num_devices=4, num_processes=2)
    validate(tiny.config(train={"backend": "jit"}), num_devices=4, num_processes=2)
    with pytest.raises(ConfigError, match="masks"):
        validate(tiny.config(data={"masks": "none"}))
    with pytest.raises(ConfigError, match="without a student"):
        validate(tiny.config(model={"student": False}, optim={"freeze_step": 10}))
    with pytest.raises(ConfigError, match=r"domd\.depth=ground has no effect without DOMD"):
        validate(tiny.config(domd={"enabled": False, "depth": "ground"}))
    for changes in ({"enabled": True, "exclude_from_loss": True}, {"enabled": False, "exclude_from_loss": True}):
        rule = "min" if changes["enabled"] else "switch"
        with pytest.raises(ConfigError, match="exclude_from_loss turns all objects into holes: set"):
            validate(tiny.config(domd=changes, loss={"occlusion_rule": rule}))
    for term in ("pose_cycle", "dynamic_cycle"):
        with pytest.raises(ConfigError, match=rf"loss\.{term} trains networks that --config\.optim\.freeze_step=0 freezes"):
            validate(tiny.config(loss={term: 0.1}, optim={"freeze_step": 0}, train={"init_from": "runs/teacher"}))
    with pytest.raises(ConfigError, match="normal_l1"):
        validate(tiny.config(model={"student": False}, optim={"freeze_step": -1}, loss={"normal_l1": 0.1}))
    with pytest.raises(ConfigError, match="dynamic_cycle needs object masks"):
        validate(tiny.config(data={"masks": "none"}, domd={"enabled": False}, loss={"dynamic_cycle": 0.1}))
    with pytest.raises(ConfigError, match=r"data.split is for --config.data.source=kitti"):
        validate(tiny.config(data={"split": "odom", "source": "folder"}))
    with pytest.raises(ConfigError, match=r"data.ground_truth_file"):
        validate(tiny.config(eval={"ground_truth": "file"}))
    with pytest.raises(ConfigError, match=r"data\.priors=files"):
        validate(tiny.config(loss={"normal_l1": 0.1, "normal_prior": "file"}))
    for message, changes in (
        ("needs a student", {"model": {"student": False}, "domd": {"enabled": False}, "optim": {"freeze_step": -1}}),
        ("domd.enabled=False", {}),
        ("its own flow network", {"domd": {"enabled": False}, "model": {"flow": True}}),
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
    for entries in ("resnet18.pth#12", "resnet18.pth#F37072FD", "a.pth,,b.pth", "#f37072fd"):
        with pytest.raises(ConfigError, match=r"init_encoders: '.*' is not FILE or FILE#DIGEST with the first 8 or more digits"):
            validate(tiny.config(train={"init_encoders": entries}))
    validate(tiny.config(train={"init_encoders": "resnet18.pth#f37072fd,hf://timm/resnet50.a1_in1k@main"}))
    with pytest.raises(ConfigError, match=r"init_from includes encoders: leave out --config\.train\.init_encoders"):
        validate(tiny.config(train={"init_from": "runs/kitti", "init_encoders": "resnet18.pth"}))
    with pytest.raises(ConfigError, match=r"model\.flow"):
        frozen = {"freeze_step": 0}
        validate(tiny.config(model={"flow": True}, optim=frozen, train={"init_from": "runs/teacher"}))


def test_tfds_copy_of_kitti_uses_kitti_config():
    from configs import dynamic_depth

    config = dynamic_depth.get_config("kitti")
    config.data.source = "tfds"
    validate(config)
    config.data.source = "folder"
    with pytest.raises(ConfigError, match=r"data\.split"):
        validate(config)
