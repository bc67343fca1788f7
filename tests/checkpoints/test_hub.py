"""Addresses of the hub, with a cache made by hand: no test needs a network."""

import os
import subprocess
import sys

import pytest

from dd_jax.checkpoints import hub
from dd_jax.config import ConfigError

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path):
    pytest.importorskip("huggingface_hub", reason="pip install -e '.[hub]'")
    repository = tmp_path / "models--owner--name"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs/main").write_text(COMMIT)
    (repository / "snapshots" / COMMIT).mkdir(parents=True)
    (repository / "snapshots" / COMMIT / "config.json").write_text("{}")
    return tmp_path


def fetch_offline(cache, *addresses):
    """Messages of a fresh process: the hub reads its environment on import."""
    code = """
import sys
from dd_jax import config
from dd_jax.checkpoints import hub
for address in sys.argv[1:]:
    try: print(hub.fetch(address, ("config.json",)))
    except config.ConfigError as error: print(error)
"""
    environment = os.environ | {"HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": "1"}
    run = subprocess.run([sys.executable, "-c", code, *addresses], env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout.splitlines()


def test_offline_cache(cache):
    (cache / "models--owner--other/refs").mkdir(parents=True)
    (cache / "models--owner--other/refs/main").write_text(COMMIT)
    (cache / "models--owner--other/snapshots" / COMMIT).mkdir(parents=True)
    (cache / "models--owner--other/snapshots" / COMMIT / "weights.bin").write_text("")
    addresses = "hf://owner/name", f"hf://owner/name@{COMMIT}", "hf://owner/name@main", "hf://owner/name@v2", "hf://owner/none"
    *there, revision, unknown, other = fetch_offline(cache, *addresses, "hf://owner/other")
    assert there == [str(cache / "models--owner--name/snapshots" / COMMIT)] * 3
    for message, address in ((revision, "hf://owner/name@v2"), (unknown, "hf://owner/none")):
        assert message.startswith(f"{address} is not complete in the cache, and the hub is not reachable or HF_HUB_OFFLINE is")
    assert other == "hf://owner/other has no config.json: give the address of a repository with these files"


@pytest.mark.parametrize("address", ["hf://name", "hf://a/b/c", "hf://a/b@", "hf:///b", "hf://a/b@x y"])
def test_malformed_address_raises(address):
    assert hub.is_address(address)
    with pytest.raises(ConfigError, match=r"is not an address of the hub: write hf://owner/name, or hf://owner/name@revision"):
        hub.fetch(address, ())


def test_missing_package_raises(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ConfigError, match=r"hf://owner/name needs the package huggingface_hub: pip install -e '\.\[hub\]'"):
        hub.fetch("hf://owner/name", ())


def test_folder_is_not_an_address(tmp_path):
    assert not any(map(hub.is_address, ("runs/kitti", "hf", tmp_path)))
