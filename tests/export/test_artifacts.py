"""Exported files give the outputs of the model; bad inputs and files raise."""

import dataclasses
import importlib.util
import json
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny

from dd_jax.checkpoints import saved
from dd_jax.config import ConfigError
from dd_jax.export import artifacts, programs
from dd_jax.method import compiled_steps

ROOT = Path(__file__).parents[2]
NEEDS = "needs flatbuffers, onnx and onnxruntime: pip install -e '.[export]'"


@pytest.fixture(scope="module")
def model():
    return tiny.restored(tiny.config(**tiny.SHARP))


@pytest.fixture(scope="module")
def batch():
    """Moving objects in samples 0 and 2, none in 1; sample 2 has no previous frame."""
    batch = tiny.batch(3, frames=2)
    batch.exists[2, 0] = False
    batch.images[2, 0] = 0
    return batch


@pytest.fixture(scope="module")
def predictions(model, batch):
    return compiled_steps.compile_predict_step(model.config)(model.state, batch)


@pytest.fixture(scope="module")
def stablehlo(model, tmp_path_factory):
    pytest.importorskip("flatbuffers", reason=NEEDS)
    folder = tmp_path_factory.mktemp("stablehlo")
    for program in programs.programs(model):
        (folder / f"{program.network}.stablehlo").write_bytes(artifacts.as_stablehlo(program))
    return folder


@pytest.fixture(scope="module")
def runs(stablehlo):
    return {network: artifacts.load(stablehlo / f"{network}.stablehlo") for network in ("teacher", "student")}


@pytest.fixture(scope="module")
def onnx_runs(model, tmp_path_factory):
    for package in ("onnx", "onnxruntime"):
        pytest.importorskip(package, reason=NEEDS)
    folder = tmp_path_factory.mktemp("onnx")
    for program in programs.programs(model):
        (folder / f"{program.network}.onnx").write_bytes(artifacts.as_onnx(program))
    return {network: artifacts.load_onnx(folder / f"{network}.onnx") for network in ("teacher", "student")}


def one(arrays):
    return {name: value[:1] for name, value in arrays.items()}


def agree(model, runs, batch, predictions, tolerance):
    for program in programs.programs(model):
        given, wanted = programs.arguments(program, batch), programs.expected(program, predictions, batch)
        found = runs[program.network](**given)
        assert {name: value.shape for name, value in found.items()} == {name: value.shape for name, value in wanted.items()}
        assert artifacts.difference(found, wanted) <= tolerance
        assert artifacts.difference(runs[program.network](**one(given)), one(wanted)) <= tolerance


def test_stablehlo_equals_model(model, runs, batch, predictions):
    agree(model, runs, batch, predictions, 1e-6)


def test_onnx_equals_model(model, onnx_runs, batch, predictions):
    agree(model, onnx_runs, batch, predictions, 1e-5)


def test_student_uses_every_input(model, runs, batch, predictions):
    """Without the previous frame it equals the teacher; masks change only samples with objects."""
    teacher, student = programs.programs(model)
    given = programs.arguments(student, batch)
    output = runs["student"](**given)["inverse_depth"]
    alone = runs["teacher"](**programs.arguments(teacher, batch))["inverse_depth"]
    np.testing.assert_allclose(output[2], alone[2], rtol=1e-6)
    assert np.abs(output[:2] / alone[:2] - 1).max(axis=(1, 2)).min() > 1e-3

    nothing = given | {name: np.zeros_like(value) for name, value in given.items() if name.endswith("mask")}
    changed = np.abs(runs["student"](**nothing)["inverse_depth"] / output - 1).max(axis=(1, 2))
    assert changed[0] > 1e-6 and changed[1] == changed[2] == 0
    np.testing.assert_array_equal(runs["student"](**given)["T_previous_from_target"][2], np.eye(4))


