import hashlib
import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from dd_jax.config import ConfigError
from dd_jax.data.synthetic import PRESETS, make
from dd_jax.data.synthetic.make import Preset, recipes

SCRIPT = Path(__file__).parents[3] / "scripts" / "make_synthetic.py"


def digests(root):
    files = sorted(p for p in root.rglob("*") if p.is_file())
    return {str(p.relative_to(root)): hashlib.sha1(p.read_bytes()).hexdigest() for p in files}


def folder(root, number):
    return root / "2011_09_26" / f"2011_09_26_drive_{number}_sync"


@pytest.fixture(scope="module", autouse=True)
def mini():
    """A preset of four short drives with very small images."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS, "mini", Preset((2, 1, 1), 4, 40, 96))
        yield


@pytest.fixture(scope="module")
def small(mini, tmp_path_factory):
    """The preset ``mini``, by one process."""
    root = tmp_path_factory.mktemp("small")
    return root, make(root, "mini", seed=3, workers=1, progress=False)


def test_files_independent_of_worker_count(small, tmp_path):
    make(tmp_path, "mini", seed=3, workers=2, progress=False)
    assert digests(tmp_path) == digests(small[0])


def test_split_lines_have_both_neighbours(small):
    root, _ = small
    seen = {}
    for split in ("train", "val", "test"):
        for line in (root / "splits" / f"{split}_files.txt").read_text().splitlines():
            drive, frame, side = line.split()
            assert side == "l"
            assert seen.setdefault(drive, split) == split  # no drive in two splits
            for t in (-1, 0, 1):
                assert (root / drive / "image_02" / "data" / f"{int(frame) + t:010d}.png").exists()
    assert sorted(seen.values()) == ["test", "train", "train", "val"]


def test_split_worlds_differ(drives, read_png):
    """No two drives have the same poses or images."""
    pictures = [read_png(folder(drives, n), "image_02/data", 0).astype(float) for n in ("9001", "9002", "9501", "9801")]
    for i in range(4):
        for j in range(i):
            assert np.abs(pictures[i] - pictures[j]).mean() > 15
    assert len({round(p.mean(), 1) for p in pictures}) == 4
    seeds = [recipe.seed for preset in PRESETS for recipe in recipes(preset)]
    assert len({recipe.seed for recipe in recipes("full")}) == len(recipes("full")) and len(set(seeds)) < len(seeds)


def test_complete_set_reused(small):
    root, info = small
    stamps = {p: p.stat().st_mtime_ns for p in root.rglob("*")}
    assert make(root, "mini", seed=3, workers=1, progress=False) == info
    assert {p: p.stat().st_mtime_ns for p in root.rglob("*")} == stamps
    assert info["complete"] and set(info["drives"]) == {"9001", "9002", "9501", "9801"}


def test_interrupted_set_completed(small, tmp_path):
    root = tmp_path / "set"
    shutil.copytree(small[0], root)
    info = json.loads((root / "synthetic.json").read_text())
    (root / "synthetic.json").write_text(json.dumps({**info, "complete": False}))
    shutil.rmtree(folder(root, "9501"))
    half = root / "2011_09_26" / ".2011_09_26_drive_9501_sync.partial"
    (half / "image_02").mkdir(parents=True)
    kept = folder(root, "9001") / "image_02" / "data" / "0000000000.png"
    stamp = kept.stat().st_mtime_ns
    assert make(root, "mini", seed=3, workers=1, progress=False) == info
    assert kept.stat().st_mtime_ns == stamp
    assert digests(root) == digests(small[0])


def test_other_data_in_folder_raises(small, tmp_path):
    with pytest.raises(ConfigError, match="another synthetic data set"):
        make(small[0], "mini", seed=4, progress=False)
    (tmp_path / "2011_09_26").mkdir()
    with pytest.raises(ConfigError, match="not synthetic"):
        make(tmp_path, "tiny", progress=False)
    for text, message in {"{": "not readable", "1": "not the note", "[]": "not the note"}.items():
        (tmp_path / "synthetic.json").write_text(text)
        with pytest.raises(ConfigError, match=message):
            make(tmp_path, "tiny", progress=False)


def test_invalid_arguments_name_flag():
    with pytest.raises(ConfigError, match="--preset 'huge'"):
        recipes("huge")
    with pytest.raises(ConfigError, match="--height 8"):
        recipes("tiny", height=8)


def test_script_output_and_error(small, capsys):
    spec = importlib.util.spec_from_file_location("make_synthetic_script", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    flags = ["--out", str(small[0]), "--preset", "mini"]
    script.main([*flags, "--seed", "3"])
    assert len(capsys.readouterr().out.splitlines()) == 4
    with pytest.raises(SystemExit, match=r"error: .*another synthetic data set"):
        script.main([*flags, "--seed", "5"])
