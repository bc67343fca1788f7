import csv
import dataclasses
import json

import pytest

from dd_jax.ablations import table
from dd_jax.ablations.comparison import tabulate
from dd_jax.config import ConfigError


def test_scores_spread_and_paired_difference(results, rows):
    base, other = tabulate(results, rows)
    mean = (4 * 0.30 + 2 * 0.40 + 4 * 0.35) / 10
    assert base.scores["previous"]["all"].value == pytest.approx(mean + 0.0005)
    assert base.by_seed["teacher"]["moving"] == pytest.approx([2 * mean, 2 * (mean + 0.001)])
    assert base.spreads["previous"]["all"] == pytest.approx(0.001 / 2**0.5)
    assert base.control is None and base.differences == {} and base.effect is None and base.moving is None
    for region, factor in (("all", 1), ("moving", 2), ("static", 0.5)):
        difference = other.differences["previous"][region]
        assert (difference.value, difference.low, difference.high) == pytest.approx((-0.02 * factor,) * 3)
    assert (other.control, other.compared_seeds, other.drives) == ("base", [0, 1], 3)


def test_gain_of_the_lookup_frame(results, rows):
    base = tabulate(results, rows)[0]
    level = base.scores["previous"]["all"].value
    for lookup in ("none", "other"):
        assert base.gains[lookup]["all"].value == pytest.approx(1 - level / (level + 0.1)) and base.gains[lookup]["all"].clear
    assert table.finding(base) == "the lookup frame helps"


def test_only_seeds_that_both_have_are_compared(results, rows, finished):
    other = tabulate([*results, finished("other", 2, 0.9)], rows)[1]
    assert other.seeds == [0, 1, 2] and other.compared_seeds == [0, 1]
    assert other.differences["previous"]["all"].value == pytest.approx(-0.02)
    (alone,) = tabulate(results[2:], rows)
    assert alone.control is None and alone.differences == {}


def test_difference_inside_the_noise_is_called_so(finished, rows):
    noise = {"other": (0.02, -0.03, -0.01)}
    results = [finished(row, seed, noise=noise.get(row, (0, 0, 0))) for row in rows for seed in (0, 1)]
    other = tabulate(results, rows)[1]
    assert not other.differences["previous"]["all"].clear
    assert "all pixels inside the noise, moving pixels inside the noise" in table.finding(other)
    assert table.finding(other).endswith("on moving pixels not ahead by more than twice the spread over seeds")


def test_row_with_the_scores_of_its_control_has_no_effect(finished, rows):
    other = tabulate([finished(row, seed) for row in rows for seed in (0, 1)], rows)[1]
    assert other.effect.of_row == 0 and other.effect.of_seed == pytest.approx(0.001)
    assert table.finding(other) == "no effect, the scores are those of base"


def test_effect_below_that_of_the_seed_is_said(finished, rows):
    other = tabulate([finished(row, seed, -0.0001 * (row == "other")) for row in rows for seed in (0, 1)], rows)[1]
    assert "change less than from seed to seed" in table.finding(other)


def test_control_that_ignores_its_lookup_frame_is_said(finished, rows):
    results = [finished(row, seed, change, lookup=0.0) for row, change in (("base", 0.0), ("other", -0.02)) for seed in (0, 1)]
    base, other = tabulate(results, rows)
    assert table.finding(base) == "ignores the lookup frame"
    assert "its control base does not profit from the lookup frame" in table.finding(other)


def test_moving_pixels_ahead_of_the_spread_and_only_with_the_lookup_frame(finished, rows):
    def other(without):
        results = [finished(row, seed, -0.02 * (row == "other")) for row in rows for seed in (0, 1)]
        for one in results[2:]:
            one.scores.abs_rel["none"] = {
                region: {drive: x + change for (drive, x), change in zip(drives.items(), without, strict=True)}
                for region, drives in results[one.seed].scores.abs_rel["none"].items()
            }
        return tabulate(results, rows)[1]

    found = other((0.01, -0.01, 0.001)).moving
    assert found.difference.value == pytest.approx(-0.04) and found.spread == pytest.approx(0.002 / 2**0.5)
    assert found.ahead and found.vanishes
    assert "ahead by more than twice the spread over seeds, which without a lookup frame is not seen" in table.finding(
        other((0.01, -0.01, 0.001))
    )
    assert found.by_lookup.value == pytest.approx(-0.04 - found.without_lookup.value)
    also = other((-0.04, -0.04, -0.04)).moving
    assert not also.vanishes and also.by_lookup.value == pytest.approx(0, abs=1e-9)


def test_one_seed_is_never_ahead_of_a_spread(results, rows):
    other = tabulate([one for one in results if one.seed == 0], rows)[1]
    assert other.moving.spread is None and other.moving.ahead is None and other.effect.of_seed is None
    assert "±" not in table.markdown([other]).splitlines()[2]


def test_one_drive_is_not_judged(results, rows):
    for one in results:
        one.scores.counts = {region: {"a": 4} for region in one.scores.counts}
    other = tabulate(results, rows)[1]
    assert other.moving.vanishes is None and other.differences["previous"]["all"].low is None
    assert table.finding(other) == "not judged, because intervals need two test drives"
    assert "| -0.0200 | -0.0400 |" in table.markdown([other])


def change_images(one):
    one.scores.images = "others"


def change_base(one):
    one.base = "another"


def change_steps(one):
    one.config.optim.steps = 7


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (change_images, "different test images"),
        (change_base, "started from different models"),
        (change_steps, r"base, seed 0, and other, seed 1, cannot be compared: optim\.steps differ"),
    ],
)
def test_results_that_cannot_be_compared_raise(results, rows, change, message):
    change(results[-1])
    with pytest.raises(ConfigError, match=message):
        tabulate(results, rows)


def test_markdown_names_control_intervals_and_findings(results, rows, tmp_path):
    lines = tabulate(results, rows)
    table.write(lines, tmp_path)
    text = (tmp_path / "results.md").read_text()
    assert text == table.markdown(lines)
    head, _, base, other = text.splitlines()[:4]
    assert base.startswith("| Base |  | 2 | 0.34") and other.startswith("| Other | Base | 2 | 0.32")
    assert "| -0.0200 [-0.0200, -0.0200] | -0.0400 [-0.0400, -0.0400] |" in other and other.endswith("| 0.1000 |")
    assert head.count("|") == other.count("|") and "over 3 test drives" in text
    assert "- Other: the lookup frame helps; all pixels better, moving pixels better, static pixels better; " in text
    assert (tmp_path / "results.png").read_bytes()[:4] == b"\x89PNG"


def test_json_and_csv_hold_all_numbers(results, rows, tmp_path):
    lines = tabulate(results, rows)
    table.write(lines, tmp_path)
    found = json.loads((tmp_path / "results.json").read_text())
    assert found == json.loads(json.dumps([dataclasses.asdict(line) | {"finding": table.finding(line)} for line in lines]))
    assert found[1]["moving"]["ahead"] is True and found[1]["moving"]["without_lookup"]["value"] == pytest.approx(-0.04)
    with (tmp_path / "results.csv").open(newline="") as file:
        entries = {(entry["row"], entry["predictor"], entry["region"]): entry for entry in csv.DictReader(file)}
    assert len(entries) == 2 * 4 * 3
    assert entries["base", "none", "all"]["difference"] == "" and entries["other", "none", "all"]["difference"] == "-0.020000"
    assert float(entries["other", "teacher", "moving"]["abs_rel"]) == pytest.approx(
        lines[1].scores["teacher"]["moving"].value, abs=1e-6
    )
