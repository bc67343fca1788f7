"""A saved system is the same system, and what is damaged says so."""

import dataclasses
import hashlib
import json

import jax
import numpy as np
import pytest
import tiny
from safetensors.numpy import load_file, save_file

from dd_jax.checkpoints import hub, run_folder, saved
from dd_jax.config import ConfigError, to_dict
from dd_jax.networks import model as networks


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


def test_half_the_size_is_nearly_the_same(system, folder, tmp_path):
    saved.write(tmp_path / "half", system, half=True)
    sizes = [(where / saved.WEIGHTS).stat().st_size for where in (folder, tmp_path / "half")]
    assert sizes[1] < 0.55 * sizes[0]
    again = saved.read(tmp_path / "half")
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=5e-4, atol=1e-7), again.state.params, system.state.params)
    jax.tree.map(np.testing.assert_array_equal, again.state.batch_stats, system.state.batch_stats)
    assert {leaf.dtype for leaf in jax.tree.leaves(again.state.params)} == {np.dtype(np.float32)}


def test_kernels_that_16_bits_do_not_hold_are_refused(system, tmp_path):
    large = jax.tree.map(lambda x: x * 1e8, system.state.params)
    with pytest.raises(ConfigError, match="kernel has values beyond the 65504 of 16 bits"):
        saved.write(tmp_path, dataclasses.replace(system, state=system.state.replace(params=large)), half=True)
    assert not list(tmp_path.iterdir())


def test_places_on_the_machine_that_trained_are_not_given_away(folder):
    text = (folder / saved.ABOUT).read_text()
    assert "somebody" not in text and "scratch" not in text
    assert sorted(path.name for path in folder.iterdir()) == [saved.CARD, saved.ABOUT, saved.WEIGHTS]
    assert "somebody" not in (folder / saved.CARD).read_text()


def test_what_it_started_from_keeps_its_name_alone(system, folder, tmp_path):
    assert saved.read(folder).config.train.init_from == "run"
    assert "| started from | run |" in (folder / saved.CARD).read_text()
    entries = "/home/somebody/resnet18-f37072fd.pth#f37072fd,hf://timm/resnet50.a1_in1k@main"
    saved.write(tmp_path, tiny.restored(tiny.config(train={"init_encoders": entries})))
    assert saved.read(tmp_path).config.train.init_encoders == "resnet18-f37072fd.pth#f37072fd,hf://timm/resnet50.a1_in1k@main"
    assert "| started from | resnet18-f37072fd.pth#f37072fd," in (tmp_path / saved.CARD).read_text()


def test_the_digest_tells_arrays_and_configs_apart(system):
    other = tiny.restored(system.config)
    other.state = other.state.replace(depth_range=other.state.depth_range * 2)
    assert saved.digest(other) != saved.digest(system)
    narrower = tiny.restored(tiny.config(cost_volume={"pool_radius": 2}))
    assert saved.digest(narrower) != saved.digest(system)


def test_a_checkpoint_and_what_is_saved_of_it_are_one(system, folder, tmp_path):
    with run_folder.Writer(tmp_path / "run", system.config) as writer:
        writer.save(system.state.replace(opt_state={}), {})
    assert saved.digest(run_folder.restore_params(tmp_path / "run")) == saved.digest(saved.read(folder))


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
        (lambda about: about.update(config=[]), r"config.json has config=\[\], which model.save does not write: copy the folder"),
        (lambda about: about.update(step="5"), "config.json has step='5', which"),
        (lambda about: about.update(step=2**40), "config.json has step=1099511627776, which"),
        (lambda about: about.update(step=float("inf")), "config.json has step=inf, which"),
        (lambda about: about.update(score="x"), "config.json has score='x', which"),
        (lambda about: about["config"]["model"].update(width="wide"), "config.json: config has model.width='wide', which should"),
        (lambda about: about["config"]["cost_volume"].update(bins=8.0), "config.json: config has cost_volume.bins=8.0, which"),
        (lambda about: about["config"]["train"].update(init_from=5), "config.json: config has train.init_from=5, which should"),
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


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("depth_range", [0, -1], "model.safetensors has 0 to -1 as its range of depth: it is damaged"),
        ("depth_range", [0.1, np.inf], "model.safetensors has values in depth_range that are no finite numbers"),
        ("params/pose/out/bias", [np.nan] * 12, "has values in params/pose/out/bias that are no finite numbers"),
    ],
)
def test_numbers_that_cannot_be_are_refused(folder, key, value, message):
    arrays = load_file(folder / saved.WEIGHTS)
    assert arrays[key].size == len(value)
    save_file(arrays | {key: np.float32(value)}, folder / saved.WEIGHTS)
    with pytest.raises(ConfigError, match=message):
        saved.read(folder)


