"""Classifiers initialise the encoders with as many layers; digests are checked."""

import functools
import hashlib

import jax
import numpy as np
import pytest
import tiny
from safetensors.numpy import save_file

from dd_jax.checkpoints import hub, imagenet, torch_names
from dd_jax.config import ConfigError
from dd_jax.networks import model as networks


@functools.cache
def initial(layers, seed, **model):
    """(params, batch_stats) of new networks."""
    return networks.initialise(tiny.config(model={"student_layers": layers} | model), seed)


@functools.cache
def classifier(layers):
    """A ResNet's state dict with torchvision's names."""
    state = torch_names.to_torch(*initial(layers, 3))["encoder"]
    renamed = {}
    for key, value in state.items():
        if not key.startswith("reduce_conv"):
            key = key.replace("layer0.0.", "conv1.").replace("layer0.1.", "bn1.").replace("layer1.1.", "layer1.")
            renamed[key] = np.asarray(value, order="C")
    return renamed | {"fc.weight": np.ones((10, 64), np.float32), "fc.bias": np.ones(10, np.float32)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("imagenet")
    for layers in (18, 34, 50):
        save_file(classifier(layers), folder / f"resnet{layers}.safetensors")
    return folder


def filled(entries, layers=18, **model):
    config = tiny.config(model={"student_layers": layers} | model, train={"init_encoders": entries})
    trees = initial(layers, 1, **model)
    return trees, imagenet.fill_encoders(trees, config)


def assert_holds(trees, encoder, state):
    """Kernels, and running statistics, of an encoder."""
    for part in torch_names.ENCODERS[encoder].strip("/").split("/"):
        trees = tuple(tree[part] for tree in trees)
    params, batch_stats = trees
    block = params["layer3"]["blocks"]["block1"]["conv2"]["kernel"]
    np.testing.assert_array_equal(block, state["layer3.1.conv2.weight"].transpose(2, 3, 1, 0))
    np.testing.assert_array_equal(batch_stats["layer2"]["blocks"]["block0"]["shortcut"]["norm"]["mean"],
                                  state["layer2.0.downsample.1.running_mean"])  # fmt: skip


@pytest.mark.parametrize("layers", [18, 34, 50])
def test_encoder_is_filled_from_file_with_as_many_layers(folder, layers):
    entries = ",".join(str(folder / f"resnet{n}.safetensors") for n in sorted({18, layers}))
    before, after = filled(entries, layers)
    for encoder in ("teacher", "pose"):
        assert_holds(after, encoder, classifier(18))
    assert_holds(after, "student", classifier(layers))
    for tree in ("student", "teacher"):
        jax.tree.map(np.testing.assert_array_equal, before[0][tree]["decoder"], after[0][tree]["decoder"])
    np.testing.assert_array_equal(before[0]["student"]["encoder"]["reduce"]["kernel"],
                                  after[0]["student"]["encoder"]["reduce"]["kernel"])  # fmt: skip


def test_single_frame_model_needs_no_student_file(folder):
    _, after = filled(str(folder / "resnet18.safetensors"), 50, student=False)
    assert_holds(after, "teacher", classifier(18))


def test_wrong_digest_raises(folder, tmp_path):
    path = folder / "resnet18.safetensors"
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    filled(f"{path}#{digest}")
    filled(f"{path}#{digest[:8]}")
    wrong = "0" * 8 if digest[0] != "0" else "1" * 8
    with pytest.raises(ConfigError, match=rf"the SHA-256 of .*resnet18\.safetensors is {digest} and should begin with {wrong}: "):
        filled(f"{path}#{wrong}")
    named = tmp_path / f"resnet18-{wrong}.pth"  # PyTorch's naming
    named.write_bytes(b"something else")
    with pytest.raises(ConfigError, match=rf"the SHA-256 of .* should begin with {wrong}"):
        filled(str(named))


def test_unsuitable_files_raise(folder, tmp_path):
    with pytest.raises(ConfigError, match=r"resnet34\.safetensors is a ResNet of 34 layers; needed are 50 \(student\), 18 "):
        filled(str(folder / "resnet34.safetensors"), 50)
    with pytest.raises(ConfigError, match=r"init_encoders has no file for 50 \(student\): add one with as many layers"):
        filled(str(folder / "resnet18.safetensors"), 50)
    save_file({"weight": np.ones(3, np.float32)}, tmp_path / "x.safetensors")
    with pytest.raises(ConfigError, match=r"x\.safetensors is not a ResNet of 18, 34 or 50 layers; needed are 18 \(student\)"):
        filled(str(tmp_path / "x.safetensors"))
    save_file(classifier(18) | {"conv1.weight": np.ones((), np.float32)}, tmp_path / "x.safetensors")
    with pytest.raises(ConfigError, match=r"x\.safetensors: the checkpoint does not fit the model: wr.* shape: .*conv1\.weight"):
        filled(str(tmp_path / "x.safetensors"))
    with pytest.raises(ConfigError, match=r"resnet18\.safetensors: the checkpoint does not fit the model: wrong shape: "):
        filled(str(folder / "resnet18.safetensors"), width=16)


def test_hub_address(folder, monkeypatch, tmp_path):
    fetched = []
    (tmp_path / imagenet.ON_HUB).write_bytes((folder / "resnet18.safetensors").read_bytes())
    monkeypatch.setattr(hub, "fetch", lambda address, needed: (fetched.append((address, needed)), tmp_path)[1])
    _, after = filled("hf://timm/resnet18.a1_in1k@main")
    assert_holds(after, "student", classifier(18))
    assert fetched == [("hf://timm/resnet18.a1_in1k@main", (imagenet.ON_HUB,))]
