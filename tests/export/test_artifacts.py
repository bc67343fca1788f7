"""What is exported answers like the system it was made of, and says what is wrong with what it is given."""

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
from dd_jax.method import on_devices

ROOT = Path(__file__).parents[2]
NEEDS = "needs flatbuffers, onnx and onnxruntime: pip install -e '.[export]'"


@pytest.fixture(scope="module")
def system():
    return tiny.restored(tiny.config(**tiny.SHARP))


@pytest.fixture(scope="module")
def batch():
    """Objects that move in samples 0 and 2, none in 1; sample 2 has no previous frame."""
    batch = tiny.batch(3, frames=2)
    batch.exists[2, 0] = False
    batch.images[2, 0] = 0
    return batch


@pytest.fixture(scope="module")
def predictions(system, batch):
    return on_devices.compile_predict_step(system.config)(system.state, batch)


@pytest.fixture(scope="module")
def stablehlo(system, tmp_path_factory):
    pytest.importorskip("flatbuffers", reason=NEEDS)
    folder = tmp_path_factory.mktemp("stablehlo")
    for program in programs.programs(system):
        (folder / f"{program.network}.stablehlo").write_bytes(artifacts.as_stablehlo(program))
    return folder


@pytest.fixture(scope="module")
def runs(stablehlo):
    return {network: artifacts.load(stablehlo / f"{network}.stablehlo") for network in ("teacher", "student")}


@pytest.fixture(scope="module")
def onnx_runs(system, tmp_path_factory):
    for package in ("onnx", "onnxruntime"):
        pytest.importorskip(package, reason=NEEDS)
    folder = tmp_path_factory.mktemp("onnx")
    for program in programs.programs(system):
        (folder / f"{program.network}.onnx").write_bytes(artifacts.as_onnx(program))
    return {network: artifacts.load_onnx(folder / f"{network}.onnx") for network in ("teacher", "student")}


def one(arrays):
    return {name: value[:1] for name, value in arrays.items()}


def agree(system, runs, batch, predictions, tolerance):
    for program in programs.programs(system):
        given, wanted = programs.arguments(program, batch), programs.expected(program, predictions, batch)
        found = runs[program.network](**given)
        assert {name: value.shape for name, value in found.items()} == {name: value.shape for name, value in wanted.items()}
        assert artifacts.difference(found, wanted) <= tolerance
        assert artifacts.difference(runs[program.network](**one(given)), one(wanted)) <= tolerance


def test_stablehlo_answers_like_the_system(system, runs, batch, predictions):
    agree(system, runs, batch, predictions, 1e-6)


def test_onnx_answers_like_the_system(system, onnx_runs, batch, predictions):
    agree(system, onnx_runs, batch, predictions, 1e-5)


def test_the_student_looks_at_everything_it_is_given(system, runs, batch, predictions):
    """Without the previous frame it is the teacher; masks change what moves and nothing else."""
    teacher, student = programs.programs(system)
    given = programs.arguments(student, batch)
    answer = runs["student"](**given)["inverse_depth"]
    alone = runs["teacher"](**programs.arguments(teacher, batch))["inverse_depth"]
    np.testing.assert_allclose(answer[2], alone[2], rtol=1e-6)
    assert np.abs(answer[:2] / alone[:2] - 1).max(axis=(1, 2)).min() > 1e-3

    nothing = given | {name: np.zeros_like(value) for name, value in given.items() if name.endswith("mask")}
    changed = np.abs(runs["student"](**nothing)["inverse_depth"] / answer - 1).max(axis=(1, 2))
    assert changed[0] > 1e-6 and changed[1] == changed[2] == 0
    np.testing.assert_array_equal(runs["student"](**given)["T_previous_from_target"][2], np.eye(4))


