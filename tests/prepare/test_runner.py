import runpy
from pathlib import Path

import cv2
import numpy as np
import pytest

from dd_jax.config import ConfigError
from dd_jax.prepare import runner
from dd_jax.prepare.runner import MASKS, PRIORS, Job

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def write(picture):
    def write(*paths, size=(32, 48)):
        for number, path in enumerate(paths):
            path.parent.mkdir(parents=True, exist_ok=True)
            assert cv2.imwrite(str(path), picture(number, *size))

    return write


def red(images):
    """Thresholds red, instead of a network."""
    return [np.where(image[..., 0] > 127, np.uint8(255), np.uint8(0)) for image in images]


def unused_network(images):
    raise AssertionError("the network must not run")


def test_result_paths_match_readers(tmp_path, write):
    own, kitti = tmp_path / "own", tmp_path / "kitti"
    write(own / "frames/a/f10.jpg", own / "frames/a/f9.jpg", own / "frames/1.png")
    jobs = runner.jobs_of_data_set(own, MASKS)
    assert [str(job.result.relative_to(own)) for job in jobs] == ["masks/1.png", "masks/a/f9.png", "masks/a/f10.png"]
    drive = kitti / "2011_09_26/2011_09_26_drive_0001_sync"
    write(drive / "image_02/data/0000000003.jpg", drive / "image_03/data/0000000003.png")
    results = [str(job.result.relative_to(drive)) for job in runner.jobs_of_data_set(kitti, PRIORS)]
    assert results == ["prior_02/data/0000000003.png", "prior_03/data/0000000003.png"]
    write(kitti / "sequences/00/image_2/000007.png")
    assert runner.jobs_of_data_set(kitti, MASKS)[-1].result == kitti / "sequences/00/mask_2/000007.png"
    name = "train/ulm/ulm_000064_000012"
    write(tmp_path / f"cs/leftImg8bit_sequence/{name}_leftImg8bit.png")
    (job,) = runner.jobs_of_data_set(tmp_path / "cs", MASKS)
    assert job.result == tmp_path / f"cs/mask_sequence/{name}_mask.png"


def test_linked_clips_and_hidden_files(tmp_path, write):
    """The reader follows such links; see ``files.below`` for cycles."""
    write(tmp_path / "far/1.png", tmp_path / "own/frames/a/1.png", tmp_path / "train/ulm/ulm_000064_000012_leftImg8bit.png")
    (tmp_path / "own/frames/b").symlink_to(tmp_path / "far")
    (tmp_path / "own/frames/a/._1.png").write_bytes(b"Mac OS X")
    results = [str(job.result.relative_to(tmp_path / "own/masks")) for job in runner.jobs_of_data_set(tmp_path / "own", MASKS)]
    assert results == ["a/1.png", "b/1.png"]
    (tmp_path / "cs/leftImg8bit_sequence").mkdir(parents=True)
    (tmp_path / "cs/leftImg8bit_sequence/train").symlink_to(tmp_path / "train")
    (job,) = runner.jobs_of_data_set(tmp_path / "cs", MASKS)
    assert job.result == tmp_path / "cs/mask_sequence/train/ulm/ulm_000064_000012_mask.png"


def test_flags_select_data_set_or_folder(tmp_path, write):
    write(tmp_path / "images/x/1.png")
    (job,), note = runner.jobs_of_flags(None, tmp_path / "images", tmp_path / "out", MASKS)
    assert job.result == tmp_path / "out/x/1.png" and note == tmp_path / "out/masks.json"
    for arguments in ((None, None, None), (tmp_path, tmp_path, tmp_path), (None, tmp_path, None), (tmp_path, None, tmp_path)):
        with pytest.raises(ConfigError, match=r"give either --root"):
            runner.jobs_of_flags(*arguments, MASKS)
    with pytest.raises(ConfigError, match=r"--images=.* holds no \.png, \.jpg, \.jpeg images"):
        runner.jobs_of_flags(None, tmp_path / "empty", tmp_path / "out", MASKS)
    with pytest.raises(ConfigError, match=r"holds no images in frames/, DATE/DRIVE_sync"):
        runner.jobs_of_flags(tmp_path / "empty", None, None, MASKS)


def test_results_independent_of_batches(tmp_path, write):
    write(*(tmp_path / f"in/{number}.png" for number in range(5)))
    write(*(tmp_path / f"in/{number}.png" for number in range(5, 8)), size=(48, 32))
    for batch_size in (1, 3, 8):
        jobs = runner.jobs_of_folder(tmp_path / "in", tmp_path / f"out{batch_size}")
        assert runner.run(jobs, red, batch_size, "test").written == 8
        for job in jobs:
            expected = red([cv2.imread(str(job.image))[..., ::-1]])[0]
            np.testing.assert_array_equal(cv2.imread(str(job.result), cv2.IMREAD_UNCHANGED), expected)