def test_one_file_for_all_platforms_and_batch_sizes(stablehlo, batch, predictions):
    exported = jax.export.deserialize(bytearray((stablehlo / "teacher.stablehlo").read_bytes()))
    assert exported.platforms == ("cpu", "cuda", "tpu")
    assert str(exported.in_avals[0].shape) == "(batch, 64, 96, 3)"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"image": np.zeros((1, 32, 96, 3), np.float32)},
            r"image must be float32 of shape \(batch, 64, 96, 3\): it is float32",
        ),
        ({"image": np.zeros((1, 64, 96, 3), np.uint8)}, r"image must be float32 .*: it is uint8 of shape \(1, 64, 96, 3\)"),
        ({"K": np.eye(3, dtype=np.float32)[None, None]}, r"K must be float32 of shape \(batch, 3, 3\)"),
        (
            {"mask": None},
            "the inputs are K, has_previous_image, image, mask, .*, but got K, has_previous_image, image, previous",
        ),
        ({"depth": np.zeros(1)}, "but got K, depth"),
        ({"K": np.zeros((2, 3, 3), np.float32)}, "all inputs must have the same batch size: they have .*'K': 2"),
    ],
)
def test_invalid_inputs_raise(model, runs, batch, change, message):
    given = one(programs.arguments(programs.programs(model, "student")[0], batch)) | change
    with pytest.raises(ConfigError, match=message):
        runs["student"](**{name: value for name, value in given.items() if value is not None})


