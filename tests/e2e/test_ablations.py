"""The script run_ablations.py."""

import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny
from made_up_results import finished

from configs.ablations import DYNAMIC, MANY, ROWS
from dd_jax.ablations import result, runs
from dd_jax.checkpoints import run_folder, saved
from dd_jax.data.synthetic import make
from dd_jax.report import read_history

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts/run_ablations.py"

pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")  # of ml_collections


@pytest.fixture
def run_ablations(monkeypatch, capsys):
    """Calls the script; returns its exit code, stdout and stderr."""
    main = runpy.run_path(str(SCRIPT))["main"]

    def run_ablations(*flags):
        monkeypatch.setattr(sys, "argv", ["run_ablations.py", *flags])
        capsys.readouterr()
        try:
            code = main()
        except SystemExit as end:
            code = end.code
        return code, *capsys.readouterr()

    return run_ablations


def sections(changes):
    found = {}
    for flag, value in changes.items():
        section, field = flag.split(".")
        found.setdefault(section, {})[field] = value
    return found


@pytest.fixture
def out(tmp_path):
    """A folder with results of two rows."""
    for row, change in (("many_depth", 0.0), ("dynamic_depth", -0.02)):
        for seed in range(3):
            result.write(tmp_path / f"results/{row}-{seed}.json", finished(row, seed, change, **sections(ROWS[row].changes)))
    return tmp_path


def table_rows(text):
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| ")][2:]


def test_table_of_requested_rows_and_their_controls(run_ablations, out):
    code, text, said = run_ablations(f"--out={out}", "--table_only", "--rows=dynamic_depth,dynamic_depth")
    assert (code, said) == (None, "") and (out / "results.md").read_text() + "\n" == text
    assert [row[:3] for row in table_rows(text)] == [["ManyDepth", "", "3"], ["DynamicDepth", "ManyDepth", "3"]]
    assert table_rows(text)[1][6] == "-0.0200 [-0.0200, -0.0200]" and table_rows(text)[1][-1] == "0.1073"
    assert {path.name for path in out.glob("results.*")} == {"results.md", "results.csv", "results.json", "results.png"}
    code, text, _ = run_ablations(f"--out={out}", "--table_only", "--seeds=1")
    assert code is None and [row[2] for row in table_rows(text)] == ["1", "1"]


@pytest.fixture
def planned(monkeypatch):
    """Runs that would be executed; none is."""
    found = []
    monkeypatch.setattr(runs, "execute", lambda runs, jobs: found.extend(runs))
    return found


def test_one_number_of_steps_and_one_base_for_all_rows(run_ablations, planned, out):
    code, _, said = run_ablations(
        f"--out={out}", "--base=rendered", "--steps=8", "--rows=normal_l1", "--config.data.root=x", "--seeds=2"
    )
    assert (code, said) == (None, "")
    assert [(run.row, run.seed) for run in planned] == [
        (row, seed) for seed in (0, 1) for row in ("many_depth", "dynamic_ground", "normal_l1")
    ]
    assert {(run.config.optim.steps, run.config.optim.decay_steps, run.config.train.init_from) for run in planned} == {
        (8, 6, "rendered")
    }
    assert [run.config.train.seed for run in planned] == [run.seed for run in planned]
    assert len({run.base for run in planned}) == 1 and planned[0].config.data.root == "x"


def test_rows_left_out_reported(run_ablations, planned, out):
    flags = "--base=rendered", "--config.data.masks=none", "--config.data.root=x"
    code, _, said = run_ablations(f"--out={out}", *flags, "--rows=dynamic_depth", "--seeds=1")
    assert code is None and [run.row for run in planned] == ["many_depth"]
    assert said.startswith("row dynamic_depth is left out: DOMD needs object masks") and said.count("\n") == 1
    code, _, said = run_ablations(f"--out={out}", "--base=rendered", "--config.optim.steps=-1", "--rows=many_depth")
    assert code == "error: no row can run with this --base and these fields"
    assert said.startswith("row many_depth is left out: --config.data.root is empty") and said.count("\n") == 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--base=rendered", "--rows=many_depth,posecycle"], "--rows: unknown posecycle; choose from many_depth, "),
        (["--config=configs/none.py"], "configs/none.py does not exist"),
        (["--config=configs/monodepth2.py"], "lacks ROWS"),
        ([], "error: --base is required"),
        (["--base=nowhere"], "error: nowhere is not a folder"),
        (["--table_only"], "has no result of these rows"),
    ],
)
def test_invalid_flags_raise_before_any_run(run_ablations, tmp_path, monkeypatch, flags, message):
    monkeypatch.chdir(ROOT)
    code, text, said = run_ablations(*flags, f"--out={tmp_path / 'out'}")
    assert message in code and not text + said and not (tmp_path / "out").exists()


