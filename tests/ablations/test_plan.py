from pathlib import Path

import pytest

from configs import ablations as file
from dd_jax.ablations import plan
from dd_jax.ablations.runs import Run
from dd_jax.config import ConfigError
from dd_jax.config.rules import validate

RESULTS = Path(__file__).parents[2] / "docs/results"
WITHOUT_DOMD = {"no_domd", "objects_excluded", "rule_union", "rule_min", "fill_none", "fill_one", "fill_cost", "many_depth"}
WITHOUT_MASKS = {"mask_less", "mask_more", "dynamic_cycle"}


def valid_config(variant="", **fields):
    def valid_config(row):
        config = file.get_config(f"{row}/{variant}" if variant else row)
        for name, value in fields.items():
            section, field = name.split("__")
            setattr(getattr(config, section), field, value)
        validate(config)
        return config

    return valid_config


def test_rows_chosen_once_and_in_table_order():
    assert plan.choose(["a", "b", "c"], ["c", "a", "c"]) == ["a", "c"]
    assert plan.choose(["a", "b"], []) == ["a", "b"]
    with pytest.raises(ConfigError, match="--rows: unknown d; choose from a, b"):
        plan.choose(["a", "b"], ["a", "d"])


@pytest.mark.parametrize("variant", ["", "demo", "synthetic", "kitti", "cityscapes"])
def test_every_row_valid_and_different_from_baseline(variant):
    assert plan.leave_out(list(file.ROWS), file.BASELINE, False, valid_config(variant)) == (list(file.ROWS), [])


def test_invalid_and_duplicate_rows_left_out_with_reason():
    kept, sentences = plan.leave_out(list(file.ROWS), file.BASELINE, False, valid_config("folder"))
    assert set(kept) == set(file.ROWS) - WITHOUT_DOMD - WITHOUT_MASKS and kept[0] == file.BASELINE
    assert [sentence.split()[1] for sentence in sentences] == [row for row in file.ROWS if row not in kept]
    assert "row no_domd is left out: it computes the same as baseline: the options in which" in sentences[2]
    assert sentences[0].startswith("row mask_less is left out: --config.loss.mask_weight needs object masks")


@pytest.mark.parametrize("row", sorted(WITHOUT_DOMD | WITHOUT_MASKS))
def test_invalid_rows_requested_by_name_raise(row):
    for rows in ([file.BASELINE, row], [row]):
        with pytest.raises(ConfigError, match=f"^row {row}: "):
            plan.leave_out(rows, file.BASELINE, True, valid_config("folder"))


def test_overrides_considered_in_comparison_with_baseline():
    kept, (sentence,) = plan.leave_out(list(file.ROWS)[:6], file.BASELINE, False, valid_config(loss__pose_cycle=0.3))
    assert "pose_cycle" not in kept and sentence.startswith("row pose_cycle is left out: it computes the same as baseline")


def test_invalid_baseline_raises():
    broken = valid_config(data__height=70)
    for named in (True, False):
        with pytest.raises(ConfigError, match=r"^--config\.data\.height=70"):
            plan.leave_out(list(file.ROWS), file.BASELINE, named, broken)
    alone = valid_config(model__student=False, optim__freeze_step=-1, domd__enabled=False, loss__normal_l1=1.0)
    with pytest.raises(ConfigError, match="normal_l1 needs a student"):
        plan.leave_out([file.BASELINE], file.BASELINE, True, alone)
    with pytest.raises(ConfigError, match=r"^row sc_depth_v3: "):
        plan.leave_out(["sc_depth_v3"], file.BASELINE, True, valid_config(model__student=True))


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*-[0-9].json")), ids=lambda path: path.stem)
def test_committed_results_match_row_configs(path, tmp_path):
    row, seed = path.stem.rsplit("-", 1)
    config = file.get_config(row)
    config.train.seed = int(seed)
    (tmp_path / "results").symlink_to(RESULTS)
    assert Run(row, int(seed), config, (), tmp_path / row / f"seed{seed}").result() is not None


def test_poster_rows_have_published_figures():
    published = {name: row.published for name, row in file.ROWS.items() if row.published}
    assert len(published) == 8 and all(len(values) == 7 for values in published.values())
