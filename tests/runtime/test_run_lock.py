"""A second run in the folder of another is refused; the kernel frees it."""

import errno
import fcntl
import os
import re
import subprocess
import sys

import jax
import pytest

from dd_jax.config import ConfigError
from dd_jax.runtime import hosts
from dd_jax.runtime.run_lock import LOCK, only_run


def test_second_run_is_refused_until_the_first_ends(tmp_path):
    workdir = tmp_path / "new/run"
    with only_run(workdir):
        with (
            pytest.raises(ConfigError, match=rf"another run trains in --workdir={workdir} \(process {os.getpid()} on ") as error,
            only_run(workdir),
        ):
            pass
        assert "\n" not in str(error.value)
        with only_run(tmp_path / "other"):
            pass
    with only_run(workdir):
        assert re.fullmatch(rf"process {os.getpid()} on \S+", (workdir / LOCK).read_text())


HOLDS = """
import fcntl, sys, time
file = open(sys.argv[1], "ab+")
fcntl.flock(file, fcntl.LOCK_EX)
print("locked", flush=True)
time.sleep(1000)
"""


def test_killed_process_frees_the_folder(tmp_path):
    with subprocess.Popen([sys.executable, "-c", HOLDS, str(tmp_path / LOCK)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(ConfigError, match="another run"), only_run(tmp_path):
            pass
        other.kill()
    with only_run(tmp_path):
        pass


def test_file_system_without_locks_is_warned_of(tmp_path, monkeypatch, caplog):
    def flock(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    with only_run(tmp_path):
        assert f"{tmp_path} cannot be locked (No locks available): make sure that no second run starts in it" in caplog.text


def test_folder_that_cannot_be_created_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"--workdir=.*/file cannot be written \(File exists\)"), only_run(tmp_path / "file"):
        pass


def test_only_the_first_process_locks_and_all_refuse(tmp_path, monkeypatch):
    with only_run(tmp_path):
        monkeypatch.setattr(jax, "process_index", lambda: 1)
        with only_run(tmp_path):  # a further process of the same run
            pass
        monkeypatch.setattr(hosts, "gather", lambda value: ["why the first process refuses", value])
        with pytest.raises(ConfigError, match="why the first process refuses"), only_run(tmp_path):
            pass
