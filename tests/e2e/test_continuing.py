"""Continuing a run: damaged checkpoints, other data. The step only counts and the state is small, so that nothing is compiled."""

import shutil

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from light_run import create_state

from dd_jax.checkpoints import run_folder
from dd_jax.config import Config, ConfigError, protocols
from dd_jax.method import compiled_steps
from dd_jax.report import read_history
from dd_jax.runtime import versions
from dd_jax.training import train as train_module
from dd_jax.training.train import initialise_from, train


@pytest.fixture(autouse=True)
def counting(monkeypatch):
    """Steps whose loss is the number of the step."""

    def step(state, batch):
        after = state.step + 1
        return state.replace(step=after), {"total": after.astype(jnp.float32), "skipped": jnp.float32(0)}

    monkeypatch.setattr(compiled_steps, "compile_train_step_now", lambda *_: step)
    monkeypatch.setattr(train_module, "create_state", create_state)
    monkeypatch.setattr(train_module, "validation_score", lambda *_: None)


def config(root, steps, **fields):
    training = {"log_every": 1, "eval_every": 0, "checkpoint_every": 2, "keep": 3} | fields
    changed = tiny.config(data={"root": str(root)}, optim={"steps": steps, "freeze_step": -1}, train=training)
    changed.eval = protocols.protocol("synthetic")
    return changed


def run(settings: Config, workdir):
    return train(settings, workdir, jax.devices()[:1])


def steps_of(workdir):
    return sorted(int(path.name) for path in (workdir / "checkpoints").iterdir())


def damage(workdir, step):
    for path in (workdir / "checkpoints" / str(step) / "state" / "d").iterdir():
        path.write_bytes(path.read_bytes()[:100])


def test_damaged_checkpoints_are_named_and_skipped_where_asked(drives, tmp_path, caplog):
    run(config(drives, 6), tmp_path)
    whole = read_history(tmp_path)
    for step in (4, 6):
        damage(tmp_path, step)
    folder = tmp_path / "checkpoints"
    message = (
        rf"checkpoint 6 in {folder} is damaged \(.*\): go on from 2 with --config.train.skip_damaged=True, or delete {folder}/6"
    )
    with pytest.raises(ConfigError, match=message):
        run(config(drives, 6), tmp_path)
    assert steps_of(tmp_path) == [2, 4, 6]

    state = run(config(drives, 6, skip_damaged=True), tmp_path)
    assert int(state.step) == 6 and steps_of(tmp_path) == [2, 4, 6]
    assert sorted(path.name for path in (tmp_path / "damaged").iterdir()) == ["4", "6"]
    assert caplog.text.count(": moved to") == 2 and f"checkpoint 4 in {folder} is damaged" in caplog.text
    assert [row["total"] for row in read_history(tmp_path)] == [row["total"] for row in whole] == [1, 2, 3, 4, 5, 6]
    assert run_folder.restore(tmp_path, create_state(config(drives, 6))).data == {"next_index": 6}

    for step in (2, 4, 6):
        damage(tmp_path, step)
    with pytest.raises(ConfigError, match=r"checkpoint 6 .* and no other one is whole: copy the run again, or train in an empty"):
        run(config(drives, 6, skip_damaged=True), tmp_path)


def test_run_that_starts_from_a_damaged_one_names_its_remedy(drives, tmp_path):
    run(config(drives, 4), tmp_path / "first")
    damage(tmp_path / "first", 4)
    place = tmp_path / "first/checkpoints/4"
    second = config(drives, 2, init_from=str(tmp_path / "first"))
    with pytest.raises(ConfigError, match=rf"--config.train.init_from: checkpoint 4 .*: delete {place} to start from 2$"):
        initialise_from(second, create_state(second))
    shutil.rmtree(place)  # as it says
    initialise_from(second, create_state(second))


def test_changes_are_named_and_other_data_refused_on_continuing(drives, tmp_path, capsys, monkeypatch):
    run(config(drives, 2), tmp_path / "run")
    monkeypatch.setattr(versions, "versions", lambda plain=versions.versions: plain() | {"jax": "0.99"})
    moved = tmp_path / "moved"
    shutil.copytree(drives, moved, ignore=shutil.ignore_patterns(".cache"))
    assert int(run(config(moved, 4), tmp_path / "run").step) == 4  # the same data elsewhere
    said = capsys.readouterr().err
    start = said.index(f"resuming {tmp_path / 'run'} from step 2\n")
    assert [line.partition(" is ")[0] for line in said[start:].splitlines()[1:4]] == [
        "  config.data.root", "  config.optim.steps", "  versions.jax"
    ]  # fmt: skip
    assert f"\n  versions.jax is 0.99, was {jax.__version__}\n" in said

    image = next(path for path in sorted(moved.rglob("image_02/data/*.png")))
    cv2.imwrite(str(image), np.zeros_like(cv2.imread(str(image))))
    refused = (
        r"checkpoints/4 was trained on other data than those of --config.data.root='{}' \({}\): give the data set of the run,"
    )
    sizes = r"\d+ samples from '.*' to '.*' have files of other sizes here"
    with pytest.raises(ConfigError, match=refused.format(moved, sizes)):
        run(config(moved, 6), tmp_path / "run")
    assert int(run(config(moved, 6, other_data=True), tmp_path / "run").step) == 6  # as it says, and noted from now on
    assert "\n  data.sizes is " in capsys.readouterr().err
    assert int(run(config(moved, 8), tmp_path / "run").step) == 8

    lists = moved / "splits/train_files.txt"
    lists.write_text("".join(f"{line}\n" for line in lists.read_text().splitlines()[:-3]))
    with pytest.raises(ConfigError, match=r"\(its \d+ samples from '.*' to '.*', here \d+ samples from '.*' to '.*'\)"):
        run(config(moved, 10), tmp_path / "run")
