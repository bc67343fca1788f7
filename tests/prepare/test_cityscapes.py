import dataclasses
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from cityscapes_tree import CityscapesTree

from dd_jax.config import ConfigError, DataConfig
from dd_jax.data.loader import open_split
from dd_jax.prepare import cityscapes
from dd_jax.prepare.cityscapes import Settings, prepare

SCRIPT = Path(__file__).parents[2] / "scripts/prepare_cityscapes.py"
SMALL = Settings(height=96, width=256, quality=100)


def script(*arguments):
    spec = importlib.util.spec_from_file_location("prepare_cityscapes", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main([str(argument) for argument in arguments])


@pytest.fixture
def tree(tmp_path):
    """Two snippets of ulm, one of jena, at an eighth of the size."""
    tree = CityscapesTree(tmp_path / "cityscapes")
    for where in ({}, {"sequence": "000065"}, {"city": "jena"}):
        tree.frames(range(8), **where)
        tree.camera(5, **where)
    return tree


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_triplets_match_sequences(tree, tmp_path):
    result = prepare(tree.root, tmp_path / "out", SMALL)
    assert (result.triplets, result.written, result.unreadable) == (12, 12, [])
    image = cv2.imread(str(tmp_path / "out/ulm/ulm_000064_000003.jpg"))[..., ::-1]
    assert image.shape == (96, 3 * 256, 3)
    for third, number in enumerate((1, 3, 5)):
        difference = image[:, third * 256 : (third + 1) * 256].astype(int) - tree.kept(number)
        assert np.abs(difference).mean() < 1
    prepared = DataConfig(source="cityscapes", root=str(tmp_path / "out"), height=96, width=256)
    for split in ("train", "val"):
        ours, theirs = open_split(prepared, split), open_split(tree.config, split)
        assert [ours.name(i) for i in range(len(ours))] == [theirs.name(i) for i in range(len(theirs))]
        for i in range(len(ours)):
            np.testing.assert_allclose(ours[i].K, theirs[i].K, rtol=1e-6)
            assert np.abs(ours[i].images.astype(int) - theirs[i].images).mean() < 1


def test_triplets_of_a_frame_step_match_sequences(tree, tmp_path, caplog):
    """Targets without both neighbours have no triplet; a published list has them all the same, for evaluation."""
    tree.frames(range(12)), tree.camera(5)
    script(tree.root, f"--out={tmp_path / 'out'}", "--height=96", "--width=256", "--quality=100", "--frame_step=2")
    assert {path.stem for path in (tmp_path / "out/ulm").glob("*_000064_*.jpg")} == {f"ulm_000064_{n:06d}" for n in range(4, 8)}
    prepared = DataConfig(source="cityscapes", root=str(tmp_path / "out"), height=96, width=256, frame_step=2)
    entries = [("ulm", "000064", number) for number in (2, 4, 7, 9)]
    tree.split("train", entries)
    (tmp_path / "out/splits/train_files.txt").write_bytes((tree.root / "splits/train_files.txt").read_bytes())
    ours, theirs = open_split(prepared, "train"), open_split(dataclasses.replace(tree.config, frame_step=2), "train")
    for i in range(4):
        np.testing.assert_array_equal(ours[i].exists, theirs[i].exists)
        np.testing.assert_allclose(ours[i].K, theirs[i].K, rtol=1e-6)
        assert np.abs(ours[i].images.astype(int) - theirs[i].images).mean() < 1
    assert ours[0].exists.tolist() == [False, True, True] and ours[1].exists.all()


def test_triplets_of_another_frame_step_raise(tree, tmp_path):
    out = tree.root / "preprocessed"
    prepare(tree.root, out, SMALL)
    for note in ((out / "triplets.json").read_text(), '{"height": 96, "width": 256, "quality": 100, "resize": "area"}', None):
        (out / "triplets.json").unlink() if note is None else (out / "triplets.json").write_text(note)
        assert len(open_split(tree.config, "train")) > 0, "also notes before the field existed, and triplets without a note"
        with pytest.raises(
            ConfigError,
            match=rf"{out} holds triplets of --config.data.frame_step=1, not 2: set it to 1, make others with "
            rf"scripts/prepare_cityscapes.py {tree.root} --out=DIR --frame_step=2, or read the sequences directly",
        ):
            open_split(dataclasses.replace(tree.config, frame_step=2), "train")
        open_split(dataclasses.replace(tree.config, frame_step=1, layout="sequence"), "train")
    assert prepare(tree.root, out, SMALL).written == 0
    tree.frames(range(12))
    with pytest.raises(ConfigError, match=r"holds triplets made with .*'frame_step': 1.*, not .*'frame_step': 2.* --out"):
        prepare(tree.root, out, dataclasses.replace(SMALL, frame_step=2))
    with pytest.raises(ConfigError, match=r"frame_step=0.*: sizes are at least 32, .* frame_step is at least 1"):
        prepare(tree.root, tmp_path / "other", dataclasses.replace(SMALL, frame_step=0))


def test_sizes_and_camera_match_sfmlearner(tree, tmp_path):
    prepare(tree.root, tmp_path / "out")
    assert cv2.imread(str(tmp_path / "out/jena/jena_000064_000002.jpg")).shape == (384, 3 * 1024, 3)
    values = [float(word) for word in (tmp_path / "out/jena/jena_000064_000002_cam.txt").read_text().split(",")]
    np.testing.assert_allclose(values, [2262.52 / 2, 0, 548.24, 0, 2265.3018 / 2, 256.3185, 0, 0, 1], atol=1e-4)


def test_second_call_writes_missing_only(tree, tmp_path):
    out = tmp_path / "out"
    prepare(tree.root, out, SMALL)
    first = contents(out)
    (out / "ulm/ulm_000064_000003.jpg").unlink()
    (out / "jena/jena_000064_000002.jpg.new").write_bytes(b"what a killed call leaves")
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*.jpg")}
    (out / "jena/jena_000064_000002.jpg").unlink()
    assert prepare(tree.root, out, SMALL).written == 2
    assert contents(out) == first
    assert all(path.stat().st_mtime_ns == times[path] for path in times if path.name != "jena_000064_000002.jpg")


def test_killed_preparation_resumes_identically(tmp_path):
    tree = CityscapesTree(tmp_path / "cityscapes", size=(512, 1024))
    tree.frames(range(30)), tree.camera(19)
    prepare(tree.root, tmp_path / "whole")
    out = tmp_path / "killed"
    command = [sys.executable, str(SCRIPT), str(tree.root), f"--out={out}", "--threads=1"]
    environment = os.environ | {"PYTHONPATH": str(SCRIPT.parents[1])}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while len(list(out.glob("ulm/*.jpg"))) < 3 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = len(list(out.glob("ulm/*.jpg")))
    assert 3 <= done < 26, "killed midway"
    assert prepare(tree.root, out).written == 26 - done
    assert contents(out) == contents(tmp_path / "whole")


def test_zip_archives(tree, tmp_path):
    packed = tmp_path / "packed"
    packed.mkdir()
    for name in ("leftImg8bit_sequence", "camera"):
        with zipfile.ZipFile(packed / f"{name}_trainvaltest.zip", "w") as archive:
            for path in sorted((tree.root / name).rglob("*")):
                archive.write(path, path.relative_to(tree.root))
    prepare(packed, tmp_path / "from_zip", SMALL)
    prepare(tree.root, tmp_path / "from_folder", SMALL)
    assert contents(tmp_path / "from_zip") == contents(tmp_path / "from_folder")
    path = packed / "camera_trainvaltest.zip"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ConfigError, match=r"camera_trainvaltest.zip is not a complete zip archive"):
        prepare(packed, tmp_path / "other", SMALL)


