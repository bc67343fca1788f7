import csv
import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tiny

from configs import ablations as rows_file
from dd_jax import ablations, metrics
from dd_jax.config import ConfigError, to_dict
from dd_jax.evaluate import REGIONS
from dd_jax.validation import validate

ROOT = Path(__file__).parents[1]
ROWS = {"base": SimpleNamespace(title="Base", published=(0.1,)), "other": SimpleNamespace(title="Other", published=None)}


def trained_run(out, row, seed, level, frames=40):
    """A run whose frames all have abs_rel ``level``, give or take what each frame has in common for all runs."""
    folder = out / row / f"seed{seed}"
    folder.mkdir(parents=True)
    errors = level + np.random.default_rng(0).uniform(-0.05, 0.05, frames)
    region = {name: float(errors.mean()) for name in metrics.ERRORS}
    table = {name: region | {"pixels": 10} for name in REGIONS}
    table["dynamic"] = dict.fromkeys(metrics.ERRORS) | {"pixels": 0}
    (folder / "metrics.json").write_text(json.dumps({"teacher": table, "student": table}))
    with (folder / "per_image.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "predictor", "region", "abs_rel"])
        for index, error in enumerate(errors):
            writer.writerow([f"f{index}", "student", "all", error])
            writer.writerow([f"f{index}", "teacher", "all", 9.0])
            if index % 2:
                writer.writerow([f"f{index}", "student", "moving", 2 * error])
    (folder / "metrics.jsonl").write_text(json.dumps({"step": 1, "kind": "train", "images_per_second": 8.0}) + "\n")
    return ablations.Run(row, seed, tiny.config(train={"seed": seed}, optim={"steps": 1}), (), folder)


def finish(run):
    run.file.parent.mkdir(exist_ok=True)
    run.file.write_text(json.dumps(dataclasses.asdict(ablations.read_result(run))))


@pytest.fixture
def runs(tmp_path):
    levels = {"base": 0.3, "other": 0.32}
    runs = [trained_run(tmp_path, row, seed, level + 0.01 * seed) for row, level in levels.items() for seed in (0, 1)]
    for run in runs:
        finish(run)
    return runs


def test_a_line_says_mean_and_spread_over_seeds_and_the_paired_difference(runs):
    base, other = ablations.tabulate(runs, ROWS, "base")
    mean, deviation = base.scores["all"]["abs_rel"]
    assert mean == pytest.approx(ablations.tabulate(runs[:1], ROWS, "base")[0].scores["all"]["abs_rel"][0] + 0.005)
    assert deviation == pytest.approx(0.01 / 2**0.5)
    assert "dynamic" not in base.scores and not base.differences
    # The frames' own difficulty cancels out: every frame differs by the same.
    assert other.differences["all"] == pytest.approx((0.02, 0.02, 0.02), abs=2e-5)
    assert other.differences["moving"] == pytest.approx((0.04, 0.04, 0.04), abs=2e-5)  # half of the frames have such pixels
    assert other.by_seed["all"] == pytest.approx([0.02, 0.02], abs=2e-5) and base.by_seed["all"] == []
    assert other.step_seconds == pytest.approx(tiny.config().data.batch_size / 8)


def test_seeds_that_only_one_of_both_has_are_not_compared(runs):
    further = trained_run(runs[0].folder.parents[1], "base", 2, 0.5)
    finish(further)
    other = ablations.tabulate([*runs, further], ROWS, "base")[1]
    assert other.differences["all"] == pytest.approx((0.02, 0.02, 0.02), abs=2e-5) and len(other.by_seed["all"]) == 2
    (alone,) = ablations.tabulate([further, runs[2]], {"other": ROWS["other"]}, "base")
    assert alone.differences == {} and alone.by_seed["all"] == []


def test_the_interval_covers_what_noise_explains():
    rng = np.random.default_rng(1)
    base = rng.normal(0.3, 0.1, 200)
    mean, low, high = ablations.paired_bootstrap(base + rng.normal(0, 0.02, 200), base)
    assert low < 0 < high and low < mean < high
    assert high - low == pytest.approx(2 * 1.96 * 0.02 / 200**0.5, rel=0.2)


def test_tables_are_written_for_people_and_for_programs(runs, tmp_path):
    lines = ablations.tabulate(runs, ROWS, "base")
    alone = ablations.tabulate(runs[:1], ROWS, "base")  # one seed has no spread
    ablations.write(lines, tmp_path)
    text = (tmp_path / "results.md").read_text()
    assert "| Other | 2 |" in text and "±" in text.splitlines()[2] and "±" not in ablations.markdown(alone).splitlines()[2]
    assert "+0.0200 [+0.0200, +0.0200]" in text and "0.1000" in text
    assert json.loads((tmp_path / "results.json").read_text())[1]["differences"]["all"][0] == pytest.approx(0.02, abs=2e-5)
    assert (tmp_path / "results.csv").read_text().count("\n") == 1 + 2 * (len(REGIONS) - 1)
    assert (tmp_path / "results.png").read_bytes()[:4] == b"\x89PNG"


def test_a_result_of_another_config_is_refused_wherever_its_data_were(runs):
    runs[0].config.data.root = "elsewhere"
    assert runs[0].result() is not None
    runs[0].config.optim.steps = 7
    with pytest.raises(ConfigError, match="another config"):
        runs[0].result()


def test_results_on_other_frames_are_not_compared(runs):
    runs.append(trained_run(runs[0].folder.parents[1], "base", 2, 0.3, frames=41))
    finish(runs[-1])
    with pytest.raises(ConfigError, match="different test frames"):
        ablations.tabulate(runs, ROWS, "base")


def test_finished_runs_are_not_made_again(runs, monkeypatch):
    monkeypatch.setattr(ablations, "_make", lambda *_: pytest.fail("made again"))
    ablations.execute(runs, jobs=2)


def test_a_failed_run_is_named_and_the_others_go_on(runs, monkeypatch):
    made = []
    for run in runs[:2]:
        run.file.unlink()
    monkeypatch.setattr(ablations, "_make", lambda run, gpu, cores: made.append(run) or run.seed == 1)
    with pytest.raises(ConfigError, match=r"1 of 4 runs failed.*base/seed0/train\.log"):
        ablations.execute(runs, jobs=1)
    assert made == runs[:2]


def test_a_result_is_there_once_both_commands_have_succeeded(runs, monkeypatch):
    run, codes = runs[0], iter((0, 1, 0, 0))
    run.file.unlink()
    commands = SimpleNamespace(run=lambda *_, **__: SimpleNamespace(returncode=next(codes)))
    monkeypatch.setattr(ablations, "subprocess", commands)
    assert not ablations._make(run, None, []) and run.result() is None
    assert ablations._make(run, None, []) and run.result() == ablations.read_result(run)


def test_a_training_that_was_stopped_half_way_has_no_result(runs, monkeypatch):
    run = runs[0]
    run.file.unlink()
    run.config.optim.steps = 2
    monkeypatch.setattr(ablations, "subprocess", SimpleNamespace(run=lambda *_, **__: SimpleNamespace(returncode=0)))
    assert not ablations._make(run, None, []) and not run.file.exists()


@pytest.mark.parametrize("row", rows_file.ROWS)
@pytest.mark.parametrize("variant", ["", "/cityscapes"])
def test_every_row_is_a_valid_experiment_that_differs_from_the_baseline(row, variant):
    config = rows_file.get_config(row + variant)
    validate(config)
    same = to_dict(config) | {"name": ""} == to_dict(rows_file.get_config(rows_file.BASELINE + variant)) | {"name": ""}
    assert same == (row == rows_file.BASELINE)


def test_the_posters_rows_carry_its_figures():
    published = {name: row.published for name, row in rows_file.ROWS.items() if row.published}
    assert len(published) == 8 and all(len(values) == len(metrics.ERRORS) for values in published.values())


@pytest.mark.parametrize(
    ("flag", "says"),
    [
        ("--rows=baseline,posecycle", "has no posecycle"),
        ("--config=configs/none.py", "configs/none.py does not exist"),
        ("--config=configs/monodepth2.py", "has no BASELINE, ROWS"),
    ],
)
def test_what_cannot_be_tabulated_is_refused_before_anything_runs(tmp_path, flag, says):
    command = [sys.executable, "scripts/run_ablations.py", flag, f"--out={tmp_path / 'out'}"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 1 and says in result.stderr and not (tmp_path / "out").exists()
    assert "Traceback" not in result.stderr
