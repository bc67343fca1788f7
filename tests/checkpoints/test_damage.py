"""A damaged checkpoint is named in one sentence, with another one that is whole; its bytes are never trusted."""

import json
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp
from small_runs import assert_same, config_with_keep, make_state, save_steps

from dd_jax.checkpoints import checksums, comparison, run_folder
from dd_jax.config import Config, ConfigError


@pytest.fixture
def run(tmp_path):
    """Checkpoints 2 and 4, the best one."""
    save_steps(tmp_path, {2: 0.5, 4: 0.3}, Config())
    return tmp_path


def files_of(folder):
    """Those that are read; Orbax keeps the arrays twice."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and "ocdbt.process" not in str(path))


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(bytes(data))


def both_refuse(run, step=4, other=2, why="is damaged"):
    """Reading to continue and reading the networks raise; returns the reasons they give."""
    reasons = []
    for read, remedy in (
        (lambda: run_folder.restore(run, make_state(0)), "--config.train.skip_damaged=True"),
        (lambda: run_folder.restore_params(run, "latest"), f"--which={other}"),
    ):
        with pytest.raises(run_folder.DamagedCheckpoint, match=why) as error:
            read()
        folder = run / "checkpoints"
        said = rf"checkpoint {step} in {folder} is damaged \((.*)\): go on from {other} with {remedy}, or delete {folder}/{step}"
        reasons.append(re.fullmatch(said, str(error.value))[1])
        assert error.value.whole == other and error.value.path == folder / str(step)
    return reasons


@pytest.mark.parametrize("damage", [cut, flip, lambda path: path.write_bytes(b""), lambda path: path.unlink()])
def test_no_damaged_file_is_believed(run, tmp_path, damage):
    """Whatever file is damaged: the arrays are those saved, or the checkpoint is named."""
    found = set()
    for path in files_of(run / "checkpoints" / "4"):
        shutil.copytree(run, tmp_path / "whole", ignore=shutil.ignore_patterns("whole"))
        damage(path)
        try:
            assert_same(run_folder.restore(run, make_state(0)).state, make_state(4))
            assert_same(run_folder.restore_params(run).state.params, make_state(4).params)
        except run_folder.DamagedCheckpoint as error:
            found.add(path.name)
            assert error.whole == 2 and "\n" not in str(error)
        shutil.rmtree(run / "checkpoints")
        (tmp_path / "whole" / "checkpoints").rename(run / "checkpoints")
        shutil.rmtree(tmp_path / "whole")
    assert {"_CHECKPOINT_METADATA", "metrics", "manifest.ocdbt", "_METADATA"} <= found


def test_empty_and_half_copied_folders_are_damaged(run):
    shutil.rmtree(run / "checkpoints" / "4" / "state")
    both_refuse(run)
    shutil.rmtree(run / "checkpoints" / "4")
    (run / "checkpoints" / "4").mkdir()
    both_refuse(run, why="metadata")


def save_as_written(run, tree, about):
    """A checkpoint with these arrays and metadata, as a machine with a broken memory would write it."""
    with ocp.training.Checkpointer(run / "checkpoints") as saver:
        saver.save_checkpointables(6, {"state": tree}, custom_metadata=json.loads(json.dumps(about)))


@pytest.mark.parametrize("part", ["params", "batch_stats", "opt_state", "depth_range"])
def test_arrays_other_than_the_saved_ones_are_damage(run, part):
    tree = vars(make_state(6))
    about = {"config": Config().__dict__ | {k: vars(v) for k, v in vars(Config()).items() if k != "name"}, "versions": {}}
    about = checksums.add(about | {"data": {}, "score": None, "integer_keys": True}, tree, comparison.by_path(tree))
    tree[part] = jax.tree.map(lambda x: jnp.nextafter(x, 9.0) if x.dtype.kind == "f" else x, tree[part])
    save_as_written(run, tree, about)
    with pytest.raises(ConfigError, match=rf"checkpoint 6 .* is damaged \(its {part} are not those saved\): go on from 4 with"):
        run_folder.restore(run, make_state(0))
    if part == "opt_state":
        assert run_folder.restore_params(run, "latest").step == 6  # the networks are those saved
    else:
        with pytest.raises(ConfigError, match=rf"\(its {part} are not those saved\): go on from 4 with --which=4"):
            run_folder.restore_params(run, "latest")


def earlier_version(run, step, tree):
    """A checkpoint without checksums and without what identifies the data."""
    config = {name: value if name == "name" else vars(value) for name, value in vars(Config()).items()}
    del config["train"]["skip_damaged"], config["train"]["other_data"]
    about = {"config": config, "versions": {"jax": "0"}, "data": {"next_index": step}, "score": None, "integer_keys": True}
    save_as_written(run, tree, about)


def test_checkpoint_of_an_earlier_version_still_loads(tmp_path):
    earlier_version(tmp_path, 6, vars(make_state(6)))
    assert_same(run_folder.restore(tmp_path, make_state(0), Config(), {"samples": 1}).state, make_state(6))
    assert_same(run_folder.restore_params(tmp_path).state.params, make_state(6).params)


def test_values_that_are_not_finite_are_damage_without_checksums(run):
    state = vars(make_state(6))
    state["params"]["pose"]["scale"] = jnp.float32(np.nan)
    earlier_version(run, 6, state)
    both_refuse(run, 6, 4, why=r"\(params/pose/scale has values that are not finite\)")


@pytest.mark.parametrize("name", [checksums.ABOUT, checksums.ARRAYS, "params"])
def test_name_of_a_checksum_that_changed_is_damage(run, name):
    path = run / "checkpoints/4/_CHECKPOINT_METADATA"
    text = path.read_text()
    place = text.index(f'"{name}"', text.index(f'"{checksums.PARTS}"'))
    path.write_text(text[:place] + text[place:].replace(f'"{name}"', f'"{name[:-1]}~"', 1))
    both_refuse(run)


def test_newest_other_checkpoint_that_is_whole_is_named(tmp_path):
    save_steps(tmp_path, dict.fromkeys((1, 2, 3, 4)), config_with_keep(4))
    for step in (1, 3):
        cut(tmp_path / "checkpoints" / str(step) / "_CHECKPOINT_METADATA")
    with pytest.raises(ConfigError, match=r"checkpoint 1 .* go on from 4 with --which=4"):
        run_folder.restore_params(tmp_path, 1)
    cut(tmp_path / "checkpoints/4/_CHECKPOINT_METADATA")
    both_refuse(tmp_path, 4, 2)
    assert run_folder.config_of(tmp_path) == config_with_keep(4)  # of the newest that can be read
    cut(tmp_path / "checkpoints/2/_CHECKPOINT_METADATA")
    for read in (run_folder.config_of, run_folder.restore_params, lambda run: run_folder.restore(run, make_state(0))):
        with pytest.raises(
            ConfigError, match=r"is damaged \(.*\), and no other one is whole: copy the run again, or train in an"
        ):
            read(tmp_path)


def test_best_is_not_chosen_by_a_damaged_score(run):
    score = run / "checkpoints" / "2" / "metrics" / "metrics"
    score.write_text(score.read_text().replace("0.5", "0.1"))
    with pytest.raises(ConfigError, match=r"checkpoint 2 .* \(its score is not the one saved\): go on from 4 with --which=4"):
        run_folder.restore_params(run, "best")
    assert run_folder.restore_params(run, 4).step == 4
    score.write_text("{")
    with pytest.raises(ConfigError, match=r"checkpoint 2 .* \(its score cannot be read\): go on from 4 with --config"):
        run_folder.restore(run, make_state(0))  # saving reads the scores of all


def test_damaged_checkpoint_is_set_aside(run):
    place = run_folder.set_aside(run / "checkpoints" / "4")
    assert place == run / "damaged" / "4" and (place / "_CHECKPOINT_METADATA").is_file()
    assert run_folder.restore(run, make_state(0)).step == 2
    save_steps(run, {4: None}, Config())
    run_folder.set_aside(run / "checkpoints" / "4")  # again
    assert run_folder.restore_params(run, "best").step == 2