def test_missing_and_damaged_frames_skip_triplets(tree, tmp_path, capsys):
    tree.path("leftImg8bit_sequence", 3, city="jena").unlink()  # a neighbour of 5, and target 3; 1 has no neighbour in any case
    damaged = tree.path("leftImg8bit_sequence", 2)
    damaged.write_bytes(damaged.read_bytes()[:-50])  # target 2, neighbour of 4
    script(tree.root, f"--out={tmp_path / 'out'}", "--height=96", "--width=256")
    names = {path.stem for path in (tmp_path / "out").rglob("*.jpg")}
    assert {name for name in names if name.startswith("jena")} == {"jena_000064_000002", "jena_000064_000004"}
    assert {name for name in names if name.startswith("ulm_000064")} == {"ulm_000064_000003", "ulm_000064_000005"}
    listed = [(tmp_path / f"out/splits/{split}_files.txt").read_text().split() for split in ("train", "val")]
    assert {word for words in listed for word in words[1::2]} == names
    shown = capsys.readouterr().out
    assert f"{tmp_path / 'out'}: 8 triplets, 8 of them new" in shown
    assert "1 frames cannot be read" in shown and "ulm_000064_000002_leftImg8bit.png" in shown


def test_cities_prepared_separately(tree, tmp_path):
    assert prepare(tree.root, tmp_path / "out", SMALL, cities=["jena"]).triplets == 4
    assert prepare(tree.root, tmp_path / "out", SMALL, cities=["ulm"]).triplets == 12
    with pytest.raises(ConfigError, match=r"has no paris; it has jena, ulm"):
        prepare(tree.root, tmp_path / "out", SMALL, cities=["paris"])


