"""A saved model is read back unchanged; damaged files raise."""

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
def model():
    places = {"root": "/home/somebody/kitti", "cache_dir": "/scratch/x"}
    return tiny.restored(tiny.config(data=places, train={"init_from": "/home/somebody/run"}))


@pytest.fixture
def folder(model, tmp_path):
    saved.write(tmp_path / "model", model)
    return tmp_path / "model"


def test_write_read_round_trip(model, folder):
    again = saved.read(folder)
    jax.tree.map(np.testing.assert_array_equal, again.state.params, model.state.params)
    jax.tree.map(np.testing.assert_array_equal, again.state.batch_stats, model.state.batch_stats)
    np.testing.assert_array_equal(again.state.depth_range, model.state.depth_range)
    assert jax.tree.structure(again.state.params) == jax.tree.structure(model.state.params)
    assert (again.step, again.score, again.versions) == (0, None, model.versions)
    there, here = to_dict(again.config), to_dict(model.config)
    assert all(there[section] == here[section] for section in here if section not in ("data", "train"))
    assert saved.digest(again) == saved.digest(model)


def test_half_precision(model, folder, tmp_path):
    saved.write(tmp_path / "half", model, half=True)
    sizes = [(where / saved.WEIGHTS).stat().st_size for where in (folder, tmp_path / "half")]
    assert sizes[1] < 0.55 * sizes[0]
    again = saved.read(tmp_path / "half")
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=5e-4, atol=1e-7), again.state.params, model.state.params)
    jax.tree.map(np.testing.assert_array_equal, again.state.batch_stats, model.state.batch_stats)
    assert {leaf.dtype for leaf in jax.tree.leaves(again.state.params)} == {np.dtype(np.float32)}


def test_kernel_beyond_float16_raises(model, tmp_path):
    large = jax.tree.map(lambda x: x * 1e8, model.state.params)
    with pytest.raises(ConfigError, match="kernel has values above 65504, the largest float16"):
        saved.write(tmp_path, dataclasses.replace(model, state=model.state.replace(params=large)), half=True)
    assert not list(tmp_path.iterdir())


def test_local_paths_are_not_saved(folder):
    text = (folder / saved.ABOUT).read_text()
    assert "somebody" not in text and "scratch" not in text
    assert sorted(path.name for path in folder.iterdir()) == [saved.CARD, saved.ABOUT, saved.WEIGHTS]
    assert "somebody" not in (folder / saved.CARD).read_text()


def test_initial_weights_are_saved_without_their_folder(model, folder, tmp_path):
    assert saved.read(folder).config.train.init_from == "run"
    assert "| initial weights | run |" in (folder / saved.CARD).read_text()
    entries = "/home/somebody/resnet18-f37072fd.pth#f37072fd,hf://timm/resnet50.a1_in1k@main"
    saved.write(tmp_path, tiny.restored(tiny.config(train={"init_encoders": entries})))
    assert saved.read(tmp_path).config.train.init_encoders == "resnet18-f37072fd.pth#f37072fd,hf://timm/resnet50.a1_in1k@main"
    assert "| initial weights | resnet18-f37072fd.pth#f37072fd," in (tmp_path / saved.CARD).read_text()


def test_digest_depends_on_arrays_and_config(model):
    other = tiny.restored(model.config)
    other.state = other.state.replace(depth_range=other.state.depth_range * 2)
    assert saved.digest(other) != saved.digest(model)
    narrower = tiny.restored(tiny.config(cost_volume={"pool_radius": 2}))
    assert saved.digest(narrower) != saved.digest(model)


def test_checkpoint_and_saved_copy_have_one_digest(model, folder, tmp_path):
    with run_folder.Writer(tmp_path / "run", model.config) as writer:
        writer.save(model.state.replace(opt_state={}), {})
    assert saved.digest(run_folder.restore_params(tmp_path / "run")) == saved.digest(saved.read(folder))


def change(path, edit):
    about = json.loads(path.read_text())
    edit(about)
    path.write_text(json.dumps(about))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda about: about.update(format=2), "has the format 2, this version reads 1: update dd_jax"),
        (lambda about: about.pop("config"), "is not a file that model.save wrote .KeyError"),
        (lambda about: about["config"].update(colour=1), "config.json: config has an unknown key 'colour'"),
        (lambda about: about.update(config=[]), r"config.json has config=\[\], which model.save does not write: copy the folder"),
        (lambda about: about.update(step="5"), "config.json has step='5', which"),
        (lambda about: about.update(step=2**40), "config.json has step=1099511627776, which"),
        (lambda about: about.update(step=float("inf")), "config.json has step=inf, which"),
        (lambda about: about.update(score="x"), "config.json has score='x', which"),
        (lambda about: about["config"]["model"].update(width="wide"), "config.json: config has model.width='wide', which must"),
        (lambda about: about["config"]["cost_volume"].update(bins=8.0), "config.json: config has cost_volume.bins=8.0, which"),
        (lambda about: about["config"]["train"].update(init_from=5), "config.json: config has train.init_from=5, which must"),
        (lambda about: about["config"]["data"].update(height=65), "config.json: --config.data.height=65 must be"),
        (
            lambda about: about["config"]["model"].update(width=16),
            r"not hold the networks of config.json in its folder: .* is float32\[8\] there and float32\[16\] here; and \d+ more",
        ),
    ],
)
def test_invalid_config_json_raises(folder, edit, message):
    change(folder / saved.ABOUT, edit)
    with pytest.raises(ConfigError, match=message):
        saved.read(folder)