def test_the_folder_of_a_run_is_kept_for_its_checkpoints(system, tmp_path):
    (tmp_path / "run/checkpoints").mkdir(parents=True)
    for place in ("run", "run/checkpoints"):
        with pytest.raises(ConfigError, match="is the folder of a run, whose checkpoints would be found no more: name another"):
            saved.write(tmp_path / place, system)
    assert not list((tmp_path / "run/checkpoints").iterdir())


def test_a_folder_that_cannot_be_written_is_said(system, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"file/model cannot be written \(Not a directory\): name another folder"):
        saved.write(tmp_path / "file/model", system)


ROW = {"abs_rel": 0.1234, "sq_rel": 1, "rmse": 4.5, "rmse_log": 0.2, "a1": 0.9, "a2": 0.95, "a3": 0.99, "pixels": 7}
SCORES = {"student": {"all": ROW}}


def test_the_card_names_the_weights_and_the_scores(system, folder):
    card = folder / saved.CARD
    assert hashlib.sha256((folder / saved.WEIGHTS).read_bytes()).hexdigest() in card.read_text()
    assert "Not evaluated." in card.read_text()
    (folder / saved.SCORES).write_text(json.dumps(SCORES))  # as an evaluation in this folder does
    saved.write(folder, saved.read(folder))
    assert "0.1234" in card.read_text() and saved.scores_of(folder) == SCORES


def test_what_somebody_wrote_into_the_card_stays_with_the_weights(system, folder):
    card = folder / saved.CARD
    mine = card.read_text().replace(saved.model_card.LICENCE, "license: mit")
    card.write_text(mine)
    saved.write(folder, system, SCORES)
    assert card.read_text() == mine and saved.scores_of(folder) == SCORES
    other = tiny.restored(system.config)
    other.state = other.state.replace(depth_range=other.state.depth_range * 2)
    saved.write(folder, other)
    assert "license: mit" not in card.read_text() and "Not evaluated." in card.read_text()
    assert not (folder / saved.SCORES).exists()  # they were those of the weights before


def test_another_readme_is_left_alone(system, tmp_path):
    (tmp_path / "README.md").write_text("# My project")
    (tmp_path / "metrics.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"README\.md is there and no card that model\.save wrote: name another folder"):
        saved.write(tmp_path, system)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "metrics.json"]


def test_damaged_scores_are_refused(folder):
    for text in ("{", "[]", '{"student": 1}', '{"student": {"all": {"pixels": 3}}}'):
        (folder / saved.SCORES).write_text(text)
        with pytest.raises(ConfigError, match=r"metrics\.json is no result of an evaluation \(.*\): evaluate again"):
            saved.scores_of(folder)
        with pytest.raises(ConfigError, match=r"metrics\.json is no result"):
            saved.scores_of(folder / "checkpoints")  # those of a run are beside its checkpoints


def test_a_system_is_found_wherever_it_is(system, folder, tmp_path, monkeypatch):
    with run_folder.Writer(tmp_path / "run", system.config) as writer:
        writer.save(system.state.replace(opt_state={}), {})
    monkeypatch.setattr(hub, "fetch", lambda address, needed, wanted: {"hf://owner/name": folder}[address])
    for place in (folder, str(folder), tmp_path / "run", tmp_path / "run/checkpoints", "hf://owner/name"):
        assert saved.digest(saved.restore(place)) == saved.digest(system)
    assert saved.restore(folder, "latest").step == saved.restore(folder, 0).step == 0
    with pytest.raises(ConfigError, match="is one system, of step 0: which='zz' is for the checkpoints of a run"):
        saved.restore(folder, "zz")
    places = "name that of a run, one that model.save wrote, hf://owner/name, or rendered, which comes with the library"
    with pytest.raises(ConfigError, match=f"nowhere is no folder: {places}"):
        saved.restore(tmp_path / "nowhere")
    wider = networks.initialise(tiny.config(model={"width": 16}), 0)
    expected = {"params": wider[0], "batch_stats": wider[1]}
    for place in (folder, tmp_path / "run"):
        with pytest.raises(ConfigError, match=r"holds other arrays: .*It was made with .*--config.model.width=8"):
            saved.restore(place, expected=expected)