def test_unfinished_triplets_raise(tree, tmp_path, monkeypatch):
    def targets(config):
        return sum(len(open_split(config, split)) for split in ("train", "val"))

    assert targets(tree.config) == 12
    out, write = tree.root / "preprocessed", cityscapes._write_run

    def mortal(made):
        def run(tree, out, entries, *rest):
            if entries[0][0] != made:
                raise KeyboardInterrupt
            return write(tree, out, entries, *rest)

        return run

    monkeypatch.setattr(cityscapes, "_write_run", mortal("jena"))
    with pytest.raises(KeyboardInterrupt):
        prepare(tree.root, out, SMALL, threads=1)
    assert prepare(tree.root, out, SMALL, cities=["jena"], threads=1).triplets == 4  # ulm stays unfinished
    command = (
        rf"prepare_cityscapes.py {tree.root} --out={out} --height=96 --width=256 --quality=100 --resize=area --frame_step=1 again"
    )
    with pytest.raises(ConfigError, match=rf"{out} lacks triplets of ulm because .* run scripts/{command}, or read"):
        targets(tree.config)
    with pytest.raises(ConfigError, match=rf"lacks triplets of ulm .*prepare_cityscapes.py CITYSCAPES --out={out} "):
        targets(dataclasses.replace(tree.config, root=str(out)))
    assert targets(dataclasses.replace(tree.config, layout="sequence")) == 12
    monkeypatch.setattr(cityscapes, "_write_run", write)
    script(*command.removesuffix(" again").split()[1:])
    assert targets(tree.config) == targets(dataclasses.replace(tree.config, root=str(out))) == 12
    for text in ("{", "[1]"):
        (out / "triplets.json").write_text(text)
        with pytest.raises(ConfigError, match=r"triplets.json cannot be read"):
            targets(tree.config)


def test_other_settings_raise(tree, tmp_path):
    prepare(tree.root, tmp_path / "out", SMALL)
    with pytest.raises(ConfigError, match=r"out holds triplets made with .*'quality': 100.*, not .*'quality': 75.* --out"):
        prepare(tree.root, tmp_path / "out", Settings(height=96, width=256, quality=75))
    (tmp_path / "out/triplets.json").write_text("{")
    with pytest.raises(ConfigError, match=r"triplets.json cannot be read"):
        prepare(tree.root, tmp_path / "out", SMALL)


def test_invalid_input_raises(tree, tmp_path):
    with pytest.raises(SystemExit, match=r"error: .*empty holds neither leftImg8bit_sequence/train nor an archive"):
        script(tmp_path / "empty")
    with pytest.raises(ConfigError, match=r"quality=0.*between 1 and 100"):
        prepare(tree.root, tmp_path / "out", Settings(quality=0))
    tree.path("camera", 5, city="jena").write_text(json.dumps({"intrinsic": {"fx": 3}}))
    with pytest.raises(ConfigError, match=r"jena_000064_000005_camera.json has no intrinsic"):
        prepare(tree.root, tmp_path / "out", SMALL)
    assert not (tmp_path / "out").exists()
    lonely = CityscapesTree(tmp_path / "lonely")
    lonely.frames((1, 2, 4))
    with pytest.raises(ConfigError, match=r"no frame below .*leftImg8bit_sequence/train has both neighbours"):
        prepare(lonely.root, tmp_path / "out", SMALL)
