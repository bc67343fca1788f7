"""Checkpoints with flipped bits, cut off or lost files, half-written folders, and those of other versions."""

import random
import shutil
from pathlib import Path

import fault_runs
import jax
import jax.numpy as jnp
import light_run
import pytest

from dd_jax import config as configs
from dd_jax.checkpoints import run_folder
from dd_jax.config import ConfigError
from dd_jax.runtime import versions
from dd_jax.training import train as train_module
from dd_jax.training.train import train

pytestmark = pytest.mark.faults

STEPS = {"optim": {"steps": 6}, "train": {"keep": 3, "eval_every": 2}}
MORE = {"optim": {"steps": 8}, "train": {"keep": 3, "eval_every": 2}}
FLIPS, CUTS, LOSSES = 50, 15, 15


@pytest.fixture(autouse=True)
def light(monkeypatch):
    light_run.install(monkeypatch.setattr)


def run(drives: Path, workdir: Path, sections: dict, **fields) -> None:
    sections = {**sections, "train": sections["train"] | fields}
    train(fault_runs.config(drives, **sections), workdir, jax.devices()[:1])


@pytest.fixture(scope="module")
def whole(tmp_path_factory, drives):
    """Folder of a run with the checkpoints 2, 4 and 6."""
    with pytest.MonkeyPatch.context() as patch:
        light_run.install(patch.setattr)
        workdir = tmp_path_factory.mktemp("whole")
        run(drives, workdir, STEPS)
    return workdir


@pytest.fixture(scope="module")
def expected(tmp_path_factory, drives, whole):
    with pytest.MonkeyPatch.context() as patch:
        light_run.install(patch.setattr)
        workdir = tmp_path_factory.mktemp("expected")
        run(drives, workdir, MORE)
    return fault_runs.result(workdir)


def chosen_file(draw: random.Random, checkpoints: Path) -> Path:
    """Mostly of the newest checkpoint; half of them by their number of bytes, so that large files are met too."""
    step = draw.choices(("6", "4", "2"), (4, 1, 1))[0]
    files = sorted(path for path in (checkpoints / step).rglob("*") if path.is_file())
    sizes = [path.stat().st_size for path in files] if draw.random() < 0.5 else None
    return draw.choices(files, sizes)[0]


def flip(draw: random.Random, path: Path) -> str:
    data = bytearray(path.read_bytes())
    place, bit = draw.randrange(len(data)), draw.randrange(8)
    data[place] ^= 1 << bit
    path.write_bytes(bytes(data))
    return f"bit {bit} of byte {place}"


def cut(draw: random.Random, path: Path) -> str:
    size = draw.randrange(path.stat().st_size)
    with path.open("r+b") as file:
        file.truncate(size)
    return f"after {size} bytes"


def lose(draw: random.Random, path: Path) -> str:
    path.unlink()
    return "lost"


DAMAGES = [*[(flip, "bit flipped")] * FLIPS, *[(cut, "file cut off")] * CUTS, *[(lose, "file lost")] * LOSSES]


def continues_or_refuses(drives, workdir, expected, trial) -> None:
    """The run continues bit-equal, at once or as the sentence says."""
    try:
        run(drives, workdir, MORE)
    except run_folder.DamagedCheckpoint as error:
        assert "\n" not in str(error) and "go on from" in str(error), error
        assert "--config.train.skip_damaged=True" in str(error)
        trial["said"] = error.found.replace(str(workdir), "WORKDIR")
        run(drives, workdir, MORE, skip_damaged=True)
    fault_runs.assert_bit_equal(fault_runs.result(workdir), expected)


@pytest.mark.parametrize("number", range(len(DAMAGES)))
def test_damaged_file_of_a_checkpoint(drives, whole, expected, figures, pytestconfig, tmp_path, number):
    damage, fault = DAMAGES[number]
    draw, workdir = random.Random(1000 * pytestconfig.getoption("--faults-seed") + number), tmp_path / "run"
    shutil.copytree(whole, workdir)
    path = chosen_file(draw, workdir / "checkpoints")
    with figures.trial(f"checkpoint: {fault}", file=str(path.relative_to(workdir / "checkpoints"))) as trial:
        trial["damage"] = damage(draw, path)
        continues_or_refuses(drives, workdir, expected, trial)
        trial["refused"] = "said" in trial


