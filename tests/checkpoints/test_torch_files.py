"""Arrays are read from PyTorch files; code in them is never run."""

import argparse
import json
import os
import pickle
import struct
import sys

import numpy as np
import pytest
from safetensors.numpy import save_file

from dd_jax.checkpoints import torch_files
from dd_jax.config import ConfigError

ARRAYS = {"net.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "net.bias": np.ones(2, np.float32), "height": np.array(64)}
NEEDS_TORCH = "PyTorch reads .pth files: pip install -e '.[prepare]'"


def assert_same(found, expected=ARRAYS):
    assert sorted(found) == sorted(expected)
    for key, value in expected.items():
        np.testing.assert_array_equal(found[key], value)


def test_safetensors(tmp_path):
    save_file(ARRAYS, tmp_path / "a.safetensors")
    assert_same(torch_files.read(tmp_path / "a.safetensors"))


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_prefix_of_a_wrapped_network_is_removed(tmp_path, prefix):
    """Also where numbers such as the image size were added without it, and where a part of the network was wrapped."""
    for wrapped in (
        {f"{prefix}{key}": value for key, value in ARRAYS.items()},
        {f"{prefix}{key}" if value.ndim else key: value for key, value in ARRAYS.items()},
    ):
        save_file(wrapped, tmp_path / "a.safetensors")
        assert_same(torch_files.read(tmp_path / "a.safetensors"))
    one = ARRAYS["height"]
    save_file({f"encoder.{prefix}a": one, "submodule.b": one}, tmp_path / "a.safetensors")
    assert_same(torch_files.read(tmp_path / "a.safetensors"), {"encoder.a": 64, "submodule.b": 64})
    save_file({f"{prefix}a": one, "a": one}, tmp_path / "a.safetensors")
    assert_same(torch_files.read(tmp_path / "a.safetensors"), {f"{prefix}a": 64, "a": 64})


def test_damaged_safetensors(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file(ARRAYS, path)
    data = path.read_bytes()
    for part in (data[: len(data) // 2], data[:-1], data[:5], b"", b"\xff" * 100):
        path.write_bytes(part)
        with pytest.raises(ConfigError, match=r"a\.safetensors is missing, cut off or damaged \(.*\): copy it again"):
            torch_files.read(path)
    for function in (torch_files.read, torch_files.sha256):
        with pytest.raises(ConfigError, match=r"b\.safetensors is missing"):
            function(tmp_path / "b.safetensors")


def test_bfloat16_safetensors_raises(tmp_path):
    head = json.dumps({"a": {"dtype": "BF16", "shape": [1], "data_offsets": [0, 2]}}).encode()
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(head)) + head + b"\0\0")
    with pytest.raises(ConfigError, match=r"holds arrays of the type 'BF16', which NumPy does not have: save them as float32"):
        torch_files.read(tmp_path / "a.safetensors")


def test_unknown_suffix_raises(tmp_path):
    with pytest.raises(ConfigError, match=r"a\.onnx is not one of \.safetensors, \.pth, \.pt, \.ckpt"):
        torch_files.read(tmp_path / "a.onnx")


def test_pickle_without_pytorch_raises(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ConfigError, match=r"a\.pth needs PyTorch to be read: pip install torch, or convert the file"):
        torch_files.read(tmp_path / "a.pth")


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason=NEEDS_TORCH)


def tensors(torch):
    return {key: torch.from_numpy(value) if value.ndim else int(value) for key, value in ARRAYS.items()}


def test_pickles(torch, tmp_path):
    plain = tensors(torch)
    lightning = {"epoch": 3, "state_dict": plain, "hyper_parameters": {"hparams": argparse.Namespace(lr=1e-4, name="x")}}
    for name, content in (("a.pth", plain), ("a.pt", plain), ("a.ckpt", lightning), ("b.pth", {"model": plain})):
        torch.save(content, tmp_path / name)
        assert_same(torch_files.read(tmp_path / name))
    torch.save({"a": torch.full((2,), 1.5, dtype=torch.bfloat16), "b": torch.nn.Parameter(torch.ones(1))}, tmp_path / "a.pth")
    assert_same(torch_files.read(tmp_path / "a.pth"), {"a": np.float32([1.5, 1.5]), "b": np.ones(1)})


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def test_code_in_a_pickle_is_not_run(torch, tmp_path):
    trace = tmp_path / "ran"
    torch.save({"a": torch.ones(1), "b": Evil(trace)}, tmp_path / "a.pth")
    for protocol in (2, 4):
        (tmp_path / f"b{protocol}.pth").write_bytes(pickle.dumps(Evil(trace), protocol))
    code = r"\.pth was not read: it calls posix\.system, and such a file can run any code; get it as "
    for name, message in (("a", code), ("b2", code), ("b4", r"\.pth is missing, cut off or damaged \(it is not a PyTorch")):
        with pytest.raises(ConfigError, match=name + message) as error:
            torch_files.read(tmp_path / f"{name}.pth")
        assert "\n" not in str(error.value) and not trace.exists()


def test_damaged_pickles(torch, tmp_path):
    path = tmp_path / "a.pth"
    torch.save(tensors(torch), path)
    data = path.read_bytes()
    for part in (data[: len(data) // 2], data[:5], b"", b"not a PyTorch file"):
        path.write_bytes(part)
        with pytest.raises(ConfigError, match=r"a\.pth is missing, cut off or damaged \(.*\): copy it again") as error:
            torch_files.read(path)
        assert "\n" not in str(error.value)
    path.unlink()
    with pytest.raises(ConfigError, match=r"a\.pth is missing"):
        torch_files.read(path)


def test_other_content_raises(torch, tmp_path):
    for content, message in (
        ([torch.ones(1)], r"a\.pth holds a list, not arrays by name"),
        ({"a": torch.eye(2).to_sparse()}, r"a\.pth: a is a torch\.float32 that NumPy does not have: save it as float32"),
        ({"optimizer": {"lr": 1}}, r"a\.pth: optimizer is a dict, not an array: give a file with only the state dict"),
    ):
        torch.save(content, tmp_path / "a.pth")
        with pytest.raises(ConfigError, match=message):
            torch_files.read(tmp_path / "a.pth")