ROWS_FILE = f"""
from dd_jax.ablations import plan
from dd_jax.ablations.plan import Row

ROWS = {{
    "many": Row("Many", {MANY}),
    "broken": Row("Broken", {{**{MANY}, "data.split_dir": "nowhere", "loss.smoothness": 0.01}}, "many"),
    "dynamic": Row("Dynamic", {DYNAMIC}, "many"),
}}


def get_config(name):
    row, _, base = name.partition("/")
    return plan.fine_tuned(ROWS[row], row, base, 1_000)
"""


@pytest.mark.slow
def test_stopped_table_continues_and_a_failing_row_stops_no_other(tmp_path):
    """Runs at once, from another folder: the runner alone gets a signal, then the same command is run again."""
    make(str(tmp_path / "drives"), preset="tiny", workers=1, progress=False)
    base = tiny.config(domd={"enabled": False}, data={"batch_size": 2}, eval={"crop": "none", "ground_truth": "annotated"})
    saved.write(tmp_path / "base", tiny.restored(base))
    (tmp_path / "rows.py").write_text(ROWS_FILE)
    one_device = os.environ["XLA_FLAGS"].replace("device_count=8", "device_count=1")
    how = {"env": os.environ | {"XLA_FLAGS": one_device}, "cwd": tmp_path, "text": True}
    how |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    command = [sys.executable, SCRIPT, "--config=rows.py", "--base=base", "--steps=15", "--seeds=1", "--jobs=2", "--out=out"]
    command += ["--config.data.root=drives", "--config.train.log_every=1", "--config.train.eval_frames=2"]
    folders = [tmp_path / f"out/{row}/seed0" for row in ("many", "dynamic")]

    def steps(folder):
        history = read_history(folder) if (folder / "metrics.jsonl").exists() else []
        return [entry["step"] for entry in history if entry["kind"] == "train"]

    with subprocess.Popen(command, **how) as first:
        deadline = time.monotonic() + 900
        while len(steps(folders[0])) < 3:
            logs = [path.read_text() for path in tmp_path.glob("out/*/*/train.log")]
            assert first.poll() is None and time.monotonic() < deadline, logs
            time.sleep(0.05)
        first.send_signal(signal.SIGTERM)
        text, said = first.communicate(timeout=300)
    assert first.returncode == 1 and not text and "Traceback" not in said
    assert "error: stopped by a signal: " in said
    stopped = run_folder.restore_params(folders[0], "latest").step
    assert stopped == steps(folders[0])[-1] and 3 <= stopped < 15

    second = subprocess.run(command, **how, check=False)
    assert second.returncode == 1 and "error: 1 of 3 runs failed, the others are kept" in second.stderr
    assert "row broken, seed 0, failed: " in second.stderr and "nowhere" in second.stderr and "Traceback" not in second.stderr
    assert [steps(folder) for folder in folders] == [list(range(1, 16))] * 2
    assert f"from step {stopped}" in (folders[0] / "train.log").read_text()
    assert [row[:3] for row in table_rows(second.stdout)] == [["Many", "", "1"], ["Dynamic", "Many", "1"]]
    assert {path.name for path in (tmp_path / "out/results").iterdir()} == {"many-0.json", "dynamic-0.json"}
    third = subprocess.run([*command, "--table_only"], **how, check=False)
    assert third.returncode == 0 and third.stdout == second.stdout
