"""Stages trained one after another; interrupted after any step and continued elsewhere."""

import json
import math
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from dd_jax.checkpoints import run_folder
from dd_jax.config import ConfigError
from dd_jax.method import compiled_steps
from dd_jax.method.train_step import create_state
from dd_jax.runtime import hosts
from dd_jax.training import stages
from dd_jax.training import train as train_module
from dd_jax.training.train import TrainingError, initialise_networks

RECIPE = str(Path(__file__).parents[2] / "configs/recipe.py")


class StopAfter(hosts.StopSignal):
    """Stops after a number of steps."""

    def __init__(self, steps):
        super().__init__()
        self.left = steps

    def requested(self):
        return self.left <= 0

    def reached(self, step):
        self.left -= 1
        return self.requested()


def is_float(x):
    return jnp.issubdtype(x.dtype, jnp.floating)


@jax.jit
def simple_step(state, batch):
    """A step without networks, whose result depends on the batch, the optimizer's state and the initial networks."""
    mean = batch.images.mean() / 255
    opt_state = jax.tree.map(lambda x: 0.9 * x + mean if is_float(x) else x, state.opt_state)
    slow = max(jax.tree.leaves(opt_state), key=lambda x: x.size).mean()
    params = jax.tree.map(lambda x: 0.9 * x + 0.01 * slow, state.params)
    return state.replace(step=state.step + 1, params=params, opt_state=opt_state), {"total": mean, "skipped": 0 * mean}


def simplify(monkeypatch):
    monkeypatch.setattr(compiled_steps, "compile_train_step_now", lambda *_: simple_step)
    monkeypatch.setattr(train_module, "validation_score", lambda *_: None)
    monkeypatch.setattr(stages, "_measure", lambda stage: (stage.folder / stages.DIAGNOSIS).write_text("{}"))