@pytest.mark.parametrize("name", ["8.orbax-checkpoint-tmp", "8", "6"])
def test_half_written_folder(drives, whole, expected, figures, tmp_path, name):
    """Not committed, committed by a copy that was cut short, and a newest one that lost its arrays."""
    workdir = tmp_path / "run"
    shutil.copytree(whole, workdir)
    half = workdir / "checkpoints" / name
    shutil.copytree(workdir / "checkpoints/4", half, dirs_exist_ok=True)
    for path in [path for path in sorted(half.rglob("*")) if path.is_file()][::2]:
        path.unlink()
    with figures.trial("checkpoint: half-written", folder=name) as trial:
        continues_or_refuses(drives, workdir, expected, trial)
        assert ("said" in trial) == name.isdigit()


def test_all_checkpoints_damaged(drives, whole, figures, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(whole, workdir)
    for path in (workdir / "checkpoints").rglob("_METADATA"):
        path.unlink()
    with (
        figures.trial("checkpoint: all damaged", outcome="refused"),
        pytest.raises(ConfigError, match=r"checkpoint 6 .* and no other one is whole: copy the run again, or train in an empty"),
    ):
        run(drives, workdir, MORE, skip_damaged=True)


def test_versions_of_other_libraries_do_not_matter(drives, expected, figures, tmp_path, monkeypatch):
    monkeypatch.setattr(versions, "versions", lambda: {"dd_jax": "9.9", "jax": "9.9"})
    with figures.trial("checkpoint: another version", what="libraries"):
        run(drives, tmp_path / "run", STEPS)
        monkeypatch.undo()
        light_run.install(monkeypatch.setattr)
        run(drives, tmp_path / "run", MORE)
        fault_runs.assert_bit_equal(fault_runs.result(tmp_path / "run"), expected)


def test_option_of_a_later_version_is_named(drives, figures, tmp_path, monkeypatch):
    plain = configs.to_dict

    def later(config):
        values = plain(config)
        values["model"]["invented_later"] = True
        return values

    with figures.trial("checkpoint: another version", outcome="refused", what="option"):
        with monkeypatch.context() as patch:
            patch.setattr(configs, "to_dict", later)
            run(drives, tmp_path / "run", STEPS)
        with pytest.raises(
            ConfigError, match=r"6 is of another version \(.*invented_later.*\): use that one, dd_jax \d"
        ) as error:
            run(drives, tmp_path / "run", MORE)
        assert "\n" not in str(error.value)


def test_networks_of_another_shape_are_named(drives, whole, figures, tmp_path, monkeypatch):
    shutil.copytree(whole, tmp_path / "run")
    fresh = light_run.create_state()
    wider = fresh.replace(params=fresh.params | {"pose": {"bias": jnp.zeros(32)}})
    monkeypatch.setattr(train_module, "create_state", lambda _: wider)
    with (
        figures.trial("checkpoint: another version", outcome="refused", what="shape"),
        pytest.raises(ConfigError, match=r"holds other arrays: params/pose/bias is float32\[16\] there and float32\[32\] here"),
    ):
        run(drives, tmp_path / "run", MORE)


@pytest.mark.parametrize("number", range(12))
def test_damaged_log_does_not_stop_the_run(drives, whole, expected, figures, tmp_path, number):
    """A flipped bit in metrics.jsonl: at most the record with this bit is lost or changed, and all later ones are there."""
    draw, workdir = random.Random(number), tmp_path / "run"
    shutil.copytree(whole, workdir)
    data = (workdir / "metrics.jsonl").read_bytes()
    with figures.trial("log: bit flipped") as trial:
        trial["damage"] = flip(draw, workdir / "metrics.jsonl")
        run(drives, workdir, MORE)
        place = int(trial["damage"].split()[-1])
        line = data[:place].count(b"\n")
        found = fault_runs.records(workdir)
        others = [row for at, row in enumerate(expected.records) if at not in (line, line + 1)]
        assert all(row in found for row in others)
        ended = fault_runs.result(workdir)
        ended.records = expected.records
        fault_runs.assert_bit_equal(ended, expected)