def test_damaged_files_raise(folder):
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
    with pytest.raises(ConfigError, match=r"config.json is not a file that model.save wrote"):
        saved.read(folder)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("depth_range", [0, -1], "model.safetensors has the depth range 0 to -1: it is damaged"),
        ("depth_range", [0.1, np.inf], "model.safetensors has values in depth_range that are not finite"),
        ("params/pose/out/bias", [np.nan] * 12, "has values in params/pose/out/bias that are not finite"),
    ],
)
def test_invalid_values_raise(folder, key, value, message):
    arrays = load_file(folder / saved.WEIGHTS)
    assert arrays[key].size == len(value)
    save_file(arrays | {key: np.float32(value)}, folder / saved.WEIGHTS)
    with pytest.raises(ConfigError, match=message):
        saved.read(folder)


def test_weights_with_flipped_bits_raise(model, folder):
    """By the digest in config.json, or on the card of a model that an earlier version wrote."""
    weights = folder / saved.WEIGHTS
    data = bytearray(weights.read_bytes())
    data[-200] ^= 1
    weights.write_bytes(bytes(data))
    message = (
        r"model.safetensors is damaged or another file \(its SHA-256 begins with \w{8} and should with \w{8}\): copy the folder"
    )
    with pytest.raises(ConfigError, match=message):
        saved.read(folder)
    change(folder / saved.ABOUT, lambda about: about.pop("sha256"))
    with pytest.raises(ConfigError, match=message):
        saved.read(folder)
    (folder / saved.CARD).unlink()
    assert saved.digest(saved.read(folder)) != saved.digest(model)  # nothing tells


def test_saving_into_a_run_folder_raises(model, tmp_path):
    (tmp_path / "run/checkpoints").mkdir(parents=True)
    for place in ("run", "run/checkpoints"):
        with pytest.raises(ConfigError, match="is the folder of a run, whose checkpoints would be hidden: name another"):
            saved.write(tmp_path / place, model)
    assert not list((tmp_path / "run/checkpoints").iterdir())


def test_unwritable_folder_raises(model, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"file/model cannot be written \(Not a directory\): name another folder"):
        saved.write(tmp_path / "file/model", model)


ROW = {"abs_rel": 0.1234, "sq_rel": 1, "rmse": 4.5, "rmse_log": 0.2, "a1": 0.9, "a2": 0.95, "a3": 0.99, "pixels": 7}
SCORES = {"student": {"all": ROW}}


def test_card_has_digest_and_scores(model, folder):
    card = folder / saved.CARD
    assert hashlib.sha256((folder / saved.WEIGHTS).read_bytes()).hexdigest() in card.read_text()
    assert "Not evaluated." in card.read_text()
    (folder / saved.SCORES).write_text(json.dumps(SCORES))  # as an evaluation in this folder does
    saved.write(folder, saved.read(folder))
    assert "0.1234" in card.read_text() and saved.scores_of(folder) == SCORES


def test_edited_card_is_kept_for_the_same_weights(model, folder):
    card = folder / saved.CARD
    mine = card.read_text().replace(saved.model_card.LICENCE, "license: mit")
    card.write_text(mine)
    saved.write(folder, model, SCORES)
    assert card.read_text() == mine and saved.scores_of(folder) == SCORES
    other = tiny.restored(model.config)
    other.state = other.state.replace(depth_range=other.state.depth_range * 2)
    saved.write(folder, other)
    assert "license: mit" not in card.read_text() and "Not evaluated." in card.read_text()
    assert not (folder / saved.SCORES).exists()  # they belong to the previous weights


def test_foreign_readme_raises(model, tmp_path):
    (tmp_path / "README.md").write_text("# My project")
    (tmp_path / "metrics.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"README\.md is not a card that model\.save wrote: name another folder"):
        saved.write(tmp_path, model)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "metrics.json"]


def test_damaged_scores_raise(folder):
    for text in ("{", "[]", '{"student": 1}', '{"student": {"all": {"pixels": 3}}}'):
        (folder / saved.SCORES).write_text(text)
        with pytest.raises(ConfigError, match=r"metrics\.json is not the result of an evaluation \(.*\): evaluate again"):
            saved.scores_of(folder)
        with pytest.raises(ConfigError, match=r"metrics\.json is not the result"):
            saved.scores_of(folder / "checkpoints")  # a run has them in the parent folder


def test_restore_from_every_kind_of_place(model, folder, tmp_path, monkeypatch):
    with run_folder.Writer(tmp_path / "run", model.config) as writer:
        writer.save(model.state.replace(opt_state={}), {})
    monkeypatch.setattr(hub, "fetch", lambda address, needed, wanted: {"hf://owner/name": folder}[address])
    for place in (folder, str(folder), tmp_path / "run", tmp_path / "run/checkpoints", "hf://owner/name"):
        assert saved.digest(saved.restore(place)) == saved.digest(model)
    assert saved.restore(folder, "latest").step == saved.restore(folder, 0).step == 0
    with pytest.raises(ConfigError, match="is a single model, of step 0: which='zz' is for the checkpoints of a run"):
        saved.restore(folder, "zz")
    with pytest.raises(ConfigError, match=r"nowhere is not a folder: name .* a model that comes with the library \(rendered\)"):
        saved.restore(tmp_path / "nowhere")
    wider = networks.initialise(tiny.config(model={"width": 16}), 0)
    expected = {"params": wider[0], "batch_stats": wider[1]}
    for place in (folder, tmp_path / "run"):
        with pytest.raises(ConfigError, match=r"holds other arrays: .*It was made with .*--config.model.width=8"):
            saved.restore(place, expected=expected)
