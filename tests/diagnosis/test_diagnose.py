import dataclasses
import importlib.util
import json
from pathlib import Path

import jax
import pytest
import tiny

from dd_jax.checkpoints import saved
from dd_jax.data.loader import list_split, open_split
from dd_jax.diagnosis import checkpoint
from dd_jax.diagnosis.diagnose import NO_MEAN_MAP, NO_POSES, NO_STUDENT, NO_TRUTH, diagnose
from dd_jax.diagnosis.page import chapters
from dd_jax.diagnosis.tables import tables, text
from dd_jax.evaluation import evaluate
from dd_jax.method import compiled_steps

FRAMES = 4


@pytest.fixture(scope="module")
def model(drives):
    """Untrained networks, with an initial motion so that matching sees something."""
    config = tiny.config(data={"root": str(drives)}, model={"initial_forward": 0.1})
    config.eval.ground_truth, config.eval.crop, config.eval.batch_size = "annotated", "none", FRAMES
    return tiny.restored(config)


@pytest.fixture(scope="module")
def found(model):
    source, training = open_split(model.config.data, "test"), list_split(model.config.data, "train")
    return diagnose(model.state, model.config, source, train_truth=training, max_frames=FRAMES, devices=jax.devices()[:1])


def test_scores_are_those_of_the_evaluation(model, found):
    devices = jax.devices()[:1]
    predict = compiled_steps.compile_predict_step(model.config, devices)
    state = jax.device_put(model.state, devices[0])
    source = open_split(model.config.data, "test")
    expected = evaluate.evaluate(lambda batch: predict(state, batch), source, model.config, max_frames=FRAMES).metrics
    for region in evaluate.REGIONS:
        assert found.lookup["previous"][region] == expected["student"][region]["abs_rel"]
        assert found.teacher[region] == expected["teacher"][region]["abs_rel"]
    assert len({errors["all"] for errors in found.lookup.values()}) == 4  # each lookup frame gives another depth
    assert found.mean_map["all"] > 0


def test_every_part_is_answered(found):
    assert found.samples == FRAMES and found.missing == {}
    assert found.depth_range == pytest.approx((0.4, 2.4))
    assert found.poses["frames"] == FRAMES and list(found.poses["per_drive"]) == found.motion.drives[:1]
    row = found.by_range["all"]
    assert row["cells"] > 100 and all(value is not None for value in row.values())
    assert 0 <= found.supervision["reliable"] <= 1 and found.findings


def test_json_holds_all_numbers_and_no_arrays(found):
    values = json.loads(json.dumps(found.as_json(), allow_nan=False))
    assert "motion" not in values and values["lookup"] == found.lookup and values["by_range"] == found.by_range
    wanted = {"speed_correlation", "rotation_error_deg_median", "rotation_error_deg_90", "yaw_correlation", "standing_speed"}
    assert wanted | {"per_drive"} <= set(values["poses"])
    assert set(values["lookup"]) == {"previous", "other", "none", "target"}


def test_tables_are_aligned_and_the_page_has_both_charts(found):
    for table in tables(found):
        lines = text(table).splitlines()
        assert len(lines) == len(table.rows) + 2 and len({len(line) for line in lines[1:]}) == 1
    page = chapters(found)
    assert next(iter(page)) == "Findings" and len(page) == 5
    assert sum(body.count("<img") for body in page.values()) == 2
    assert all(sentence.split(":")[0] in page["Findings"] for sentence in found.findings)


@pytest.fixture(scope="module")
def single(model):
    config = dataclasses.replace(model.config, model=dataclasses.replace(model.config.model, student=False))
    return tiny.restored(config)


def test_single_frame_system_has_no_lookup(single):
    source = open_split(single.config.data, "test")
    found = diagnose(single.state, single.config, source, max_frames=FRAMES, devices=jax.devices()[:1])
    assert found.missing == {"lookup": NO_STUDENT, "mean_map": NO_MEAN_MAP} and found.depth_range is None
    assert found.teacher["all"] > 0 and found.poses["frames"] == FRAMES
    assert set(found.by_range["all"]) == {"cells", "teacher"}
    assert found.supervision["reliable"] is None and found.supervision["auto_masked"] > 0
    printed = "\n".join(map(text, tables(found)))
    assert "single-frame network" in printed and "cheapest" not in printed


def test_without_ground_truth_and_poses_the_parts_say_so(single, monkeypatch):
    source = open_split(single.config.data, "test")
    monkeypatch.setattr(source, "ground_truth", lambda index, kind: None)
    config = dataclasses.replace(single.config, data=dataclasses.replace(single.config.data, source="folder"))
    found = diagnose(single.state, config, source, max_frames=FRAMES, devices=jax.devices()[:1])
    without = {"teacher": NO_TRUTH, "mean_map": NO_TRUTH, "by_range": NO_TRUTH, "poses": NO_POSES}
    assert found.missing == {"lookup": NO_STUDENT} | without
    printed = "\n".join(map(text, tables(found)))
    assert NO_TRUTH in printed and NO_POSES in printed and "auto-masked" in printed
    assert chapters(found)["Depth by range"] == f"<p>{NO_TRUTH}.</p>"


@pytest.fixture
def script():
    path = Path(__file__).parents[2] / "scripts/diagnose.py"
    spec = importlib.util.spec_from_file_location("diagnose_script", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_script_prints_and_writes_everything(model, found, drives, script, tmp_path, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(checkpoint, "diagnose", lambda *given, **options: (asked.append(options), found)[1])
    saved.write(tmp_path / "run", model)
    script.main(
        [f"--checkpoint={tmp_path / 'run'}", f"--data_root={drives}", "--max_frames=4", f"--json={tmp_path / 'new/a.json'}"]
    )
    assert asked[0]["max_frames"] == 4 and len(asked[0]["train_truth"]) > 0
    printed = capsys.readouterr().out
    assert all(sentence in printed for sentence in found.findings) and "cheapest bin, true poses" in printed
    values = json.loads((tmp_path / "new/a.json").read_text())
    assert values["config"] == model.config.name and values["split"] == "test" and "git" in values["versions"]
    assert values["lookup"] == found.lookup
    page = (tmp_path / "run/diagnosis.html").read_text()
    assert page.count("<img") == 2 and "protocol" in page.lower()


def test_bundled_model_gets_a_report_only_where_told(found, drives, script, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(checkpoint, "diagnose", lambda *given, **options: found)
    script.main(["--checkpoint=rendered", f"--data_root={drives}"])
    assert "report:" not in capsys.readouterr().out and not list(saved.BUNDLED.glob("*/diagnosis.html"))
    script.main(["--checkpoint=rendered", f"--data_root={drives}", f"--out={tmp_path / 'out'}"])
    assert (tmp_path / "out/diagnosis.html").is_file() and "report:" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--checkpoint=nowhere"], "nowhere is not a folder"),
        (["--checkpoint=rendered"], "--data_root is empty"),
        (["--checkpoint=rendered", "--max_frames=0"], "0 must be an integer of at least 1"),
        ([], "--checkpoint"),
    ],
)
def test_bad_flags_end_with_one_sentence(script, flags, message):
    with pytest.raises(SystemExit) as stop:
        script.main(flags)
    assert message in str(stop.value) and str(stop.value).startswith("error: ")
