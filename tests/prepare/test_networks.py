import sys

import pytest

from dd_jax.config import ConfigError
from dd_jax.prepare import networks
from dd_jax.prepare.masks import segmenter
from dd_jax.prepare.priors import estimator


@pytest.mark.parametrize("make", [segmenter, estimator])
@pytest.mark.parametrize("absent", ["torch", "transformers"])
def test_missing_pytorch_names_extra(monkeypatch, make, absent):
    for name in ("torch", "transformers"):
        monkeypatch.setitem(sys.modules, name, None if name == absent else sys)
    with pytest.raises(ConfigError, match=rf"{absent} is not installed: pip install -e '.\[prepare\]'"):
        make("anything")


@pytest.mark.parametrize("make", [segmenter, estimator])
def test_absent_model_names_download(libraries, monkeypatch, tmp_path, make):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for name in ("someone/some-model", str(tmp_path / "absent")):
        with pytest.raises(ConfigError, match=rf"--model={name} is neither a folder .*hf download .*--model=DIR here") as error:
            make(name)
        assert "\n" not in str(error.value)


def test_other_kind_of_model_raises(libraries, segformer, depth_anything):
    with pytest.raises(ConfigError, match=r"is not a segmentation network") as error:
        segmenter(depth_anything)
    assert "\n" not in str(error.value)
    with pytest.raises(ConfigError, match=r"is not a depth network"):
        estimator(segformer)


def test_unavailable_device_raises(libraries):
    torch, _ = libraries
    assert networks.device_of(torch, "cpu").type == "cpu"
    for name in ("abacus", "xpu:7"):
        with pytest.raises(ConfigError, match=f"--device={name} is not usable"):
            networks.device_of(torch, name)
