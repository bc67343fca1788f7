import io
import json
import re
from types import SimpleNamespace

import numpy as np
import pytest

from dd_jax.config import ConfigError
from dd_jax.report import Logger, NoLogger, read_history
from dd_jax.report import logger as logger_module
from dd_jax.report.logger import postfix


class Terminal(io.StringIO):
    def isatty(self):
        return True


def log_steps(workdir, start, stop, stream=None):
    with Logger(workdir, total_steps=100, start_step=start, batch_size=4, stream=stream or io.StringIO()) as logger:
        for step in range(start + 1, stop + 1):
            logger.log(step, {"total": 1.0 / step, "teacher/photometric": 0.5})


def test_resumed_log_has_every_step_once(tmp_path):
    log_steps(tmp_path, 0, 9)
    log_steps(tmp_path, 6, 12)
    history = read_history(tmp_path)
    assert [record["step"] for record in history] == list(range(1, 13))
    assert all(record["kind"] == "train" and record["total"] == 1.0 / record["step"] for record in history)


def test_incomplete_last_line_ignored(tmp_path):
    log_steps(tmp_path, 0, 3)
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text() + '{"step": 4, "kind": "tr')
    assert len(read_history(tmp_path)) == 3
    log_steps(tmp_path, 3, 5)
    assert [record["step"] for record in read_history(tmp_path)] == [1, 2, 3, 4, 5]


def test_damaged_lines_cost_only_themselves(tmp_path):
    log_steps(tmp_path, 0, 5)
    path = tmp_path / "metrics.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    lines[1] = lines[1].replace(b'"step"', b'"stfp"')
    lines[3] = b"\xff" + lines[3]
    path.write_bytes(b"".join(lines))
    log_steps(tmp_path, 5, 6)
    assert [record["step"] for record in read_history(tmp_path)] == [1, 3, 5, 6]


def test_full_disk_is_named(tmp_path):
    with Logger(tmp_path, 10, stream=io.StringIO()) as logger:
        logger.log(1, {"total": 1.0})
        logger._history.close()
        logger._history = open("/dev/full", "a")  # noqa: SIM115
        message = rf"the log in {tmp_path} cannot be written \(No space left on device\): make room there, then the same"
        with pytest.raises(ConfigError, match=message):
            logger.log(2, {"total": 1.0})
    with pytest.raises(ConfigError, match=r"the log in .*/metrics\.jsonl cannot be written \(File exists\)"):
        Logger(tmp_path / "metrics.jsonl", 10)


def test_new_run_starts_new_log(tmp_path):
    log_steps(tmp_path, 0, 3)
    log_steps(tmp_path, 0, 1)
    assert len(read_history(tmp_path)) == 1


def test_records_are_strict_json(tmp_path):
    with Logger(tmp_path, 10, stream=io.StringIO()) as logger:
        logger.log(1, {"total": float("nan"), "x": float("inf")})
    line = (tmp_path / "metrics.jsonl").read_text()
    record = json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert np.isnan(float(record["total"])) and np.isinf(float(record["x"]))


def test_terminal_gets_a_bar_and_a_file_gets_lines(tmp_path):
    terminal, file = Terminal(), io.StringIO()
    log_steps(tmp_path / "a", 0, 50, terminal)
    log_steps(tmp_path / "b", 0, 50, file)
    assert "\r" in terminal.getvalue() and terminal.getvalue().count("\n") == 1 and "50/100" in terminal.getvalue()
    lines = file.getvalue().splitlines()
    assert "\r" not in file.getvalue() and len(lines) == 50
    assert re.fullmatch(r"step 50/100 \[00:\d\d<\S+, total 0\.02, \d+\.\d images/s\]", lines[-1])


def test_resumed_run_continues_the_count(tmp_path):
    file = io.StringIO()
    log_steps(tmp_path, 40, 41, file)
    assert file.getvalue().startswith("step 41/100 [")


def test_message_above_the_bar(tmp_path):
    terminal = Terminal()
    with Logger(tmp_path, 10, stream=terminal) as logger:
        logger.log(1, {"total": 1.0})
        logger.message("hello")
        logger.message("again")
    lines = [line.rpartition("\r")[2] for line in terminal.getvalue().split("\n")]
    assert lines[:2] == ["hello", "again"] and "1/10 [" in lines[2]


def test_validation_record_and_images(tmp_path):
    metrics = {"student": {"all": {"abs_rel": 0.2, "pixels": 9}, "moving": {"abs_rel": None, "pixels": 0}}}
    stream = io.StringIO()
    with Logger(tmp_path, 10, stream=stream) as logger:
        logger.log_validation(5, metrics, {"0001 left": np.zeros((4, 6, 3), np.uint8)})
    (record,) = read_history(tmp_path)
    assert record == {
        "step": 5,
        "kind": "val",
        "student/all/abs_rel": 0.2,
        "student/all/pixels": 9,
        "student/moving/pixels": 0,
    }
    assert "student abs_rel 0.2000" in stream.getvalue()
    assert list((tmp_path / "tensorboard").iterdir())


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test sets, for the speeds and for tqdm."""
    now = [0.0]
    clocks = SimpleNamespace(monotonic=lambda: now[0], thread_time=lambda: now[0] / 50)
    monkeypatch.setattr(logger_module, "time", clocks)
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])
    return now


def test_speed_excludes_compilation_and_validation(tmp_path, clock):
    with Logger(tmp_path, 100, batch_size=4, stream=Terminal()) as logger:
        with logger.paused():
            clock[0] = 100.0  # compilation
        logger.log(1, {})
        clock[0] = 102.0
        logger.log(11, {})
        with logger.paused():
            clock[0] = 500.0
            logger.log_validation(11, {})
        clock[0] = 503.0
        logger.log(41, {})
    train = [record for record in read_history(tmp_path) if record["kind"] == "train"]
    assert [record.get("images_per_second") for record in train] == [None, 20.0, 40.0]
    assert [record.get("host_share") for record in train] == [None, pytest.approx(0.02), pytest.approx(0.02)]


def test_remaining_time_excludes_compilation(tmp_path, clock):
    """Of both steps: the one compiled first, and the one with teacher and pose fixed."""
    file = io.StringIO()
    with Logger(tmp_path, 100, stream=file) as logger:
        for step in range(2, 51, 2):
            if step in (2, 20):
                with logger.paused():
                    clock[0] += 1000.0
            clock[0] += 4.0
            logger.log(step, {})
    lines = file.getvalue().splitlines()
    assert lines[0].startswith("step 2/100 [00:04<03:16") and lines[-1].startswith("step 50/100 [01:40<01:40")


def test_other_processes_log_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with NoLogger() as logger:
        logger.log(1, {"total": 1.0})
        logger.log_validation(1, {}, {})
        logger.message("text")
        with logger.paused():
            pass
    assert not list(tmp_path.iterdir()) and capsys.readouterr() == ("", "")


def test_postfix_shows_ungrouped_metrics():
    metrics = {"aaa": 2.0, "total": 0.12345, "grad_norm/pose": 3.0, "images_per_second": 20.0, "host_share": 0.1}
    assert postfix(metrics) == "total 0.1235, aaa 2, 20.0 images/s"
    assert postfix({"total": 1.0}) == "total 1"
