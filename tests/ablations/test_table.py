import csv
import json
import sys

import numpy as np
import pytest
import tiny

from dd_jax.ablations import table
from dd_jax.ablations.costs import Cost
from dd_jax.ablations.runs import read_result, write_kept
from dd_jax.config import ConfigError
from dd_jax.evaluate import REGIONS


def test_a_line_says_mean_and_spread_over_seeds_and_the_paired_difference(runs, rows):
    base, other = table.tabulate(runs, rows, "base")
    mean, deviation = base.scores["all"]["abs_rel"]
    assert mean == pytest.approx(table.tabulate(runs[:1], rows, "base")[0].scores["all"]["abs_rel"][0] + 0.005)
    assert deviation == pytest.approx(0.01 / 2**0.5)
    assert "dynamic" not in base.scores and not base.differences
    # The frames' own difficulty cancels out: every frame differs by the same.
    assert other.differences["all"] == pytest.approx((0.02, 0.02, 0.02), abs=2e-5)
    assert other.differences["moving"] == pytest.approx((0.04, 0.04, 0.04), abs=2e-5)  # half of the frames have such pixels
    assert other.by_seed["all"] == pytest.approx([0.02, 0.02], abs=2e-5) and base.by_seed["all"] == []
    assert other.step_seconds == pytest.approx(tiny.config().data.batch_size / 8)


def test_seeds_that_only_one_of_both_has_are_not_compared(runs, rows, trained_run):
    further = trained_run("base", 2, 0.5)
    write_kept(further.file, read_result(further))
    other = table.tabulate([*runs, further], rows, "base")[1]
    assert other.differences["all"] == pytest.approx((0.02, 0.02, 0.02), abs=2e-5) and len(other.by_seed["all"]) == 2
    (alone,) = table.tabulate([further, runs[2]], {"other": rows["other"]}, "base")
    assert alone.differences == {} and alone.by_seed["all"] == []


def test_the_interval_covers_what_noise_explains():
    rng = np.random.default_rng(1)
    base = rng.normal(0.3, 0.1, 200)
    mean, low, high = table.paired_bootstrap(base + rng.normal(0, 0.02, 200), base)
    assert low < 0 < high and low < mean < high
    assert high - low == pytest.approx(2 * 1.96 * 0.02 / 200**0.5, rel=0.2)


def test_results_on_other_frames_are_not_compared(runs, rows, trained_run):
    runs.append(trained_run("base", 2, 0.3, frames=41))
    write_kept(runs[-1].file, read_result(runs[-1]))
    with pytest.raises(ConfigError, match="different test frames"):
        table.tabulate(runs, rows, "base")


def test_a_table_is_written_for_people(runs, rows, tmp_path):
    lines = table.tabulate(runs, rows, "base")
    alone = table.tabulate(runs[:1], rows, "base")  # one seed has no spread
    table.write(lines, "base", tmp_path)
    text = (tmp_path / "results.md").read_text()
    assert text == table.markdown(lines, "base")
    assert "| Other | 2 |" in text and "±" in text.splitlines()[2] and "±" not in table.markdown(alone, "base").splitlines()[2]
    assert "+0.0200 [+0.0200, +0.0200]" in text and "0.1000" in text


def test_a_table_names_the_row_that_it_compares_with_wherever_that_is(runs, rows):
    lines = table.tabulate(runs, rows, "base")
    assert "the difference to the row “Base” " in table.markdown(lines[::-1], "base")
    assert "the difference to the baseline, which is not here, " in table.markdown(lines[1:], "base")


def test_a_table_says_what_a_step_computes_beside_its_seconds(runs, rows):
    write_kept(runs[2].cost_file, Cost(runs[2].config, {}, 1.25, None))
    base, other = table.tabulate(runs, rows, "base")
    assert (base.joint_gflop, other.joint_gflop, other.frozen_gflop) == (None, 1.25, None)
    head, _, without, counted = table.markdown([base, other], "base").splitlines()[:4]
    assert "| s / step | GFLOP / sample, joint | frozen | published* |" in head
    assert without.endswith("| 0.50 |  |  | 0.1000 |") and counted.endswith("| 0.50 | 1.25 |  |  |")


def test_a_table_is_written_for_programs(runs, rows, tmp_path):
    write_kept(runs[0].cost_file, Cost(runs[0].config, {}, 1.25, 0.5))
    lines = table.tabulate(runs, rows, "base")
    table.write(lines, "base", tmp_path)
    assert json.loads((tmp_path / "results.json").read_text())[1]["differences"]["all"][0] == pytest.approx(0.02, abs=2e-5)
    with (tmp_path / "results.csv").open(newline="") as file:
        entries = {(entry["row"], entry["region"]): entry for entry in csv.DictReader(file)}
    measured = [region for region in REGIONS if region != "dynamic"]  # there are no such pixels
    assert entries.keys() == {(row, region) for row in rows for region in measured}
    base, other = entries["base", "all"], entries["other", "all"]
    assert (base["title"], base["seeds"], base["joint_gflop"], base["frozen_gflop"]) == ("Base", "2", "1.250000", "0.500000")
    assert base["published_abs_rel"] == base["published_a3"] == "0.100000" and base["abs_rel_difference"] == ""
    assert entries["base", "moving"]["published_abs_rel"] == "" == other["published_abs_rel"] == other["joint_gflop"]
    for name in ("abs_rel_difference", "abs_rel_difference_low", "abs_rel_difference_high"):
        assert float(other[name]) == pytest.approx(0.02, abs=2e-5)
    assert (other["compared_seeds"], other["compared_seeds_of_its_sign"], other["step_seconds"]) == ("2", "2", "0.500000")
    assert float(other["abs_rel_mean"]) == pytest.approx(lines[1].scores["all"]["abs_rel"][0], abs=1e-6)


def test_a_picture_has_a_dashed_line_at_the_baseline(runs, rows, tmp_path, monkeypatch):
    figure = pytest.importorskip("matplotlib.figure", reason="needs matplotlib: pip install -e '.[plot]'")
    drawn = []
    save = figure.Figure.savefig
    monkeypatch.setattr(figure.Figure, "savefig", lambda self, *given, **named: drawn.append(self) or save(self, *given, **named))
    lines = table.tabulate(runs, rows, "base")
    for shown in (lines, lines[::-1], lines[1:]):
        table.plot(shown, "base", tmp_path / "results.png")
        assert (tmp_path / "results.png").read_bytes()[:4] == b"\x89PNG"
    mean = lines[0].scores["all"]["abs_rel"][0]
    dashed = [[line.get_xdata()[0] for line in one.axes[0].lines if line.get_linestyle() == "--"] for one in drawn]
    assert dashed == [[mean], [mean], []]


def test_a_picture_without_matplotlib_is_refused_with_a_sentence(runs, rows, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ConfigError, match=r"results\.png needs matplotlib: pip install -e '\.\[plot\]'"):
        table.plot(table.tabulate(runs, rows, "base"), "base", tmp_path / "results.png")
