"""The script run_ablations.py."""

import json
import os
import re
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny

from dd_jax import config as configs
from dd_jax.checkpoints import run_folder
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


@pytest.fixture
def out(tmp_path):
    """A folder with the committed results of two rows."""
    (tmp_path / "results").mkdir()
    for row in ("baseline", "pose_cycle"):
        for path in ROOT.glob(f"docs/results/{row}-[0-9].json"):
            (tmp_path / "results" / path.name).write_text(path.read_text())
    return tmp_path


def test_table_of_requested_rows(run_ablations, out):
    code, text, said = run_ablations(f"--out={out}", "--table_only", "--rows=pose_cycle,baseline,pose_cycle")
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")]
    assert (code, said) == (None, "")
    assert [row[:2] for row in rows[2:]] == [["| Dynamic-Depth", "3"], ["| Pose cycle consistency", "3"]]
    assert "difference to the row “Dynamic-Depth”" in text and (out / "results.md").read_text() + "\n" == text
    assert [row[9:] for row in rows[2:]] == [["0.1073 |"], ["0.1066 |"]]
    assert {path.name for path in out.glob("results.*")} == {"results.md", "results.csv", "results.json", "results.png"}


def test_rows_left_out_reported(run_ablations, tmp_path):
    where = f"--out={tmp_path}", "--table_only", "--variant=folder"
    code, text, said = run_ablations(*where)
    assert (code, text) == (None, "")
    assert re.findall(r"^row (\S+) is left out: ", said, re.MULTILINE)[:3] == ["mask_less", "mask_more", "no_domd"]
    code, text, said = run_ablations(*where, "--rows=baseline,no_domd")
    assert code.startswith("error: row no_domd: it computes the same as baseline") and not text + said


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--rows=baseline,posecycle", "--rows: unknown posecycle; choose from baseline, "),
        ("--config=configs/none.py", "configs/none.py does not exist"),
        ("--config=configs/monodepth2.py", "lacks BASELINE, ROWS"),
        ("--config.optim.steps=-1", "error: --config.optim.steps=-1 must be positive"),
    ],
)
def test_invalid_flags_raise_before_any_run(run_ablations, tmp_path, monkeypatch, flag, message):
    monkeypatch.chdir(ROOT)
    code, text, said = run_ablations(flag, f"--out={tmp_path / 'out'}")
    assert message in code and not text + said and not (tmp_path / "out").exists()


@pytest.mark.slow
def test_stopped_table_continues(tmp_path):
    """Two rows at once, from another folder: the runner alone gets a signal, then the same command is run again."""
    make(str(tmp_path / "drives"), preset="tiny", workers=1, progress=False)
    config = tiny.config(
        model={"student": False},
        domd={"enabled": False},
        data={"root": "unused"},
        optim={"steps": 60, "freeze_step": -1},
        train={"log_every": 1, "eval_every": 0, "checkpoint_every": 1000},
        eval={"crop": "none", "ground_truth": "annotated"},
    )
    (tmp_path / "config.json").write_text(json.dumps(configs.to_dict(config)))
    (tmp_path / "rows.py").write_text(
        "import json\nfrom types import SimpleNamespace\n\nfrom dd_jax import config\n\n"
        "ROWS = {name: SimpleNamespace(title=name.title(), published=None) for name in ('plain', 'smoother')}\n"
        "BASELINE = 'plain'\n\n\n"
        "def get_config(row):\n"
        f"    found = config.from_dict(json.load(open({str(tmp_path / 'config.json')!r})))\n"
        "    found.loss.smoothness *= 2 if row == 'smoother' else 1\n"
        "    return found\n"
    )
    one_device = os.environ["XLA_FLAGS"].replace("device_count=8", "device_count=1")
    how = {"env": os.environ | {"XLA_FLAGS": one_device}, "cwd": tmp_path, "text": True}
    how |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    command = [sys.executable, SCRIPT, "--config=rows.py", "--config.data.root=drives", "--seeds=1", "--jobs=2", "--out=out"]
    folders = [tmp_path / f"out/{row}/seed0" for row in ("plain", "smoother")]

    def steps(folder):
        history = read_history(folder) if (folder / "metrics.jsonl").exists() else []
        return [entry["step"] for entry in history if entry["kind"] == "train"]

    with subprocess.Popen(command, **how) as first:
        deadline = time.monotonic() + 500
        while min(len(steps(folder)) for folder in folders) < 3:
            logs = [path.read_text() for path in tmp_path.glob("out/*/*/train.log")]
            assert first.poll() is None and time.monotonic() < deadline, logs
            time.sleep(0.05)
        first.send_signal(signal.SIGTERM)
        text, said = first.communicate(timeout=120)
    assert first.returncode == 1 and not text and "Traceback" not in said
    assert "error: stopped by a signal: 2 of 2 runs unfinished, the same command continues" in said
    stopped = [run_folder.restore_params(folder, "latest").step for folder in folders]
    assert all(step == steps(folder)[-1] and 3 <= step < 60 for step, folder in zip(stopped, folders, strict=True))

    second = subprocess.run(command, **how, check=False)
    assert second.returncode == 0, second.stderr
    assert [steps(folder) for folder in folders] == [list(range(1, 61))] * 2
    assert all(f"from step {step}" in (folder / "train.log").read_text() for step, folder in zip(stopped, folders, strict=True))
    rows = [line.split(" | ") for line in second.stdout.splitlines() if line.startswith("| ")]
    assert [row[:2] for row in rows[2:]] == [["| Plain", "1"], ["| Smoother", "1"]]
    assert rows[3][6].endswith("/1") and float(rows[2][8]) > 0
    assert {path.name for path in (tmp_path / "out/results").iterdir()} == {"plain-0.json", "smoother-0.json"}
    third = subprocess.run([*command, "--table_only"], **how, check=False)
    assert third.returncode == 0 and third.stdout == second.stdout
