"""The model card describes the model, in a format that the hub reads."""

import pytest
import tiny
import yaml

from dd_jax.checkpoints import model_card
from dd_jax.config.protocols import protocol

SHA256 = "ab" * 32
ROW = {"abs_rel": 0.1234, "sq_rel": 1, "rmse": 4.5, "rmse_log": 0.2, "a1": 0.9, "a2": 0.95, "a3": 0.99, "pixels": 7}
NOTHING = {name: None for name in ROW} | {"pixels": 0}
SCORES = {"student": {"all": ROW, "moving": NOTHING}, "teacher": {"all": ROW | {"abs_rel": 0.2}}, "mean_map": {"all": ROW}}


@pytest.fixture(scope="module")
def restored():
    return tiny.restored(tiny.config(data={"split": "eigen_zhou", "source": "kitti"}))


def head_of(text):
    _, head, body = text.split("---\n", 2)
    return yaml.safe_load(head), body


def test_card_without_scores(restored):
    head, body = head_of(model_card.text(restored, SHA256, None))
    assert head["library_name"] == "dd_jax" and head["pipeline_tag"] == "depth-estimation"
    assert "dynamic_depth" in head["tags"] and "license" not in head and "model-index" not in head
    assert "Trained with `dd_jax`." in body and "Not evaluated." in body
    assert f"| SHA-256 of model.safetensors | `{SHA256}` |" in body
    assert "| networks | student of 18 layers, 8 depth bins; teacher and pose of 18 layers; width 8 |" in body
    assert "| training steps | 0 of 66,000 |" in body and "| depth bins from, to | 0.4, 2.4 |" in body
    assert f"jax {restored.versions['jax']}" in body and "imported from" not in body
    assert "`kitti`, split `eigen_zhou`, at 64 x 96" in body


def test_card_with_scores(restored):
    head, body = head_of(model_card.text(restored, SHA256, SCORES))
    (index,) = head["model-index"]
    (result,) = index["results"]
    assert index["name"] == "dynamic_depth" and result["dataset"] == {"type": "kitti", "name": "kitti eigen_zhou"}
    values = {metric["name"]: (metric["type"], metric["value"]) for metric in result["metrics"]}
    assert len(values) == 14 and values["abs_rel, student, all pixels"] == ("abs_rel", 0.1234)
    assert values["abs_rel, teacher, all pixels"] == ("abs_rel", 0.2)
    assert "| student | all | 0.1234 | 1.0000 | 4.5000 |" in body and "Protocol" in body
    assert "mean_map" not in body and "moving" not in body  # a baseline, and a region without pixels
    assert "Not evaluated." in model_card.text(restored, SHA256, {"student": {"all": NOTHING}})


def test_card_of_rendered_drives_and_of_a_single_frame_model():
    config = tiny.config(data={"source": "kitti"}, model={"student": False}, domd={"enabled": False}, optim={"freeze_step": -1})
    config.eval = protocol("synthetic")
    head, body = head_of(model_card.text(tiny.restored(config), SHA256, {"single_frame": {"all": ROW}}))
    assert head["model-index"][0]["results"][0]["dataset"] == {"type": "synthetic", "name": "rendered drives"}
    assert "rendered drives, at 64 x 96" in body and "| networks | single-frame and pose network of 18 layers; width 8 |" in body
    assert "| single_frame | all | 0.1234 |" in body


def test_card_of_imported_model(restored):
    imported = tiny.restored(restored.config)
    imported.versions = restored.versions | {"imported": "encoder.pth (SHA-256 00)"}
    imported.score = 0.25
    body = model_card.text(imported, SHA256, None)
    assert "| imported from | encoder.pth (SHA-256 00) |" in body and "training steps" not in body
    assert "Imported into `dd_jax`" in body and "The licence of the imported checkpoint holds" in body
    assert "| abs_rel on the validation split | 0.2500 |" in body


def test_hub_parses_card(restored, tmp_path):
    hub = pytest.importorskip("huggingface_hub", reason="pip install -e '.[hub]'")
    (tmp_path / "README.md").write_text(model_card.text(restored, SHA256, SCORES))
    data = hub.ModelCard.load(tmp_path / "README.md").data
    assert data.model_name == "dynamic_depth" and len(data.eval_results) == 14
    assert {result.dataset_name for result in data.eval_results} == {"kitti eigen_zhou"}
