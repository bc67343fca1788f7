import csv
import json

import numpy as np
import pytest
import tiny
from matplotlib.figure import Figure

from dd_jax.ablations import table
from dd_jax.ablations.runs import collect_result, write_result
from dd_jax.config import ConfigError
from dd_jax.evaluate import REGIONS


def test_mean_and_spread_over_seeds_and_paired_difference(runs, rows):
    base, other = table.tabulate(runs, rows, "base")
    mean, deviation = base.scores["all"]["abs_rel"]
    assert mean == pytest.approx(table.tabulate(runs[:1], rows, "base")[0].scores["all"]["abs_rel"][0] + 0.005)
    assert deviation == pytest.approx(0.01 / 2**0.5)
    assert "dynamic" not in base.scores and not base.differences
    # The offset of each frame cancels: every frame differs by the same.
    assert other.differences["all"] == pytest.approx((0.02, 0.02, 0.02), abs=2e-5)
    assert other.differences["moving"] == pytest.approx((0.04, 0.04, 0.04), abs=2e-5)  # half of the frames have such pixels
    assert other.by_seed["all"] == pytest.approx([0.02, 0.02], abs=2e-5) and base.by_seed["all"] == []
    assert other.step_seconds == pytest.approx(tiny.config().data.batch_size / 8)


def test_only_common_seeds_compared(runs, rows, trained_run):
    further = trained_run("base", 2, 0.5)
    write_result(further.file, collect_result(further))
    other = table.tabulate([*runs, further], rows, "base")[1]
    assert other.differences["all"] == pytest.approx((0.02, 0.02, 0.02), abs=2e-5) and len(other.by_seed["all"]) == 2
    (alone,) = table.tabulate([further, runs[2]], {"other": rows["other"]}, "base")
    assert alone.differences == {} and alone.by_seed["all"] == []


def test_bootstrap_interval_covers_noise():
    rng = np.random.default_rng(1)
    base = rng.normal(0.3, 0.1, 200)
    mean, low, high = table.paired_bootstrap(base + rng.normal(0, 0.02, 200), base)
    assert low < 0 < high and low < mean < high
    assert high - low == pytest.approx(2 * 1.96 * 0.02 / 200**0.5, rel=0.2)


def test_different_test_frames_raise(runs, rows, trained_run):
    runs.append(trained_run("base", 2, 0.3, frames=41))
    write_result(runs[-1].file, collect_result(runs[-1]))
    with pytest.raises(ConfigError, match="different test frames"):
        table.tabulate(runs, rows, "base")


def test_markdown_table(runs, rows, tmp_path):
    lines = table.tabulate(runs, rows, "base")
    alone = table.tabulate(runs[:1], rows, "base")  # one seed has no spread
    table.write(lines, "base", tmp_path)
    text = (tmp_path / "results.md").read_text()
    assert text == table.markdown(lines, "base")
    assert "| Other | 2 |" in text and "±" in text.splitlines()[2] and "±" not in table.markdown(alone, "base").splitlines()[2]
    assert "+0.0200 [+0.0200, +0.0200]" in text and "0.1000" in text


def test_note_names_reference_row(runs, rows):
    lines = table.tabulate(runs, rows, "base")
    assert "the difference to the row “Base” " in table.markdown(lines[::-1], "base")
    assert "the difference to the baseline (not in this table) " in table.markdown(lines[1:], "base")


def test_seconds_and_published_columns(runs, rows):
    head, _, base, other = table.markdown(table.tabulate(runs, rows, "base"), "base").splitlines()[:4]
    assert head.endswith("| s / step | published* |")
    assert base.endswith("| 0.50 | 0.1000 |") and other.endswith("| 0.50 |  |")


def test_json_and_csv(runs, rows, tmp_path):
    lines = table.tabulate(runs, rows, "base")
    table.write(lines, "base", tmp_path)
    assert json.loads((tmp_path / "results.json").read_text())[1]["differences"]["all"][0] == pytest.approx(0.02, abs=2e-5)
    with (tmp_path / "results.csv").open(newline="") as file:
        entries = {(entry["row"], entry["region"]): entry for entry in csv.DictReader(file)}
    measured = [region for region in REGIONS if region != "dynamic"]  # has no pixels
    assert entries.keys() == {(row, region) for row in rows for region in measured}
    base, other = entries["base", "all"], entries["other", "all"]
    assert (base["title"], base["seeds"]) == ("Base", "2")
    assert base["published_abs_rel"] == base["published_a3"] == "0.100000" and base["abs_rel_difference"] == ""
    assert entries["base", "moving"]["published_abs_rel"] == "" == other["published_abs_rel"]
    for name in ("abs_rel_difference", "abs_rel_difference_low", "abs_rel_difference_high"):
        assert float(other[name]) == pytest.approx(0.02, abs=2e-5)
    assert (other["compared_seeds"], other["compared_seeds_of_its_sign"], other["step_seconds"]) == ("2", "2", "0.500000")
    assert float(other["abs_rel_mean"]) == pytest.approx(lines[1].scores["all"]["abs_rel"][0], abs=1e-6)


def test_figure_has_dashed_line_at_baseline(runs, rows, tmp_path, monkeypatch):
    drawn = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *given, **named: drawn.append(self) or save(self, *given, **named))
    lines = table.tabulate(runs, rows, "base")
    for shown in (lines, lines[::-1], lines[1:]):
        table.plot(shown, "base", tmp_path / "results.png")
        assert (tmp_path / "results.png").read_bytes()[:4] == b"\x89PNG"
    mean = lines[0].scores["all"]["abs_rel"][0]
    dashed = [[line.get_xdata()[0] for line in one.axes[0].lines if line.get_linestyle() == "--"] for one in drawn]
    assert dashed == [[mean], [mean], []]