def test_killed_run_resumes_identically(tmp_path, write):
    write(*(tmp_path / f"in/{number}.png" for number in range(7)))
    whole, parts = (runner.jobs_of_folder(tmp_path / "in", tmp_path / name) for name in ("whole", "parts"))
    runner.run(whole, red, 2, "test")
    calls = []

    def mortal(images):
        calls.append(len(images))
        if len(calls) > 2:
            raise KeyboardInterrupt
        return red(images)

    with pytest.raises(KeyboardInterrupt):
        runner.run(parts, mortal, 2, "test")
    done = runner.run(parts, red, 2, "test")
    assert (done.present, done.written) == (4, 3)
    for one, other in zip(whole, parts, strict=True):
        assert one.result.read_bytes() == other.result.read_bytes()
    assert len(list((tmp_path / "parts").iterdir())) == 7
    assert runner.run(parts, unused_network, 2, "test").present == 7


def test_existing_arrays_are_results(tmp_path, write):
    write(tmp_path / "in/1.png")
    (job,) = runner.jobs_of_folder(tmp_path / "in", tmp_path / "out")
    job.result.parent.mkdir()
    np.save(job.result.with_suffix(".npy"), np.ones((2, 2)))
    assert runner.run([job], unused_network, 1, "test").present == 1


def test_damaged_images_and_empty_results_reported(tmp_path, write):
    write(*(tmp_path / f"in/{number}.png" for number in range(4)))
    (tmp_path / "in/1.png").write_bytes((tmp_path / "in/1.png").read_bytes()[:50])
    jobs = runner.jobs_of_folder(tmp_path / "in", tmp_path / "out")
    done = runner.run(jobs, lambda images: [None, *red(images[1:])], 2, "test")
    assert (done.written, len(done.unreadable), len(done.empty)) == (1, 1, 2)
    text = runner.summary(done, "masks")
    assert text.startswith("1 masks written, 0 there already; 1 images could not be read: ") and "; 2 images gave" in text
    assert runner.run(jobs, red, 2, "test").written == 2  # another run tries again


def test_full_disk_raises(tmp_path, write, monkeypatch):
    write(tmp_path / "in/1.png")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(runner.files, "replace", full)
    with pytest.raises(ConfigError, match=r"1.png cannot be written \(No space left on device\): make room"):
        runner.run([Job(tmp_path / "in/1.png", tmp_path / "out/1.png")], red, 1, "test")


def test_other_network_raises(tmp_path):
    runner.note_origin(tmp_path / "masks.json", {"model": "a"})
    runner.note_origin(tmp_path / "masks.json", {"model": "a"})
    with pytest.raises(ConfigError, match=r"masks.json records other settings .*'a'"):
        runner.note_origin(tmp_path / "masks.json", {"model": "b"})
    (tmp_path / "masks.json").write_text("{")
    with pytest.raises(ConfigError, match=r"masks.json records"):
        runner.note_origin(tmp_path / "masks.json", {"model": "a"})


@pytest.mark.parametrize("name", ["make_masks", "make_prior_depth"])
def test_script_errors(tmp_path, name):
    main = runpy.run_path(str(SCRIPTS / f"{name}.py"))["main"]
    with pytest.raises(SystemExit, match=r"^error: .*holds no images in frames/"):
        main(["--root", str(tmp_path)])
    with pytest.raises(SystemExit, match=r"^error: argument --batch_size: 0 must be an integer of at least 1"):
        main(["--root", str(tmp_path), "--batch_size=0"])


def test_scripts_run_tiny_networks(tmp_path, write, capsys, segformer, depth_anything):
    write(*(tmp_path / f"frames/{number}.jpg" for number in range(3)))
    for name, model, folder in (("make_masks", segformer, "masks"), ("make_prior_depth", depth_anything, "priors")):
        main = runpy.run_path(str(SCRIPTS / f"{name}.py"))["main"]
        for expected in ("3 {} written, 0 there already", "0 {} written, 3 there already"):
            main(["--root", str(tmp_path), "--model", model, "--batch_size=2"])
            assert expected.format(folder) in capsys.readouterr().out
        results = [cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in sorted((tmp_path / folder).glob("*.png"))]
        assert [result.shape for result in results] == [(32, 48)] * 3
        assert results[0].dtype == (np.uint8 if folder == "masks" else np.uint16)
