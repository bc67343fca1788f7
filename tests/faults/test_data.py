"""The loader fails, files vanish or change in the middle of an epoch, the frame cache is damaged."""

import errno
import os
import random
import shutil

import cv2
import fault_runs
import jax
import light_run
import numpy as np
import pytest

from dd_jax.config import ConfigError
from dd_jax.data.loader import TripletSource
from dd_jax.runtime import command_line
from dd_jax.training.train import TrainingError, train

pytestmark = pytest.mark.faults


@pytest.fixture(autouse=True)
def light(monkeypatch):
    light_run.install(monkeypatch.setattr)


@pytest.fixture
def copy(drives, tmp_path):
    """Drives that the test may damage, without a frame cache."""
    return shutil.copytree(drives, tmp_path / "drives", ignore=shutil.ignore_patterns(".cache"))


def run(root, workdir, steps=fault_runs.STEPS):
    """Validated every two steps, so that a shorter run has the records of a longer one."""
    train(fault_runs.config(root, optim={"steps": steps}, train={"eval_every": 2}), workdir, jax.devices()[:1])


@pytest.fixture(scope="module")
def expected(tmp_path_factory, drives):
    with pytest.MonkeyPatch.context() as patch:
        light_run.install(patch.setattr)
        workdir = tmp_path_factory.mktemp("undisturbed")
        run(drives, workdir)
    return fault_runs.result(workdir)


@pytest.mark.parametrize("batch", [1, 3, 5, 8])
def test_loader_that_fails_ends_the_run_with_its_reason(drives, expected, figures, tmp_path, monkeypatch, batch):
    """An error in a thread of the loader; a run of six steps reads ahead of them."""
    plain, count = TripletSource.gather, iter(range(1, 1000))

    def gather(self, *arguments):
        if next(count) == batch:
            raise OSError(errno.EIO, os.strerror(errno.EIO), "/data/a.png")
        return plain(self, *arguments)

    with figures.trial("loader thread fails", batch=batch):
        with monkeypatch.context() as patch:
            patch.setattr(TripletSource, "gather", gather)
            with (
                pytest.raises(
                    SystemExit, match=r"^error: .*/data/a\.png cannot be read or written \(Input/output error\)"
                ) as end,
                command_line.job(TrainingError),
            ):
                run(drives, tmp_path / "run")
            assert "\n" not in str(end.value)
        run(drives, tmp_path / "run")
        fault_runs.assert_bit_equal(fault_runs.result(tmp_path / "run"), expected)


def interrupted(root, workdir, monkeypatch, disturb):
    """A run that is disturbed in step 3, and goes on to its end."""
    plain = light_run.step

    def step(state, batch):
        if int(state.step) == 2:
            disturb()
        return plain(state, batch)

    with monkeypatch.context() as patch:
        patch.setattr(light_run, "step", step)
        run(root, workdir)


def test_image_that_vanishes_does_not_stop_the_run(copy, expected, figures, tmp_path, monkeypatch):
    """All frames are in the cache by then; the next command names the missing file."""
    image = sorted(copy.rglob("image_02/data/*.*"))[3]
    with figures.trial("image vanishes in an epoch"):
        interrupted(copy, tmp_path / "run", monkeypatch, image.unlink)
        fault_runs.assert_bit_equal(fault_runs.result(tmp_path / "run"), expected)
    with figures.trial("image vanishes in an epoch", outcome="refused", what="next command"):
        with pytest.raises(ConfigError, match=r"1 of \d+ target images of .* do not exist, the first is ") as error:
            run(copy, tmp_path / "run", steps=8)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("how", ["cut", "changed"])
def test_image_that_is_damaged_does_not_stop_the_run(copy, expected, figures, tmp_path, monkeypatch, how):
    image = sorted(copy.rglob("image_02/data/*.*"))[3]

    def disturb():
        if how == "cut":
            image.write_bytes(image.read_bytes()[:200])
        else:
            cv2.imwrite(str(image), np.zeros_like(cv2.imread(str(image))))

    with figures.trial("image damaged in an epoch", how=how):
        interrupted(copy, tmp_path / "run", monkeypatch, disturb)
        fault_runs.assert_bit_equal(fault_runs.result(tmp_path / "run"), expected)
    with figures.trial("image damaged in an epoch", outcome="refused", how=how, what="next command"):
        with pytest.raises(ConfigError, match=r"was trained on other data than") as error:
            run(copy, tmp_path / "run", steps=8)
        assert "\n" not in str(error.value)


def cache_of(root):
    (folder,) = (path for path in (root / ".cache").iterdir() if path.is_dir() and "-train-" in path.name)
    return folder


@pytest.mark.parametrize("name", ["frames.u8", "masks.bits", "sums.u4", "journal.u8"])
@pytest.mark.parametrize("damage", ["flip", "cut", "lose"])
def test_damaged_frame_cache_is_rebuilt_or_named(copy, expected, figures, tmp_path, name, damage):
    run(copy, tmp_path / "run", steps=2)
    file, draw = cache_of(copy) / name, random.Random(name + damage)
    data = bytearray(file.read_bytes())
    with figures.trial(f"frame cache: {damage}", file=name) as trial:
        if damage == "lose":
            file.unlink()
        elif damage == "cut":
            file.write_bytes(data[: draw.randrange(len(data))])
        else:
            for _ in range(200):  # of these some meet a frame that is read, of all files
                data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
            file.write_bytes(data)
        try:
            run(copy, tmp_path / "run")
        except ConfigError as error:
            assert "is damaged (" in str(error) and "delete this folder" in str(error) and "\n" not in str(error)
            trial["said"] = str(error).replace(str(copy), "DATA")
            shutil.rmtree(cache_of(copy))  # as it says
            run(copy, tmp_path / "run")
        fault_runs.assert_bit_equal(fault_runs.result(tmp_path / "run"), expected)
