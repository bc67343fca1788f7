"""Names that files state (frames of a list, shards of a store, members of an archive) lead to no file outside the data set."""

import json
import zipfile

import pytest

from dd_jax.checkpoints import hub
from dd_jax.config import ConfigError
from dd_jax.data import folder, splits
from dd_jax.data.cityscapes.files import Tree
from dd_jax.data.tfds import store

OUTSIDE = ("..", "../x", "/etc", "a/../../x", "a\\..\\x", "./a", "a/", "a\0b")
STORE = {
    "fingerprint": "0123456789abcdef", "splits": {}, "unreadable": [], "shards": {},
    "settings": {
        "size": None, "reference": [64, 96], "depth": [], "source": "kitti", "resize": "area", "intrinsics": "calib",
        "masks": "none", "priors": "none",
    },
}  # fmt: skip


@pytest.mark.parametrize("name", OUTSIDE)
def test_split_files(name, tmp_path):
    path = tmp_path / "train_files.txt"
    lines = {
        splits.read_kitti: f"{name} 3 l\n",
        splits.read_cityscapes: f"{name} {name}_000001_000002\n",
        lambda path: folder._from_file(path, {name: ["a.png"]}): f"{name} a\n",
    }
    for read, line in lines.items():
        path.write_text(line)
        with pytest.raises(ConfigError, match="train_files"):
            read(path)


@pytest.mark.parametrize("name", OUTSIDE)
def test_shards_of_a_store(name, tmp_path):
    path = tmp_path / store.NOTE
    path.write_text(json.dumps(STORE))
    assert store.read_note(tmp_path) == STORE
    path.write_text(json.dumps(STORE | {"shards": {name: 3}}))
    with pytest.raises(ConfigError, match=r"store\.json cannot be read"):
        store.read_note(tmp_path)


def test_members_of_an_archive_are_never_written(tmp_path):
    root = tmp_path / "data"
    root.mkdir()
    with zipfile.ZipFile(root / "a.zip", "w") as archive:
        for name in ("../out.png", "/out.png", "leftImg8bit_sequence/train/ulm/../../../../out.png"):
            archive.writestr(name, "x")
    tree = Tree(root, [root / "a.zip"])
    assert tree.read("../out.png") == b"x", "from the archive, not from the disk"
    tree.close()
    assert [path.name for path in tmp_path.rglob("*")] == ["data", "a.zip"]


@pytest.mark.parametrize("address", ["hf://../..", "hf://../x", "hf://x/..", "hf://a/b@../../x", "hf://a/b/c", "hf://a"])
def test_hub_addresses(address):
    with pytest.raises(ConfigError, match="is not an address of the hub"):
        hub.fetch(address, ("config.json",))
