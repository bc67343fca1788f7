"""A package of an extra that is not installed is named in one sentence, with the command that installs it."""

import importlib.util
import sys

import pytest
import tiny

from dd_jax.benchmarks import pytorch_peer
from dd_jax.checkpoints import hub, torch_files
from dd_jax.config import ConfigError
from dd_jax.export import artifacts
from dd_jax.prepare import networks
from dd_jax.report import logger

NEEDED_BY = {
    "torch": (lambda folder: torch_files.read(folder / "encoder.pth"), "pip install torch"),
    "transformers": (lambda folder: networks.libraries(), r"\.\[prepare\]"),
    "huggingface_hub": (lambda folder: hub.fetch("hf://owner/name", ("config.json",)), r"\.\[hub\]"),
    "onnx": (lambda folder: artifacts.load_onnx(folder / "teacher.onnx"), r"\.\[export\]"),
    "onnxruntime": (lambda folder: artifacts.load_onnx(folder / "teacher.onnx"), r"\.\[export\]"),
    "flatbuffers": (lambda folder: artifacts.load(folder / "teacher.stablehlo"), r"\.\[export\]"),
    "manydepth": (lambda folder: pytorch_peer.check(tiny.config()), r"\.\[peer\]"),
}


@pytest.mark.parametrize("package", NEEDED_BY)
def test_sentence_names_package_and_command(package, tmp_path, monkeypatch):
    use, command = NEEDED_BY[package]
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    if package == "transformers" and importlib.util.find_spec("torch") is None:
        package = "torch"
    name = {"torch": "(PyTorch|torch)"}.get(package, package)
    with pytest.raises(ConfigError, match=f"{name}.*{command}"):
        use(tmp_path)


def test_log_without_tensorboard(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with logger.Logger(tmp_path, total_steps=3) as log:
        log.log(1, {"total": 0.5})
    assert logger.read_history(tmp_path) == [{"step": 1, "kind": "train", "total": 0.5}]
    assert [path.name for path in tmp_path.iterdir()] == [logger.HISTORY]