@pytest.fixture(scope="module")
def finished_once(drives, tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as monkeypatch:
        simplify(monkeypatch)
        assert run(recipe(), folder / "work", drives, out=folder / "out") is None
    return folder


@pytest.fixture
def finished(finished_once, monkeypatch, tmp_path):
    """Both stages finished without interruption in ``work``, and handed back in ``out``; further steps are simple too."""
    simplify(monkeypatch)
    return shutil.copytree(finished_once, tmp_path / "finished")


def recipe(*changes):
    """Two stages of two steps."""
    found = stages.read_recipe(f"{RECIPE}:tiny", ["all.optim.steps=2", *changes])
    return {name: found[name] for name in ("poses", "teacher")}


def run(configs, workdir, drives, steps=math.inf, out=None, source=None):
    one = jax.devices()[:1]
    return stages.run(stages.chain(configs, workdir, str(drives), one), StopAfter(steps), out, source, one)


def run_in_slices(configs, folder, drives, steps):
    """Each slice of so many steps in a new workdir, from the folder that the one before handed back; the last workdir."""
    out, number = folder / "handed_back", 0
    while run(configs, folder / str(number), drives, steps, out, out if number else None) is not None:
        number += 1
    return folder / str(number)


def assert_equal_runs(one, other):
    jax.tree.map(np.testing.assert_array_equal, *(run_folder.restore_params(folder, "latest").state for folder in (one, other)))
    histories = [(folder / "metrics.jsonl").read_text().splitlines() for folder in (one, other)]
    steps = [[(row["step"], row["kind"], row.get("total")) for row in map(json.loads, history)] for history in histories]
    assert steps[0] == steps[1]


def kernel_type(folder):
    """The type in which the kernels of a saved model are stored."""
    return {str(array.dtype) for array in load_file(folder / "model.safetensors").values() if array.ndim == 4}


def test_continued_from_folder_handed_back_after_every_step_equals_uninterrupted(finished, drives, tmp_path):
    last = run_in_slices(recipe(), tmp_path, drives, steps=1)
    assert last.name == "4", "one slice per step, and one for the evaluation"
    assert_equal_runs(finished / "work/teacher", tmp_path / "3/teacher")
    types = [kernel_type(tmp_path / f"{number}/poses") for number in (2, 3)]
    assert types == [{"float32"}, {"float16"}], "half precision once the next stage has started"
    for out in (finished / "out", tmp_path / "handed_back"):
        assert kernel_type(out / "teacher") == {"float16"}
        names = sorted(path.name for path in (out / "teacher").iterdir())
        assert names == ["README.md", "config.json", "diagnosis.json", "metrics.jsonl", "model.safetensors"]


def test_stage_starts_from_the_one_before(finished, drives):
    assert run(recipe(), finished / "other", drives, steps=3).name == "teacher"
    first = run_folder.restore_params(finished / "other/teacher", 1).state.params
    before = run_folder.restore_params(finished / "work/poses").state.params
    for name in ("teacher", "pose"):  # the step moves all parameters alike
        moves = jax.tree.leaves(jax.tree.map(lambda new, old: np.asarray(new - 0.9 * old).ravel(), first[name], before[name]))
        np.testing.assert_allclose(np.concatenate(moves), moves[0][0], atol=1e-5)


def test_changes_of_a_finished_stage_raise(finished, drives, monkeypatch):
    def message(*changes, workdir="work", **folders):
        with pytest.raises(ConfigError) as error:
            run(recipe(*changes), finished / workdir, drives, **folders)
        assert "\n" not in str(error.value)
        return str(error.value)

    monkeypatch.setattr(stages, "train", lambda *_: pytest.fail("must not train"))
    assert run(recipe(), finished / "work", drives) is None
    assert "stage poses:" in (said := message("poses.optim.learning_rate=1e-5")) and "--set=poses.optim.learning_rate=" in said
    assert "poses was finished after 2 steps" in (said := message("all.optim.steps=5")) and "--set=poses.optim.steps=2" in said
    said = message("teacher.optim.steps=5", workdir="new", source=finished / "out")
    assert "teacher was finished after 2 steps" in said and "only its networks are left" in said
    assert "is the --workdir" in message(out=finished / "work")
    assert "continue from it with --from=" in message(workdir="empty", out=finished / "out")
    assert "has no stage of this recipe" in message(source=finished / "nothing")
    shutil.rmtree(finished / "work/poses")  # nothing needs it any more
    assert run(recipe(), finished / "work", drives) is None


def test_last_stage_trains_longer_and_is_measured_again(finished, drives):
    assert run(recipe("teacher.optim.steps=5"), finished / "work", drives) is None
    assert run_folder.newest(finished / "work/teacher") == 5
    assert (finished / "work/teacher" / stages.DIAGNOSIS).is_file()


def test_failed_run_hands_back_and_names_its_flags(finished, drives, monkeypatch):
    shutil.rmtree(finished / "work/teacher")
    shutil.rmtree(finished / "out")

    def fail(*_):
        raise TrainingError("not finite: lower --config.optim.learning_rate")

    monkeypatch.setattr(stages, "train", fail)
    with pytest.raises(TrainingError, match=r"^stage teacher: not finite: lower --set=teacher\.optim\.learning_rate$"):
        run(recipe(), finished / "work", drives, out=finished / "out")
    assert kernel_type(finished / "out/poses") == {"float32"}


@pytest.mark.parametrize(
    ("place", "changes", "message"),
    [
        (".old", [], "recipe.py.old does not exist"),
        (":huge", [], "rendered, demo, real, tiny and one of many_depth"),
        (":tiny/sc_depth", [], "rendered, demo, real, tiny and one of many_depth"),
        (":demo/monodepth2", [], "demo trains a student only, which monodepth2 has not"),
        (":tiny", ["pose.optim.steps=3"], "with a stage of poses, teacher, teacher_large, student, all"),
        (":tiny", ["poses.optim.steps"], "must be STAGE.SECTION.FIELD=VALUE"),
        (":tiny", ["poses.optim.step=3"], r"did you mean --set=poses\.optim\.steps"),
        (":tiny", ["poses.optim.steps=many"], "stage poses: config has optim.steps='many', which must be of type int"),
    ],
)
def test_invalid_recipe_or_change_raises(place, changes, message):
    with pytest.raises(ConfigError, match=message):
        stages.read_recipe(RECIPE + place, changes)


def test_file_without_stages_raises():
    with pytest.raises(ConfigError, match="has no function get_stages"):
        stages.read_recipe(__file__)


@pytest.mark.parametrize("variant", ["rendered", "tiny"])
@pytest.mark.parametrize("system", ["many_depth", "dynamic_depth", "ds_depth", "monodepth2"])
def test_recipes_are_valid_and_keep_the_networks(variant, system):
    changes = ["all.model.width=40", "poses.loss.pyramid=false", "poses.name=first"]
    configs = stages.read_recipe(f"{RECIPE}:{variant}/{system}", changes)
    chain = stages.chain(configs, Path("runs"), "data", jax.devices()[:1])
    last = {"monodepth2": [], "dynamic_depth": ["student", "dynamic"]}.get(system, ["student"])
    assert list(configs) == ["poses", "teacher", "teacher_large", *last]
    assert {stage.config.model.width for stage in chain} == {40}
    assert not configs["poses"].loss.pyramid and configs["teacher"].loss.pyramid and configs["poses"].name == "first"
    assert [stage.config.train.init_from for stage in chain] == ["", *(str(stage.folder) for stage in chain[:-1])]


@pytest.mark.parametrize("system", ["many_depth", "dynamic_depth", "ds_depth"])
def test_demo_is_a_student_on_the_bundled_teacher(system):
    (stage,) = stages.chain(stages.read_recipe(f"{RECIPE}:demo/{system}"), Path("runs"), "data", jax.devices()[:1])
    config = stage.config
    assert (stage.name, config.train.init_from, config.train.init_student) == ("student", "rendered", "teacher")
    fresh = jax.eval_shape(lambda: create_state(config))
    state = initialise_networks(config, jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), fresh))
    assert jax.tree.map(jnp.shape, state.params) == jax.tree.map(jnp.shape, fresh.params)


@pytest.mark.slow
def test_student_trains_and_continues_bit_equal(drives, tmp_path, monkeypatch):
    """Real steps; the script runs the other stages in ``e2e/test_documents.py``."""
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "compiled"))
    configs = {name: config for name, config in stages.read_recipe(f"{RECIPE}:tiny").items() if name in ("poses", "student")}
    try:
        with monkeypatch.context() as patch:
            patch.setattr(stages, "_measure", lambda _: None)
            run(configs, tmp_path / "whole", drives)
        last = run_in_slices(configs, tmp_path, drives, steps=4)
    finally:
        jax.config.update("jax_compilation_cache_dir", None)
    assert_equal_runs(tmp_path / "whole/student", last / "student")
    scores, diagnosis = (json.loads((last / "student" / name).read_text()) for name in ("metrics.json", stages.DIAGNOSIS))
    assert scores["student"]["all"]["abs_rel"] == pytest.approx(diagnosis["lookup"]["previous"]["all"], rel=1e-5)
