"""The imports of the package point one way, and its files stay readable."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "dd_jax"

LAYERS = [
    {"types", "config", "validation", "reduce", "ssim", "hosts", "compilation_cache", "torch_files", "hub"},
    {"geometry"},
    {"networks", "cost_volume", "dynamic_volume", "domd", "losses", "metrics", "data", "optim", "checkpoint", "report"},
    {"to_onnx"},
    {
        "protocols", "results", "ground_plane", "predictions", "gallery", "baselines", "views", "pipeline", "pointcloud", "movie",
        "imagenet", "video_frames",
    },
    {"model_card"},
    {"saved"},
    {"imports"},
    {"scaling", "sources", "viewer"},
    {"trajectory"},
    {"forward"},
    {"train_step"},
    {"parallel"},
    {"evaluate"},
    {"api"},
    {"outputs", "programs"},
    {
        "train", "predict", "parts_benchmark", "peer_benchmark", "loader_benchmark", "resident", "ablations", "command_line",
        "prepare", "export",
    },
    {"aot", "benchmark"},
]
"""A module imports from its own layer and those above it in this list."""

NARROW = {
    "data": {"types", "config", "geometry", "data"},
    "geometry": {"types", "config", "reduce", "geometry"},
    "checkpoint": {"types", "config"},
    "report": {"types", "config", "report"},
    "optim": {"types", "config"},
    "hosts": {"config"},
    "compilation_cache": set(),
    "losses": {"types", "config", "reduce", "ssim", "losses"},
    "metrics": {"types", "config"},
    "protocols": {"config"},
    "results": {"config", "hosts", "metrics", "protocols", "report"},
    "ground_plane": set(),
    "predictions": {"config", "data"},
    "baselines": {"config", "data"},
    "torch_files": {"config"},
    "hub": {"config"},
    "imagenet": {"config", "networks", "torch_files", "hub"},
    "model_card": {"config", "protocols", "checkpoint", "report"},
    "saved": {"types", "config", "validation", "data", "networks", "checkpoint", "hub", "model_card"},
    "imports": {"types", "config", "data", "networks", "checkpoint", "torch_files", "hub", "saved"},
    "views": {"types", "config", "data"},
    "to_onnx": {"config", "to_onnx"},
    "pipeline": set(),
    "pointcloud": set(),
    "movie": {"config", "data"},
    "scaling": {"config", "metrics", "ground_plane"},
    "sources": {"config", "data", "video_frames"},
    "video_frames": {"config", "data"},
    "viewer": {"data", "report"},
    "trajectory": {"scaling"},
    "gallery": {"types", "config", "data", "metrics", "report"},
    "networks": {"types", "config", "reduce", "geometry", "networks"},
    "peer_benchmark": {"types", "config"},
    "resident": set(),
    "prepare": {"types", "config", "validation", "command_line", "data", "report", "prepare"},
}
"""Parts that know even less than their layer would allow."""

FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def part(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_parts(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "dd_jax":
            inner = node.module.split(".")[1:]
            found |= {inner[0]} if inner else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("dd_jax.")}
    return {name for name in found if (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").exists()}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path):
    level = {name: number for number, names in enumerate(LAYERS) for name in names}
    own = part(path)
    assert own in level, f"say in which layer {own} belongs"
    for other in imported_parts(path):
        assert level[other] <= level[own], f"{own} must not know {other}"
        assert own not in NARROW or other in NARROW[own], f"{own} must not know {other}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_fit_a_reader(path):
    assert len(path.read_text().splitlines()) <= 400


def imported_modules(tree: ast.Module) -> set[str]:
    modules = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules.add(node.module.split(".")[0])
    return modules


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_training_never_needs_tensorflow(path):
    assert "tensorflow" not in imported_modules(ast.parse(path.read_text()))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_pytorch_is_imported_only_when_a_function_needs_it(path):
    tree = ast.parse(path.read_text())
    assert part(path) == "prepare" or "transformers" not in imported_modules(tree)
    for scope in (tree, *(node for node in tree.body if isinstance(node, ast.ClassDef))):
        scope.body = [node for node in scope.body if not isinstance(node, ast.FunctionDef)]
    assert not {"torch", "transformers", "manydepth", "huggingface_hub"} & imported_modules(tree)
