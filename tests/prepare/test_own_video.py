"""From an MP4 of a rendered drive to trained networks, with the user's scripts."""

import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import cv2
import jax
import pytest

from dd_jax.training.train import train

ROOT = Path(__file__).parents[2]


def script(name, *arguments):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    run = subprocess.run([sys.executable, ROOT / f"scripts/{name}.py", *map(str, arguments)], capture_output=True, text=True,
                         cwd=ROOT, env=environment)  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


@pytest.fixture(scope="module")
def mp4(drives, tmp_path_factory):
    root = tmp_path_factory.mktemp("drive")
    frames = sorted(next(drives.glob("*/*_sync")).glob("image_02/data/*.png"))
    writer = cv2.VideoWriter(str(root / "drive.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 10, (320, 96))
    assert writer.isOpened()
    for frame in frames:
        writer.write(cv2.imread(str(frame)))
    writer.release()
    return root / "drive.mp4"


def tiny_config(root):
    config = import_module("configs.dynamic_depth").get_config("folder")
    config.data.root, config.data.height, config.data.width, config.data.batch_size = str(root), 64, 96, 2
    config.model.width, config.cost_volume.bins = 8, 8
    config.optim.steps, config.optim.freeze_step = 2, -1
    config.train.log_every, config.train.checkpoint_every, config.train.eval_every = 1, 2, 0
    return config


def train_two_steps(config, workdir):
    train(config, workdir, jax.devices()[:1])
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if row["kind"] == "train"] == [1, 2]


@pytest.mark.slow
def test_train_on_video(mp4, tmp_path):
    out = script("prepare_video", mp4, "--out", tmp_path / "set", "--fov=82")
    assert "12 kept of 12" in out and "320 x 96 in all frames" in out and (tmp_path / "set/check_drive.jpg").is_file()
    out = script("check_data", "--config=configs/dynamic_depth.py:folder", f"--config.data.root={tmp_path / 'set'}",
                 f"--picture={tmp_path / 'check.jpg'}")  # fmt: skip
    assert out.endswith("the data set is good\n")
    train_two_steps(tiny_config(tmp_path / "set"), tmp_path / "run")


@pytest.mark.slow
def test_train_on_video_with_masks_and_priors(mp4, tmp_path, segformer, depth_anything):
    script("prepare_video", mp4, "--out", tmp_path / "set", "--guess")
    assert "12 masks written" in script("make_masks", "--root", tmp_path / "set", "--model", segformer)
    assert "12 priors written" in script("make_prior_depth", "--root", tmp_path / "set", "--model", depth_anything)
    out = script("check_data", "--config=configs/dynamic_depth.py:folder", f"--config.data.root={tmp_path / 'set'}",
                 "--config.data.masks=files", "--config.data.priors=files", f"--picture={tmp_path / 'check.jpg'}")  # fmt: skip
    assert out.endswith("the data set is good\n") and "object pixels" in out
    config = tiny_config(tmp_path / "set")
    config.data.masks, config.data.priors, config.domd.enabled = "files", "files", True
    config.loss.normal_prior, config.loss.normal_l1 = "file", 0.1
    train_two_steps(config, tmp_path / "run")