def test_one_file_is_for_all_platforms_and_needs_jax_alone(stablehlo, batch, predictions):
    exported = jax.export.deserialize(bytearray((stablehlo / "teacher.stablehlo").read_bytes()))
    assert exported.platforms == ("cpu", "cuda", "tpu")
    assert str(exported.in_avals[0].shape) == "(batch, 64, 96, 3)"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            {"image": np.zeros((1, 32, 96, 3), np.float32)},
            r"image must be float32 of the shape \(batch, 64, 96, 3\): it is float32",
        ),
        ({"image": np.zeros((1, 64, 96, 3), np.uint8)}, r"image must be float32 .*: it is uint8 of the shape \(1, 64, 96, 3\)"),
        ({"K": np.eye(3, dtype=np.float32)[None, None]}, r"K must be float32 of the shape \(batch, 3, 3\)"),
        (
            {"mask": None},
            "the inputs are K, has_previous_image, image, mask, .*, given were K, has_previous_image, image, previous",
        ),
        ({"depth": np.zeros(1)}, "given were K, depth"),
        ({"K": np.zeros((2, 3, 3), np.float32)}, "all inputs must have one batch size: they have .*'K': 2"),
    ],
)
def test_inputs_are_checked(system, runs, batch, change, says):
    given = one(programs.arguments(programs.programs(system, "student")[0], batch)) | change
    with pytest.raises(ConfigError, match=says):
        runs["student"](**{name: value for name, value in given.items() if value is not None})


