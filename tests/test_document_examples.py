"""The Python examples of the documents run unchanged, the API page covers the public API, and named paths and links exist."""

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

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
PACKAGES = {"torch": "prepare", "onnxruntime": "export"}
"""Optional imports of the examples -> the extra that installs them."""


def run(document, names):
    """Runs the examples of a document in order in the namespace ``names``; returns the packages whose absence skipped one."""
    text = (DOCS / document).read_text()
    blocks, missing = list(BLOCK.finditer(text)), []
    assert blocks
    for block in blocks:
        optional = PACKAGES.keys() & set(re.findall(r"^import (\w+)", block[1], re.MULTILINE))
        absent = [package for package in optional if importlib.util.find_spec(package) is None]
        if absent:
            missing += absent
            continue
        line = text.count("\n", 0, block.start()) + 1
        exec(compile("\n" * line + block[1], str(DOCS / document), "exec"), names)
    return missing


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    """A folder with the files that the examples name."""
    restored = tiny.restored(tiny.config())
    saved.write(tmp_path / "runs/kitti", restored)
    published.export(tmp_path / "DIR", restored)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def names():
    frames = tiny.frames(3)
    mask = np.zeros(frames[0].shape[:2], bool)
    mask[30:60, 40:90] = True
    truth = np.random.default_rng(0).uniform(2, 60, mask.shape).astype(np.float32)
    arrays = {"frames": frames, "frame": frames[1], "previous": frames[0], "mask": mask, "previous_mask": mask, "truth": truth}
    return {"dd_jax": dd_jax} | arrays


@pytest.mark.parametrize("document", ["api.md", "predict.md"])
def test_api_examples_run(document, workspace, names):
    assert run(document, names) == []
    assert names["depth"].shape == (90, 150) and (workspace / "my_model" / saved.WEIGHTS).is_file()


def test_checkpoint_examples_run(workspace):
    missing = run("checkpoints.md", {"dd_jax": dd_jax})
    assert (workspace / "my_model" / saved.CARD).is_file()
    if missing:
        pytest.skip(f"the example with {missing[0]} needs pip install -e '.[{PACKAGES[missing[0]]}]'; the others ran")
    assert (workspace / "encoder.pth").is_file()


@pytest.mark.slow
def test_export_examples_run(workspace):
    for package in ("flatbuffers", "onnx", "onnxruntime"):
        pytest.importorskip(package, reason="pip install -e '.[export]'")
    restored = tiny.restored(tiny.config())
    artifacts.export(restored, workspace / "exported", network="student")
    (student,) = programs.programs(restored, "student")
    inputs = programs.arguments(student, tiny.batch(1, frames=2))
    renamed = {"previous_image": "previous", "has_previous_image": "has"}
    names = {renamed.get(name, name): value for name, value in inputs.items()}
    assert run("export.md", names) == []
    np.testing.assert_allclose(names["inverse_depth"], names["answer"]["inverse_depth"], rtol=1e-4)


def test_api_page_covers_public_api():
    """Every public name, method, property and argument is in its own section."""
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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_resolve(page):
    """Relative links name existing files, and anchors existing headings."""
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        if target.startswith("http"):
            continue
        name, _, anchor = target.partition("#")
        linked = page.parent / name if name else page
        assert linked.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", linked.read_text(), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}, target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_named_files_exist(page):
    """Paths of the package, scripts, configs, tests and documents in code spans."""
    for path in re.findall(r"`((?:dd_jax|scripts|configs|tests|docs)/[\w/.-]*)", page.read_text()):
        assert re.search("[A-Z]{3}", path) or (ROOT / path).exists(), path
