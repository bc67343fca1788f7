import dataclasses
from pathlib import Path

import jax.numpy as jnp
import pytest
import tiny

from configs import ablations as file
from dd_jax.ablations import plan, result
from dd_jax.ablations.plan import Row
from dd_jax.checkpoints import saved
from dd_jax.config import ConfigError, to_dict
from dd_jax.config.rules import validate

RESULTS = sorted((Path(__file__).parents[2] / "docs/results").glob("*.json"))
FREE = {"dynamic_trained", "pose_cycle", "flow_net", "many_trained", "ds_depth"}
ROWS = {"a": Row("A", {}), "b": Row("B", {}, "a"), "c": Row("C", {}, "b"), "d": Row("D", {}, "a")}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A saved model without student, of unusual size and learning rate."""
    config = tiny.config(
        model={"student": False},
        domd={"enabled": False},
        loss={"occlusion_rule": "min"},
        optim={"freeze_step": -1, "learning_rate": 3e-4},
        data={"frame_step": 2},
    )
    folder = tmp_path_factory.mktemp("base")
    saved.write(folder, tiny.restored(config))
    return str(folder)


@pytest.fixture
def config_of(base):
    def config_of(row, **data):
        config = file.get_config(f"{row}/{base}")
        config.data.root = "unused"
        for name, value in data.items():
            setattr(config.data, name, value)
        validate(config)
        return config

    return config_of


def test_requested_rows_come_with_their_controls_in_table_order():
    assert plan.choose(ROWS, ["c", "c"]) == ["a", "b", "c"]
    assert plan.choose(ROWS, ["d", "a"]) == ["a", "d"] and plan.choose(ROWS, []) == list(ROWS)
    with pytest.raises(ConfigError, match="--rows: unknown e; choose from a, b, c, d"):
        plan.choose(ROWS, ["a", "e"])


def test_every_row_is_valid_and_differs_from_its_control(config_of):
    kept, sentences = plan.leave_out(list(file.ROWS), file.ROWS, config_of)
    assert list(kept) == list(file.ROWS) and not sentences


def test_row_continues_the_base_with_its_config(config_of, base):
    config = config_of("normal_l1")
    assert config.train.init_from == base and config.model.student and config.name == "normal_l1"
    assert (config.model.width, config.cost_volume.bins, config.data.frame_step) == (8, 8, 2)
    assert config.optim.learning_rate == 3e-4 and config.optim.steps == file.STEPS and config.domd.enabled
    assert config.loss.normal_l1 == 1 and config.loss.normal_rank == 0


def test_a_row_and_its_control_differ_in_one_section_or_the_method(config_of):
    for name, row in file.ROWS.items():
        if row.control not in (None, "many_depth", "many_trained"):
            own, control = (to_dict(config_of(one)) for one in (name, row.control))
            assert sum(own[section] != control[section] for section in own if section != "name") == 1, name


def test_compared_rows_train_the_same_networks(config_of):
    frozen = {name: config_of(name).optim.freeze_step == 0 for name in file.ROWS}
    assert {name for name, fixed in frozen.items() if not fixed} == FREE
    different = [name for name, row in file.ROWS.items() if row.control and frozen[name] != frozen[row.control]]
    assert different == ["dynamic_trained", "many_trained"]  # which measure just that


def test_invalid_rows_are_left_out_with_reason(config_of):
    kept, sentences = plan.leave_out(list(file.ROWS), file.ROWS, lambda row: config_of(row, masks="none"))
    assert list(kept) == ["many_depth", "many_trained", "ds_depth"]
    assert sentences[0].startswith("row dynamic_depth is left out: DOMD needs object masks")
    assert len(sentences) == len(file.ROWS) - 3


def test_row_that_computes_the_same_as_its_control_is_left_out(config_of):
    kept, (sentence,) = plan.leave_out(["a", "b"], ROWS, lambda row: config_of("many_depth"))
    assert list(kept) == ["a"] and sentence.startswith("row b is left out: it computes the same as a")


@pytest.mark.parametrize("name", ["many_depth", "unknown/runs/base", ""])
def test_row_and_base_are_both_needed(name):
    with pytest.raises(ConfigError, match="must be ROW/BASE, a row of many_depth, dynamic_depth, "):
        file.get_config(name)


def test_missing_base_raises():
    with pytest.raises(ConfigError, match="nowhere is not a folder"):
        file.get_config("many_depth/nowhere")


def test_digest_identifies_the_arrays_not_the_place(base, tmp_path):
    other = saved.restore(base)
    saved.write(tmp_path / "same", other)
    changed = dataclasses.replace(other, state=other.state.replace(depth_range=jnp.array([1.0, 3.0])))
    saved.write(tmp_path / "changed", changed)
    assert plan.digest_of(base) == plan.digest_of(str(tmp_path / "same")) != plan.digest_of(str(tmp_path / "changed"))


@pytest.mark.skipif(not RESULTS, reason="no results are committed")
@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_committed_results_match_the_rows(path):
    found = result.read(path)
    assert path.stem == f"{found.row}-{found.seed}" and found.config.train.init_from == ""
    values = to_dict(found.config)
    for flag, value in file.ROWS[found.row].changes.items():
        section, field = flag.split(".")
        assert values[section][field] == value, flag


def test_poster_rows_have_published_figures():
    assert len([row for row in file.ROWS.values() if row.published]) == 8
