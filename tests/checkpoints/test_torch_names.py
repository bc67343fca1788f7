import jax
import numpy as np
import pytest

from dd_jax.checkpoints import torch_names
from dd_jax.config import Config
from dd_jax.networks import model as networks


def config_of(**values):
    config = Config()
    config.model.width = 8
    config.cost_volume.bins = 4
    for name, value in values.items():
        setattr(config.model, name, value)
    return config


@pytest.fixture(scope="module")
def trees():
    return networks.initialise(config_of(), 0)


@pytest.fixture(scope="module")
def state_dicts(trees):
    return torch_names.to_torch(*networks.initialise(config_of(), 1))


def assert_equal_trees(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)):
        np.testing.assert_array_equal(x, y)


def test_export_import_round_trip(trees, state_dicts):
    imported = torch_names.from_torch(state_dicts, trees)
    assert_equal_trees(imported, networks.initialise(config_of(), 1))
    back = torch_names.to_torch(*imported)
    assert {net: sorted(state) for net, state in back.items()} == {net: sorted(state) for net, state in state_dicts.items()}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("teacher/encoder/conv1/kernel", ("mono_encoder", "encoder.conv1.weight")),
        ("teacher/encoder/conv1/norm/scale", ("mono_encoder", "encoder.bn1.weight")),
        ("teacher/encoder/layer3/blocks/block1/conv2/norm/var", ("mono_encoder", "encoder.layer3.1.bn2.running_var")),
        ("pose/encoder/layer2/blocks/block0/shortcut/kernel", ("pose_encoder", "encoder.layer2.0.downsample.0.weight")),
        ("pose/encoder/layer2/blocks/block0/shortcut/norm/mean", ("pose_encoder", "encoder.layer2.0.downsample.1.running_mean")),
        ("pose/squeeze/bias", ("pose", "net.0.bias")),
        ("pose/out/kernel", ("pose", "net.3.weight")),
        ("student/encoder/resnet/conv1/kernel", ("encoder", "layer0.0.weight")),
        ("student/encoder/resnet/conv1/norm/bias", ("encoder", "layer0.1.bias")),
        ("student/encoder/resnet/layer1/blocks/block0/conv1/kernel", ("encoder", "layer1.1.0.conv1.weight")),
        ("student/encoder/resnet/layer4/blocks/block1/conv3/norm/scale", ("encoder", "layer4.1.bn3.weight")),
        ("student/encoder/reduce/kernel", ("encoder", "reduce_conv.0.weight")),
        ("student/decoder/before/level4/kernel", ("depth", "decoder.0.conv.conv.weight")),
        ("student/decoder/after/level0/bias", ("depth", "decoder.9.conv.conv.bias")),
        ("teacher/decoder/heads/scale3/kernel", ("mono_depth", "decoder.13.conv.weight")),
    ],
)
def test_names_of_the_published_checkpoints(path, expected):
    assert torch_names.torch_name(path) == expected


def test_kernels_and_gradients_are_transposed(trees, state_dicts):
    params, _ = torch_names.from_torch(state_dicts, trees)
    kernel = state_dicts["mono_encoder"]["encoder.conv1.weight"]
    np.testing.assert_array_equal(params["teacher"]["encoder"]["conv1"]["kernel"], kernel.transpose(2, 3, 1, 0))
    gradient = torch_names.to_torch({"teacher": params["teacher"]})
    assert set(gradient) == {"mono_encoder", "mono_depth"}
    np.testing.assert_array_equal(gradient["mono_encoder"]["encoder.conv1.weight"], kernel)


def test_partial_import_keeps_other_networks(trees, state_dicts):
    params, stats = torch_names.from_torch({net: state_dicts[net] for net in ("mono_encoder", "mono_depth")}, trees)
    assert_equal_trees(params["student"], trees[0]["student"])
    assert_equal_trees(stats["pose"], trees[1]["pose"])
    with pytest.raises(AssertionError):
        assert_equal_trees(params["teacher"], trees[0]["teacher"])


def test_entries_without_parameters_are_ignored(trees, state_dicts):
    extra = {
        "height": np.array(192),
        "backprojector.ones": np.ones(3),
        "prematching_conv.0.weight": np.ones((2, 8, 1, 1)),
        "layer0.1.num_batches_tracked": np.array(7),
        "min_depth_bin": np.array(0.5),
        "max_depth_bin": np.array(20.0),
    }
    loaded = {"encoder": state_dicts["encoder"] | extra}
    assert_equal_trees(torch_names.from_torch(loaded, trees), torch_names.from_torch({"encoder": state_dicts["encoder"]}, trees))


def test_mismatches_are_listed(trees, state_dicts):
    broken = dict(state_dicts["pose"])
    del broken["net.1.bias"]
    broken["net.9.weight"] = np.ones(3)
    broken["net.3.weight"] = np.ones((12, 16, 1, 1))
    with pytest.raises(
        ValueError, match=r"missing: pose: net\.1\.bias; unexpected: pose: net\.9\.weight; wrong shape: .*net\.3\.w"
    ):
        torch_names.from_torch({"pose": broken}, trees)


def test_unknown_network_raises(trees, state_dicts):
    with pytest.raises(ValueError, match="no network is named posenet"):
        torch_names.from_torch({"posenet": {}}, trees)
    single_frame = networks.initialise(config_of(student=False), 0)
    with pytest.raises(ValueError, match=r"--config\.model\.student"):
        torch_names.from_torch({"depth": state_dicts["depth"]}, single_frame)


def torchvision_of(state):
    classifier = {key.removeprefix("encoder."): value for key, value in state.items()}
    return classifier | {"fc.weight": np.ones((10, 64)), "fc.bias": np.ones(10)}


def test_imagenet_weights_in_every_encoder(trees, state_dicts):
    state = torchvision_of(state_dicts["mono_encoder"])
    for name, prefix in torch_names.ENCODERS.items():
        params, stats = torch_names.from_torchvision(state, trees, name)
        encoder, running = params, stats
        for part in prefix.strip("/").split("/"):
            encoder, running = encoder[part], running[part]
        kernel = state["conv1.weight"].transpose(2, 3, 1, 0)
        if name == "pose":  # equal images give the features of one
            kernel = np.concatenate([kernel, kernel], axis=2) / 2
        np.testing.assert_array_equal(encoder["conv1"]["kernel"], kernel)
        block = running["layer4"]["blocks"]["block1"]["conv2"]["norm"]
        np.testing.assert_array_equal(block["var"], state["layer4.1.bn2.running_var"])
    assert_equal_trees(params["teacher"]["decoder"], trees[0]["teacher"]["decoder"])


def test_imagenet_weights_with_other_layers_raise(trees):
    deeper = torch_names.to_torch(*networks.initialise(config_of(student_layers=34), 0))["encoder"]
    state = {key.replace("layer0.0", "conv1").replace("layer0.1", "bn1").replace("layer1.1.", "layer1."): value
             for key, value in deeper.items() if not key.startswith("reduce")}  # fmt: skip
    with pytest.raises(ValueError, match=r"unexpected: .*layer1\.2"):
        torch_names.from_torchvision(state, trees, "teacher")
