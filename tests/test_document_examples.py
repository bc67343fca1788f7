"""The Python of the documents runs as it stands there, and the page of the API has all of it."""

import importlib.util
import inspect
import re
from pathlib import Path

import numpy as np
import pytest
import tiny

import dd_jax
from dd_jax.checkpoints import published, saved
from dd_jax.export import artifacts, programs

DOCS = Path(__file__).parents[1] / "docs"
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
PACKAGES = {"torch": "prepare", "onnxruntime": "export"}
"""What blocks import that need not be there -> the extra that has it."""


def run(document, names):
    """Runs the blocks of a document one after another with these names, which they change."""
    text = (DOCS / document).read_text()
    blocks, lacking = list(BLOCK.finditer(text)), []
    assert blocks
    for block in blocks:
        wanted = PACKAGES.keys() & set(re.findall(r"^import (\w+)", block[1], re.MULTILINE))
        absent = [package for package in wanted if importlib.util.find_spec(package) is None]
        if absent:
            lacking += absent
            continue
        line = text.count("\n", 0, block.start()) + 1
        exec(compile("\n" * line + block[1], str(DOCS / document), "exec"), names)
    return lacking


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    """A folder in which the names of the documents exist."""
    system = tiny.restored(tiny.config())
    saved.write(tmp_path / "runs/kitti", system)
    published.export(tmp_path / "DIR", system)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def names():
    frames = tiny.frames(3)
    mask = np.zeros(frames[0].shape[:2], bool)
    mask[30:60, 40:90] = True
    truth = np.random.default_rng(0).uniform(2, 60, mask.shape).astype(np.float32)
    seen = {"frames": frames, "frame": frames[1], "previous": frames[0], "mask": mask, "previous_mask": mask, "truth": truth}
    return {"dd_jax": dd_jax} | seen


@pytest.mark.parametrize("document", ["api.md", "predict.md"])
def test_the_examples_run(document, workspace, names):
    assert run(document, names) == []
    assert names["depth"].shape == (90, 150) and (workspace / "my_model" / saved.WEIGHTS).is_file()


def test_the_examples_of_checkpoints_run(workspace):
    lacking = run("checkpoints.md", {"dd_jax": dd_jax})
    assert (workspace / "my_model" / saved.CARD).is_file()
    if lacking:
        pytest.skip(f"the block with {lacking[0]} needs pip install -e '.[{PACKAGES[lacking[0]]}]'; the others ran")
    assert (workspace / "encoder.pth").is_file()


@pytest.mark.slow
def test_the_examples_of_the_export_run(workspace):
    for package in ("flatbuffers", "onnx", "onnxruntime"):
        pytest.importorskip(package, reason="pip install -e '.[export]'")
    system = tiny.restored(tiny.config())
    artifacts.export(system, workspace / "exported", network="student")
    (student,) = programs.programs(system, "student")
    given = programs.arguments(student, tiny.batch(1, frames=2))
    renamed = {"previous_image": "previous", "has_previous_image": "has"}
    names = {renamed.get(name, name): value for name, value in given.items()}
    assert run("export.md", names) == []
    np.testing.assert_allclose(names["inverse_depth"], names["answer"]["inverse_depth"], rtol=1e-4)


def test_the_page_of_the_api_names_everything():
    """Every public name, method, property and argument, in the section that is about it."""
    text = (DOCS / "api.md").read_text()
    parts = re.findall(r"^##+ (.+)\n((?:(?!^##).*\n)*)", text, re.MULTILINE)
    sections = {title: body for titles, body in parts for title in titles.split(", ")}
    assert set(dd_jax.__all__) - {"Stream"} <= set(sections)
    for name in set(dd_jax.__all__) - {"Model", "Stream", "ConfigError"}:
        for argument in inspect.signature(getattr(dd_jax, name)).parameters:
            assert f"`{argument}" in sections[name], f"{name}({argument})"
    public = {name: value for name, value in vars(dd_jax.Model).items() if not name.startswith("_")}
    inner = set(re.findall(r"`(\w+)`", re.search(r"^The methods (.*) are the parts", sections["Model"], re.MULTILINE)[1]))
    assert inner < set(public)
    for name in set(public) - inner:
        if not inspect.isfunction(public[name]):
            assert f"`model.{name}`" in sections["Model"]
            continue
        for argument in list(inspect.signature(public[name]).parameters)[1:]:
            assert f"`{argument}" in sections[f"Model.{name}"], f"Model.{name}({argument})"
    assert "`trajectory`" in sections["Model.stream"]