def test_damaged_files_are_refused_in_one_sentence(stablehlo, tmp_path):
    whole = (stablehlo / "teacher.stablehlo").read_bytes()
    path = tmp_path / "teacher.stablehlo"
    for data in (b"", b"something else", whole[: len(whole) // 2], whole[:-100]):
        path.write_bytes(data)
        with pytest.raises(ConfigError, match=r"teacher.stablehlo is cut off, or no StableHLO of scripts/export.py") as error:
            artifacts.load(path)
        assert "\n" not in str(error.value)
    with pytest.raises(ConfigError, match=r"cannot be read \(No such file or directory\)"):
        artifacts.load(tmp_path / "nothing.stablehlo")


def test_damaged_onnx_is_refused_in_one_sentence(tmp_path):
    pytest.importorskip("onnxruntime", reason=NEEDS)
    (tmp_path / "teacher.onnx").write_bytes(b"something else")
    with pytest.raises(ConfigError, match=r"teacher.onnx is cut off, or no ONNX"):
        artifacts.load_onnx(tmp_path / "teacher.onnx")
    with pytest.raises(ConfigError, match=r"cannot be read"):
        artifacts.load_onnx(tmp_path / "nothing.onnx")


def test_the_script_writes_files_and_what_they_are(system, tmp_path, capsys, monkeypatch):
    """All of it: a saved system to files, table and signature; then the same with a tolerance that nothing keeps."""
    pytest.importorskip("flatbuffers", reason=NEEDS)
    saved.write(tmp_path / "model", system)
    spec = importlib.util.spec_from_file_location("export_script", ROOT / "scripts/export.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    out = tmp_path / "exported"
    command = [f"--checkpoint={tmp_path / 'model'}", f"--out={out}", "--format=stablehlo", "--network=teacher"]
    script.main(command)
    assert sorted(path.name for path in out.iterdir()) == ["signature.json", "teacher.stablehlo"]
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| teacher")]
    assert len(rows) == 1 and float(rows[0][4].strip(" |")) <= 1e-6

    signature = json.loads((out / "signature.json").read_text())
    assert signature["system"] == {"name": "dynamic_depth", "step": 0, "digest": saved.digest(system)}
    assert signature["frames"] == {"height": 64, "width": 96, "resize": "area"}
    about = signature["artifacts"]["teacher.stablehlo"]
    assert about["inputs"]["image"]["shape"] == ["batch", 64, 96, 3] and about["platforms"] == ["cpu", "cuda", "tpu"]
    assert about["outputs"]["inverse_depth"]["unit"] == "1 / unit of depth" and about["difference"] <= 1e-6

    damaged = bytearray((out / "teacher.stablehlo").read_bytes())
    damaged[len(damaged) // 2] ^= 1  # a weight
    (out / "teacher.stablehlo").write_bytes(damaged)
    with pytest.raises(ConfigError, match=r"is not the file that the signature.json beside it describes"):
        artifacts.load(out / "teacher.stablehlo")

    monkeypatch.setitem(artifacts.TOLERANCES, "stablehlo", -1.0)
    with pytest.raises(SystemExit, match=r"^error: .*teacher.stablehlo is .* away from the library's answer, more than -1"):
        script.main(command)
    assert json.loads((out / "signature.json").read_text())["artifacts"] == {}


def test_mistakes_are_told_before_anything_is_compiled(system, tmp_path, monkeypatch):
    pytest.importorskip("flatbuffers", reason=NEEDS)
    with pytest.raises(ConfigError, match="--format=torch is not one of stablehlo, onnx"):
        artifacts.export(system, tmp_path, ["torch"])
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"file/signature.json cannot be written \(.*\): name another folder"):
        artifacts.export(system, tmp_path / "file", ["stablehlo"])

    def no_such_backend(backend):
        raise RuntimeError(f"Unknown backend {backend}")

    monkeypatch.setattr(jax, "local_devices", no_such_backend)
    with pytest.raises(ConfigError, match="files are verified on the CPU, which JAX_PLATFORMS leaves out: add ,cpu to it"):
        artifacts.export(system, tmp_path, ["stablehlo"])


def test_missing_packages_are_named(system, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for kind, names in (("onnx", "onnx and onnxruntime"), ("stablehlo", "flatbuffers")):
        with pytest.raises(ConfigError, match=rf"^--format={kind} needs {names}: pip install -e '.\[export\]'$"):
            artifacts.export(system, tmp_path, [kind])
    with pytest.raises(ConfigError, match="--format=stablehlo needs flatbuffers"):
        artifacts.load(tmp_path / "teacher.stablehlo")
    with pytest.raises(ConfigError, match="--format=onnx needs onnx"):
        artifacts.load_onnx(tmp_path / "teacher.onnx")


def test_the_signature_keeps_what_an_earlier_export_of_the_system_wrote(system, tmp_path):
    def listed(restored, new):
        return artifacts._signature(restored, tmp_path, new)["artifacts"]

    before = {"system": {"digest": saved.digest(system)}, "artifacts": {"teacher.onnx": {}, "student.onnx": {}}}
    (tmp_path / "signature.json").write_text(json.dumps(before))
    assert list(listed(system, {"teacher.onnx", "teacher.stablehlo"})) == ["student.onnx"]
    another = dataclasses.replace(system, state=system.state.replace(depth_range=2 * system.state.depth_range))
    assert listed(another, set()) == {}
    (tmp_path / "signature.json").write_text("{")
    assert listed(system, set()) == {}


def test_a_number_that_is_none_is_infinitely_far_away():
    answer = {"inverse_depth": np.array([1.0, np.nan])}
    assert artifacts.difference(answer, {"inverse_depth": np.ones(2)}) == np.inf
    assert artifacts.difference({"inverse_depth": np.array([1.0, 1.5])}, {"inverse_depth": np.ones(2)}) == 0.5


VARIANTS = {
    "future frame": {"cost_volume": {"future_frame": True, "aggregate": "mean", "binning": "log"}},
    "cost fill": {"cost_volume": {"occlusion": "cost_fill", "binning": "inverse"}, "domd": {"exclude_from_loss": True}},
    "set one": {"cost_volume": {"occlusion": "set_one"}, "model": {"student_layers": 50}},
    "many depth": {"cost_volume": {"occlusion": "none"}, "domd": {"enabled": False}, "loss": {"occlusion_rule": "switch"}},
    "ds depth": {"ds": {"enabled": True}, "domd": {"enabled": False}, "cost_volume": {"occlusion": "none"}},
    "monodepth2": {"model": {"student": False}, "domd": {"enabled": False}},
    "flow": {"model": {"flow": True}},
    "sc depth": {"sc": {"enabled": True}, "model": {"student": False}, "domd": {"enabled": False}},
}


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_system_can_be_exported(variant, tmp_path):
    for package in ("flatbuffers", "onnx", "onnxruntime"):
        pytest.importorskip(package, reason=NEEDS)
    system = tiny.restored(tiny.config(**VARIANTS[variant]))
    found = artifacts.export(system, tmp_path)
    assert len(found) == (4 if system.config.model.student else 2)
