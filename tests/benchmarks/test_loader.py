import json

import cv2
import numpy as np
import pytest
from PIL import Image

from dd_jax.benchmarks import loader
from dd_jax.config import Config, DataConfig

DRIVE = "2011_09_26/2011_09_26_drive_0001_sync"


@pytest.fixture
def config(tmp_path):
    folder = tmp_path / DRIVE / "image_02/data"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for frame in range(4):
        small = rng.integers(0, 256, (6, 20, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{frame:010d}.png"), cv2.resize(small, (160, 48), interpolation=cv2.INTER_CUBIC))
    (tmp_path / "splits").mkdir()
    (tmp_path / "splits/train_files.txt").write_text("".join(f"{DRIVE} {frame} l\n" for frame in range(4)))
    data = DataConfig(root=str(tmp_path), height=32, width=96, batch_size=2, masks="none", intrinsics="nominal")
    return Config(data=data)


def test_without_torch_only_our_loader_measured(config, monkeypatch, capsys):
    monkeypatch.setattr(loader.importlib.util, "find_spec", lambda name: None)
    result = loader.benchmark(config, batches=3, repeats=1)
    lines = capsys.readouterr().out.splitlines()
    assert json.loads(lines[-1]) == result and lines[-2] == "torch and torchvision are not installed: only ours was measured"
    assert result["ours_frames_per_second"] > 0 and result["ours_augmented_frames_per_second"] > 0
    assert result["ratio"] is None and result["torch_frames_per_second"] is None


def test_drives_rendered_at_kitti_size(tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(loader.synthetic, "make", lambda root, *given, **size: made.append((root, size)))
    config = loader.prepare(str(tmp_path), 12)
    assert made == [(str(tmp_path), {"height": 375, "width": 1242})]
    assert (config.data.height, config.data.width, config.data.batch_size, config.data.threads) == (192, 640, 12, 2)


def test_reference_sample_flipped_resized_jittered(config):
    """Level 0 is PIL's LANCZOS of the image or its mirror image, each further level is resized from the previous one."""
    pytest.importorskip("torch", reason="the reference loader needs torch and torchvision")
    pytest.importorskip("torchvision", reason="the reference loader needs torch and torchvision")
    torch_loader = loader.torch_loader(config, batches=1)
    with Image.open(torch_loader.dataset.triplets[1][1]) as file:
        picture = file.convert("RGB")
    mirrored = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    possible = [np.asarray(p.resize((96, 32), Image.Resampling.LANCZOS)) for p in (picture, mirrored)]
    jittered = 0
    for _ in range(20):
        sample = torch_loader.dataset[1]
        image = np.rint(sample["color_1_0"].numpy() * 255).astype(np.uint8).transpose(1, 2, 0)
        assert any((image == one).all() for one in possible)
        half = np.asarray(Image.fromarray(image).resize((48, 16), Image.Resampling.LANCZOS))
        np.testing.assert_array_equal(np.rint(sample["color_1_1"].numpy() * 255).transpose(1, 2, 0), half)
        jittered += bool((sample["color_aug_1_0"] != sample["color_1_0"]).any())
    assert 0 < jittered < 20 and torch_loader.dataset[0]["color_0_0"].sum() == 0


@pytest.mark.slow
def test_both_loaders_measured(config, capsys):
    pytest.importorskip("torch", reason="the reference loader needs torch and torchvision")
    pytest.importorskip("torchvision", reason="the reference loader needs torch and torchvision")
    result = loader.benchmark(config, batches=3, repeats=1)
    assert result["ratio"] == result["ours_frames_per_second"] / result["torch_frames_per_second"]
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == result
