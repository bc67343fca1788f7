"""Full and read-only disks: one sentence, and the same command continues once there is room."""

import os
import subprocess
from pathlib import Path

import fault_runs
import pytest

from dd_jax.checkpoints import run_folder

pytestmark = pytest.mark.faults

NEXT = "no checkpoint can be written|the log in .* cannot be written|--workdir=.* cannot be written"


@pytest.fixture
def disk(tmp_path):
    """Mounts a file system in memory; returns a function that sets its options, as ``size=64k`` or ``ro``."""
    place = tmp_path / "disk"
    place.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "tmpfs", place], capture_output=True, check=False).returncode:
        pytest.skip("mounting a file system needs root")

    def options(text: str) -> Path:
        subprocess.run(["mount", "-o", f"remount,{text}", place], check=True)
        return place

    yield options
    subprocess.run(["umount", "--lazy", place], check=True)


@pytest.fixture(scope="module")
def expected(tmp_path_factory, runs):
    workdir = tmp_path_factory.mktemp("undisturbed")
    runs.start(workdir).ended().succeeded()
    return fault_runs.result(workdir)


@pytest.mark.parametrize("kilobytes", [4, 12, 16, 20, 28, 36, 44, 52, 60, 72, 84, 96, 108, 120])
def test_full_disk_is_named_and_the_run_continues_when_there_is_room(runs, expected, figures, disk, kilobytes):
    """From too small for the first record to too small for the second checkpoint."""
    workdir = disk(f"size={kilobytes}k") / "run"
    with figures.trial("disk full", outcome="refused", kilobytes=kilobytes) as trial:
        ended = runs.start(workdir).ended().refused(rf"({NEXT}).* \(No space left on device\): make room")
        trial["said"] = ended.text.splitlines()[-1].replace(str(workdir), "WORKDIR")
        whole = run_folder.newest(workdir) or 0
        disk("size=10m")
        assert f"from step {whole}\n" in (text := runs.start(workdir).ended().succeeded().text) or not whole, text
        fault_runs.assert_bit_equal(fault_runs.result(workdir), expected)


def test_full_disk_of_the_frame_cache_is_named(runs, expected, figures, disk, tmp_path):
    workdir, cache = tmp_path / "run", disk("size=100k")
    with figures.trial("disk full", outcome="refused", place="frame cache"):
        fields = {"cache_dir": str(cache / "frames")}
        runs.start(workdir, data=fields).ended().refused(
            r"the frame cache .* cannot be written \(No space left on device\): .* with --config\.data\.cache_dir"
        )
        disk("size=10m")
        runs.start(workdir, data=fields).ended().succeeded()
        fault_runs.assert_bit_equal(fault_runs.result(workdir), expected)


def test_read_only_disk_is_named(runs, expected, figures, disk, tmp_path):
    with figures.trial("read-only folder", outcome="refused"):
        place = disk("ro")
        runs.start(place / "run").ended().refused(rf"--workdir={place}/run cannot be written \(Read-only file system\)")
        disk("rw")
        runs.start(place / "run", optim={"steps": 4}).ended().succeeded()
        disk("ro")  # as after an error of the disk
        runs.start(place / "run").ended().refused(rf"--workdir={place}/run cannot be written \(Read-only file system\)")
        disk("rw")
        runs.start(place / "run").ended().succeeded()
        fault_runs.assert_bit_equal(fault_runs.result(place / "run"), expected)
    with figures.trial("read-only folder", outcome="refused", place="file"):
        (tmp_path / "taken").write_text("a file")
        runs.start(tmp_path / "taken").ended().refused(r"--workdir=.*/taken cannot be written \(File exists\)")


def test_run_that_cannot_save_any_more_says_so(runs, figures, tmp_path):
    """A file takes the place of the folder, which stops root as well."""
    workdir, kept = tmp_path / "run", tmp_path / "kept"
    with figures.trial("read-only folder", outcome="refused", place="during the run"):
        changes = {"optim": {"steps": 100}, "train": {"checkpoint_every": 10}}
        run = runs.start(workdir, **changes).until("step 20/")
        (workdir / "checkpoints").rename(kept)
        (workdir / "checkpoints").write_text("a file")
        run.ended().refused(r"no checkpoint can be written to .*/checkpoints \(.*\): make room")
        (workdir / "checkpoints").unlink()
        kept.rename(workdir / "checkpoints")
        assert f"from step {run_folder.newest(workdir)}\n" in runs.start(workdir, **changes).ended().succeeded().text
