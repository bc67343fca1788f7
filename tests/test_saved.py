"""A saved system is the same system, and what is damaged says so."""

import json

import jax
import numpy as np
import pytest
import tiny

from dd_jax import checkpoint, saved
from dd_jax.config import ConfigError, to_dict


@pytest.fixture(scope="module")
def system():
    places = {"root": "/home/somebody/kitti", "cache_dir": "/scratch/x"}
    return tiny.restored(tiny.config(data=places, train={"init_from": "/home/somebody/run"}))


@pytest.fixture
def folder(system, tmp_path):
    saved.write(tmp_path / "model", system)
    return tmp_path / "model"


def test_arrays_config_and_origin_come_back(system, folder):
    again = saved.read(folder)
    jax.tree.map(np.testing.assert_array_equal, again.state.params, system.state.params)
    jax.tree.map(np.testing.assert_array_equal, again.state.batch_stats, system.state.batch_stats)
    np.testing.assert_array_equal(again.state.depth_range, system.state.depth_range)
    assert jax.tree.structure(again.state.params) == jax.tree.structure(system.state.params)
    assert (again.step, again.score, again.versions) == (0, None, system.versions)
    there, here = to_dict(again.config), to_dict(system.config)
    assert all(there[section] == here[section] for section in here if section not in ("data", "train"))
    assert saved.digest(again) == saved.digest(system)


def test_places_on_the_machine_that_trained_are_not_given_away(folder):
    text = (folder / saved.ABOUT).read_text()
    assert "somebody" not in text and "scratch" not in text
    assert sorted(path.name for path in folder.iterdir()) == [saved.ABOUT, saved.WEIGHTS]


def test_the_digest_tells_arrays_and_configs_apart(system):
    other = tiny.restored(system.config)
    other.state = other.state.replace(depth_range=other.state.depth_range * 2)
    assert saved.digest(other) != saved.digest(system)
    narrower = tiny.restored(tiny.config(cost_volume={"pool_radius": 2}))
    assert saved.digest(narrower) != saved.digest(system)


def test_a_checkpoint_and_what_is_saved_of_it_are_one(system, folder, tmp_path):
    with checkpoint.Writer(tmp_path / "run", system.config) as writer:
        writer.save(system.state.replace(opt_state={}), {})
    assert saved.digest(checkpoint.restore_params(tmp_path / "run")) == saved.digest(saved.read(folder))


def change(path, edit):
    about = json.loads(path.read_text())
    edit(about)
    path.write_text(json.dumps(about))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda about: about.update(format=2), "has the format 2, this version reads 1: update dd_jax"),
        (lambda about: about.pop("config"), "cannot be read as what model.save writes .KeyError"),
        (lambda about: about["config"].update(colour=1), "config.json: config has an unknown key 'colour'"),
        (lambda about: about["config"]["model"].update(width="wide"), "config.json: "),
        (lambda about: about["config"]["data"].update(height=65), "config.json: --config.data.height=65 must be"),
        (
            lambda about: about["config"]["model"].update(width=16),
            r"not hold the networks of the config.json beside it: .* is float32\[8\] there and float32\[16\] here; and \d+ more",
        ),
    ],
)
def test_a_changed_description_is_refused(folder, edit, message):
    change(folder / saved.ABOUT, edit)
    with pytest.raises(ConfigError, match=message):
        saved.read(folder)


def test_damaged_files_are_refused(folder):
    weights = folder / saved.WEIGHTS
    data = weights.read_bytes()
    for part in (data[: len(data) // 2], data[:5], b"", b"\xff" * 100):
        weights.write_bytes(part)
        with pytest.raises(ConfigError, match=r"model.safetensors is missing, cut off or damaged .* copy it again"):
            saved.read(folder)
    weights.unlink()
    with pytest.raises(ConfigError, match=r"model.safetensors is missing"):
        saved.read(folder)
    (folder / saved.ABOUT).write_text("{")
    with pytest.raises(ConfigError, match=r"config.json cannot be read"):
        saved.read(folder)


def test_a_folder_that_cannot_be_written_is_said(system, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"file/model cannot be written \(Not a directory\): name another folder"):
        saved.write(tmp_path / "file/model", system)
