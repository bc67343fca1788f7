"""Predictions of another program are evaluated exactly like ours, by the job and by the script."""

import importlib.util
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import tiny
from fakes import FakeSource, oracle, settings
from tiny import HEIGHT, WIDTH

from dd_jax.config import ConfigError
from dd_jax.data import published_order
from dd_jax.data.splits import list_digest
from dd_jax.evaluation import evaluate

ROOT = Path(__file__).parents[2]


@pytest.fixture
def script():
    """scripts/evaluate.py as a module."""
    spec = importlib.util.spec_from_file_location("evaluate_script", ROOT / "scripts/evaluate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_saved_predictions_score_like_the_network():
    source, rng = FakeSource(6), np.random.default_rng(3)
    maps = rng.uniform(0.01, 0.5, (6, HEIGHT, WIDTH)).astype(np.float32)
    right = oracle(source)
    ours = evaluate.evaluate(
        lambda images: right(images).replace(student=maps[images.images[:, 1, 0, 0, 0]]), source, settings(), ("student",)
    )
    theirs = evaluate.evaluate(lambda images: None, source, settings(), ("predictions",), external=lambda index: maps[index])
    assert ours.metrics["student"] == theirs.metrics["predictions"]
    assert ours.scales["student"] == theirs.scales["predictions"]
    assert [scores["student"] for _, scores in ours.images] == [scores["predictions"] for _, scores in theirs.images]


def test_job_writes_same_files_as_for_a_checkpoint(tmp_path, monkeypatch):
    source = FakeSource(5)
    monkeypatch.setattr(evaluate, "open_split", lambda data, split: source)
    folder = tmp_path / "other"
    folder.mkdir()
    for index, depth in enumerate(source.depth):
        np.save(folder / f"{index:06d}.npy", np.where(depth > 0, depth, 9.0) / 4)
    results = evaluate.evaluate_predictions(settings(), folder)
    assert list(results.metrics) == ["predictions", "constant"]
    assert results.metrics["predictions"]["moving"]["abs_rel"] == pytest.approx(0, abs=1e-5)
    assert results.scales["predictions"]["median"] == pytest.approx(4, rel=1e-5)
    out = tmp_path / "other_scores"
    assert sorted(path.name for path in out.iterdir()) == ["metrics.csv", "metrics.json", "per_image.csv", "report.html"]
    assert json.loads((out / "metrics.json").read_text()) == tiny.as_written(results.metrics)
    page = (out / "report.html").read_text()
    assert "other: test split" in page and 'id="worst"' in page and page.count("<figure>") == 5 + 2 * 2

    broken = np.ones((HEIGHT, WIDTH))
    broken[2, 3] = np.nan
    np.save(folder / "000004.npy", broken)
    with pytest.raises(ConfigError, match=r"000004\.npy: 1 of .* are NaN or infinite"):
        evaluate.evaluate_predictions(settings(), folder, out=tmp_path / "nothing")
    assert not any((tmp_path / "nothing").iterdir())
    np.save(folder / "000004.npy", np.ones((2 * HEIGHT, WIDTH)))
    with pytest.raises(ConfigError, match="the prediction for sample 4 has 128 x 96 pixels, its ground truth 64 x 96"):
        evaluate.evaluate_predictions(settings(), folder, out=tmp_path / "nothing")


@pytest.fixture
def drive(tmp_path):
    """Three frames of 70 x 200 in the raw layout with annotated depth; and their depth."""
    folder = "2011_09_26/2011_09_26_drive_0001_sync"
    images, annotated = tmp_path / folder / "image_02/data", tmp_path / folder / "proj_depth/groundtruth/image_02"
    for path in (images, annotated, tmp_path / "splits"):
        path.mkdir(parents=True)
    rng = np.random.default_rng(0)
    depths = rng.integers(2 * 256, 120 * 256, (3, 70, 200)).astype(np.uint16)
    for frame, depth in enumerate(depths):
        cv2.imwrite(str(images / f"{frame:010d}.png"), rng.integers(0, 255, (70, 200, 3), np.uint8))
        cv2.imwrite(str(annotated / f"{frame:010d}.png"), depth)
    (tmp_path / "splits/test_files.txt").write_text("".join(f"{folder} {frame} l\n" for frame in range(3)))
    return tmp_path, depths


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")  # of ml_collections
def test_script_evaluates_png_files_with_protocol(drive, script, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    root, depths = drive
    (root / "png").mkdir()
    for frame, depth in enumerate(depths):
        cv2.imwrite(str(root / "png" / f"2011_09_26_drive_0001_sync_{frame}_l.png"), depth // 2)
    arguments = [
        f"--predictions={root / 'png'}", "--config=configs/dynamic_depth.py:kitti", f"--config.data.root={root}",
        "--config.data.height=32", "--config.data.width=96", f"--out={root / 'out'}",
    ]  # fmt: skip
    script.main([*arguments, "--protocol=eigen_improved"])
    printed = capsys.readouterr().out
    assert "scale to metres: predictions 2 ± 0.0%" in printed and f"report: {root / 'out/report.html'}" in printed
    scores = json.loads((root / "out/metrics.json").read_text())["predictions"]["all"]
    assert scores["pixels"] == depths.size and scores["a1"] < 1 and scores["abs_rel"] < 0.13  # depth beyond 80 m is clamped
    script.main([*arguments, "--protocol=eigen_improved", "--far_truth=False", "--max_depth=50", "--scaling=given", "--scale=2"])
    scores = json.loads((root / "out/metrics.json").read_text())["predictions"]["all"]
    assert scores["pixels"] == (depths < 50 * 256).sum() and scores["abs_rel"] < 1e-3


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
def test_split_dir_gives_order_of_unnamed_files(drive, script, monkeypatch, capsys):
    """``--split_dir``: one stack of disparities, in the order of a list in another folder."""
    monkeypatch.chdir(ROOT)
    root, depths = drive
    names = (root / "splits/test_files.txt").read_text().splitlines()
    known = {(3, list_digest(names)): ("eigen/test_files.txt", list_digest(names[::-1], True))}
    monkeypatch.setattr(published_order, "PUBLISHED", known)
    (root / "lists").mkdir()
    (root / "lists/test_files.txt").write_text("".join(f"{line}\n" for line in names[::-1]))
    np.save(root / "disps.npy", np.stack([256 / depth.astype(np.float32) for depth in depths[::-1]]))
    arguments = [
        f"--predictions={root / 'disps.npy'}", "--predictions_are=disparity", "--config=configs/dynamic_depth.py:kitti",
        f"--config.data.root={root}", "--config.data.height=32", "--config.data.width=96", f"--out={root / 'out'}",
        "--protocol=synthetic",
    ]  # fmt: skip
    with pytest.raises(SystemExit, match=r"disps.npy has no names: it follows the lines of the published eigen/test_files.txt"):
        script.main(arguments)
    script.main([*arguments, f"--split_dir={root / 'lists'}"])
    assert "images measured: 3\n" in capsys.readouterr().out
    assert json.loads((root / "out/metrics.json").read_text())["predictions"]["all"]["abs_rel"] < 1e-5


FILES = ["--predictions=x", "--config=configs/dynamic_depth.py:kitti"]


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--predictions=x"], "--predictions needs the data: set --config=configs/NAME.py:VARIANT"),
        ([*FILES, "--config.data.rot=y"], "--config.data.rot is not a field"),
        ([*FILES, "--nothing=1"], "nothing"),
        ([*FILES, "--crop=garg"], "--config.eval.crop='garg' is not one of"),
        ([*FILES, "--protocol=nyu"], "unknown evaluation protocol 'nyu'"),
        (["--checkpoint=nowhere"], "nowhere is not a folder: name the folder of a run"),
        (["--checkpoint=nowhere", "--config.eval.crop=none"], "--config.eval.crop=none is not a flag of --checkpoint"),
    ],
)
def test_script_errors_are_one_sentence(arguments, message, script, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit) as error:
        script.main(arguments)
    assert str(error.value).startswith("error: ") and message in str(error.value) and "\n" not in str(error.value)
