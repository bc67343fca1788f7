"""The log is complete, never double, and readable by machines."""

import io
import json
from types import SimpleNamespace

import numpy as np
import pytest

from dd_jax.report import Logger, NoLogger, read_history
from dd_jax.report import logger as logger_module
from dd_jax.report.logger import duration, progress_line


class Terminal(io.StringIO):
    def isatty(self):
        return True


def log_steps(workdir, start, stop, stream=None):
    with Logger(workdir, total_steps=100, start_step=start, batch_size=4, stream=stream or io.StringIO()) as logger:
        for step in range(start + 1, stop + 1):
            logger.log(step, {"total": 1.0 / step, "teacher/photometric": 0.5})


def test_resume_leaves_every_step_once(tmp_path):
    log_steps(tmp_path, 0, 9)
    log_steps(tmp_path, 6, 12)
    history = read_history(tmp_path)
    assert [record["step"] for record in history] == list(range(1, 13))
    assert all(record["kind"] == "train" and record["total"] == 1.0 / record["step"] for record in history)


def test_line_cut_off_by_a_kill_is_dropped(tmp_path):
    log_steps(tmp_path, 0, 3)
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text() + '{"step": 4, "kind": "tr')
    assert len(read_history(tmp_path)) == 3
    log_steps(tmp_path, 3, 5)
    assert [record["step"] for record in read_history(tmp_path)] == [1, 2, 3, 4, 5]


def test_a_new_run_starts_a_new_log(tmp_path):
    log_steps(tmp_path, 0, 3)
    log_steps(tmp_path, 0, 1)
    assert len(read_history(tmp_path)) == 1


def test_every_line_is_strict_json(tmp_path):
    with Logger(tmp_path, 10, stream=io.StringIO()) as logger:
        logger.log(1, {"total": float("nan"), "x": float("inf")})
    line = (tmp_path / "metrics.jsonl").read_text()
    record = json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert np.isnan(float(record["total"])) and np.isinf(float(record["x"]))


def test_terminal_gets_one_line_others_get_few(tmp_path):
    terminal, pipe = Terminal(), io.StringIO()
    log_steps(tmp_path / "a", 0, 50, terminal)
    log_steps(tmp_path / "b", 0, 50, pipe)
    assert terminal.getvalue().count("\r") == 50 and terminal.getvalue().count("\n") == 1
    assert 1 <= len(pipe.getvalue().splitlines()) < 5 and "\r" not in pipe.getvalue()


def test_message_does_not_mix_with_the_progress_line(tmp_path):
    terminal = Terminal()
    with Logger(tmp_path, 10, stream=terminal) as logger:
        logger.log(1, {"total": 1.0})
        logger.message("hello")
        logger.message("again")
    assert terminal.getvalue().endswith("\r\x1b[Khello\nagain\n")


def test_validation_is_logged_flat_with_pictures(tmp_path):
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


def test_speed_leaves_out_compilation_and_validation(tmp_path, monkeypatch):
    now = [0.0]
    clocks = SimpleNamespace(monotonic=lambda: now[0], thread_time=lambda: now[0] / 50)
    monkeypatch.setattr(logger_module, "time", clocks)
    with Logger(tmp_path, 100, batch_size=4, stream=Terminal()) as logger:
        now[0] = 100.0
        logger.log(1, {})  # the compilation is over
        now[0] = 102.0
        logger.log(11, {})
        now[0] = 500.0
        logger.log_validation(11, {})  # at its end
        now[0] = 503.0
        logger.log(41, {})
    train = [record for record in read_history(tmp_path) if record["kind"] == "train"]
    assert [record.get("images_per_second") for record in train] == [None, 20.0, 40.0]
    assert [record.get("host_share") for record in train] == [None, pytest.approx(0.02), pytest.approx(0.02)]


def test_a_process_that_is_not_the_first_logs_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with NoLogger() as logger:
        logger.log(1, {"total": 1.0})
        logger.log_validation(1, {}, {})
        logger.message("nobody reads this")
    assert not list(tmp_path.iterdir()) and capsys.readouterr() == ("", "")


def test_progress_line_fits_and_tells_the_rest():
    metrics = {"aaa": 2.0, "total": 0.12345, "grad_norm/pose": 3.0, "images_per_second": 20.0}
    line = progress_line(40, 100, metrics, rate=5.0, width=200)
    assert line == "step 40/100  total 0.1235  aaa 2  20.0 images/s  12 s left"
    assert all(len(progress_line(40, 100, metrics, 5.0, width)) <= width for width in (10, 40, 60))


@pytest.mark.parametrize(("seconds", "text"), [(5, "5 s"), (600, "10 min"), (7260, "2 h 01 min"), (200_000, "2 d 7 h")])
def test_duration(seconds, text):
    assert duration(seconds) == text
