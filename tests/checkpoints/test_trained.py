"""The bundled models: small, found by name, and better than a constant on unseen drives."""

import hashlib
import json
from pathlib import Path

import pytest

import dd_jax
from dd_jax.checkpoints import saved
from dd_jax.config import ConfigError
from dd_jax.data.synthetic import make
from dd_jax.evaluation import evaluate

NAMES = saved.bundled()


@pytest.mark.parametrize("name", NAMES)
def test_small_and_complete(name):
    folder = saved.BUNDLED / name
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 20e6
    assert hashlib.sha256((folder / saved.WEIGHTS).read_bytes()).hexdigest() in (folder / saved.CARD).read_text()
    assert saved.scores_of(folder) and "Not chosen yet" not in (folder / saved.CARD).read_text()


def test_local_folder_precedes_bundled_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert saved.find("rendered") == saved.BUNDLED / "rendered" and saved.is_name("rendered")
    assert dd_jax.load("rendered").digest == saved.digest(saved.read(saved.BUNDLED / "rendered"))
    with pytest.raises(ConfigError, match="rendered cannot hold results: choose a folder with --out"):
        evaluate.evaluate_checkpoint("rendered")
    Path("rendered").mkdir()
    assert saved.find("rendered") == Path("rendered") and not saved.is_name("rendered")
    for other in ("", ".", "..", "rendered/../rendered", str(saved.BUNDLED)):
        assert not saved.is_name(other)


@pytest.mark.slow
def test_better_than_a_constant_on_unseen_drives(tmp_path):
    """It was not trained on any drive of this seed, whatever split they are in."""
    make(str(tmp_path / "drives"), preset="tiny", seed=1, workers=1, progress=False)
    evaluate.evaluate_checkpoint("rendered", "train", data_root=str(tmp_path / "drives"), out=tmp_path / "out")
    scores = json.loads((tmp_path / "out/metrics.json").read_text())
    for network in ("student", "teacher"):
        assert scores[network]["all"]["abs_rel"] < 0.7 * scores["constant"]["all"]["abs_rel"]