def test_damaged_stablehlo_raises(stablehlo, tmp_path):
    whole = (stablehlo / "teacher.stablehlo").read_bytes()
    path = tmp_path / "teacher.stablehlo"
    unnamed = jax.export.export(jax.jit(lambda a, b: a + b))(1.0, 2.0).serialize()
    for data in (b"", b"something else", whole[: len(whole) // 2], whole[:-100], bytes(unnamed)):
        path.write_bytes(data)
        with pytest.raises(ConfigError, match=r"teacher.stablehlo is cut off or not a StableHLO file of scripts/export") as error:
            artifacts.load(path)
        assert "\n" not in str(error.value)
    with pytest.raises(ConfigError, match=r"cannot be read \(No such file or directory\)"):
        artifacts.load(tmp_path / "nothing.stablehlo")


def test_damaged_onnx_raises(tmp_path):
    pytest.importorskip("onnxruntime", reason=NEEDS)
    (tmp_path / "teacher.onnx").write_bytes(b"something else")
    with pytest.raises(ConfigError, match=r"teacher.onnx is cut off or not an ONNX file"):
        artifacts.load_onnx(tmp_path / "teacher.onnx")
    with pytest.raises(ConfigError, match=r"cannot be read"):
        artifacts.load_onnx(tmp_path / "nothing.onnx")


def test_script_writes_files_and_signature(model, tmp_path, capsys, monkeypatch):
    """A saved model to files, table and signature; then with a tolerance that no file meets."""
    pytest.importorskip("flatbuffers", reason=NEEDS)
    saved.write(tmp_path / "model", model)
    spec = importlib.util.spec_from_file_location("export_script", ROOT / "scripts/export.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    out = tmp_path / "exported"
    command = [f"--checkpoint={tmp_path / 'model'}", f"--out={out}", "--format=stablehlo", "--network=teacher"]
    step = compiled_steps.compile_predict_step(model.config, jax.local_devices(backend="cpu")[:1])
    monkeypatch.setattr(compiled_steps, "compile_predict_step", lambda config, devices: step)  # compiles once for both exports
    script.main(command)
    assert sorted(path.name for path in out.iterdir()) == ["signature.json", "teacher.stablehlo"]
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| teacher")]
    assert len(rows) == 1 and float(rows[0][4].strip(" |")) <= 1e-6

    signature = json.loads((out / "signature.json").read_text())
    assert signature["system"] == {"name": "dynamic_depth", "step": 0, "digest": saved.digest(model)}
    assert signature["frames"] == {"height": 64, "width": 96, "resize": "area", "step": 1}
    about = signature["artifacts"]["teacher.stablehlo"]
    assert about["inputs"]["image"]["shape"] == ["batch", 64, 96, 3] and about["platforms"] == ["cpu", "cuda", "tpu"]
    assert about["outputs"]["inverse_depth"]["unit"] == "1 / unit of depth" and about["difference"] <= 1e-6

    damaged = bytearray((out / "teacher.stablehlo").read_bytes())
    damaged[len(damaged) // 2] ^= 1  # a weight
    (out / "teacher.stablehlo").write_bytes(damaged)
    with pytest.raises(ConfigError, match=r"is not the file described by signature.json in its folder"):
        artifacts.load(out / "teacher.stablehlo")

    monkeypatch.setitem(artifacts.TOLERANCES, "stablehlo", -1.0)
    with pytest.raises(SystemExit, match=r"^error: .*teacher.stablehlo differs by .* from the model's outputs, more than -1"):
        script.main(command)
    assert json.loads((out / "signature.json").read_text())["artifacts"] == {}


def test_mistakes_raise_before_compilation(model, tmp_path, monkeypatch):
    pytest.importorskip("flatbuffers", reason=NEEDS)
    with pytest.raises(ConfigError, match="--format=torch is not one of stablehlo, onnx"):
        artifacts.export(model, tmp_path, ["torch"])
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"file/signature.json cannot be written \(.*\): name another folder"):
        artifacts.export(model, tmp_path / "file", ["stablehlo"])

    def no_such_backend(backend):
        raise RuntimeError(f"Unknown backend {backend}")

    monkeypatch.setattr(jax, "local_devices", no_such_backend)
    with pytest.raises(ConfigError, match="files are verified on the CPU, which JAX_PLATFORMS excludes: add ,cpu to it"):
        artifacts.export(model, tmp_path, ["stablehlo"])


def test_missing_packages_raise(model, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for kind, names in (("onnx", "onnx and onnxruntime"), ("stablehlo", "flatbuffers")):
        with pytest.raises(ConfigError, match=rf"^--format={kind} needs {names}: pip install -e '.\[export\]'$"):
            artifacts.export(model, tmp_path, [kind])
    with pytest.raises(ConfigError, match="--format=stablehlo needs flatbuffers"):
        artifacts.load(tmp_path / "teacher.stablehlo")
    with pytest.raises(ConfigError, match="--format=onnx needs onnx"):
        artifacts.load_onnx(tmp_path / "teacher.onnx")


def test_signature_keeps_earlier_exports_of_the_model(model, tmp_path):
    def listed(restored, new):
        return artifacts._signature(restored, tmp_path, new)["artifacts"]

    before = {"system": {"digest": saved.digest(model)}, "artifacts": {"teacher.onnx": {}, "student.onnx": {}}}
    (tmp_path / "signature.json").write_text(json.dumps(before))
    assert list(listed(model, {"teacher.onnx", "teacher.stablehlo"})) == ["student.onnx"]
    another = dataclasses.replace(model, state=model.state.replace(depth_range=2 * model.state.depth_range))
    assert listed(another, set()) == {}
    (tmp_path / "signature.json").write_text("{")
    assert listed(model, set()) == {}


def test_difference_of_nan_is_infinite():
    output = {"inverse_depth": np.array([1.0, np.nan])}
    assert artifacts.difference(output, {"inverse_depth": np.ones(2)}) == np.inf
    assert artifacts.difference({"inverse_depth": np.array([1.0, 1.5])}, {"inverse_depth": np.ones(2)}) == 0.5


VARIANTS = {
    "future frame": {"cost_volume": {"future_frame": True, "aggregate": "mean", "binning": "log"}},
    "cost fill": {
        "cost_volume": {"occlusion": "cost_fill", "binning": "inverse"},
        "domd": {"exclude_from_loss": True, "depth": "ground"},
    },
    "set one": {"cost_volume": {"occlusion": "set_one"}, "model": {"student_layers": 50}},
    "many depth": {"cost_volume": {"occlusion": "none"}, "domd": {"enabled": False}, "loss": {"occlusion_rule": "switch"}},
    "ds depth": {"ds": {"enabled": True}, "domd": {"enabled": False}, "cost_volume": {"occlusion": "none"}},
    "refined poses": {
        "model": {"pose_refinement": 2},
        "cost_volume": {"features": "colours", "window": 3, "temperature": 0.1},
        "optim": {"freeze_step": 0},
        "train": {"init_from": "unused"},
    },
    "monodepth2": {"model": {"student": False}, "domd": {"enabled": False}},
    "flow": {"model": {"flow": True}},
    "bfloat16": {"model": {"precision": "bfloat16"}},
    "sc depth": {"sc": {"enabled": True}, "model": {"student": False}, "domd": {"enabled": False}},
}


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_can_be_exported(variant, tmp_path):
    for package in ("flatbuffers", "onnx", "onnxruntime"):
        pytest.importorskip(package, reason=NEEDS)
    model = tiny.restored(tiny.config(**VARIANTS[variant]))
    found = artifacts.export(model, tmp_path)
    assert len(found) == (4 if model.config.model.student else 2)
