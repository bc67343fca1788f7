"""The folders of the package: imports between them point one way, and files stay short."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "dd_jax"

LAYERS = [
    ["types", "config", "runtime", "geometry", "report"],
    ["networks", "losses"],
    ["method", "data", "checkpoints"],
    ["evaluation", "prepare"],
    ["inference"],
    ["export", "diagnosis"],
    ["training", "ablations", "benchmarks"],
]
"""A folder (or single module) imports from the rows above and from its own row, without cycles."""

FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def folder_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_modules(tree: ast.Module) -> set[str]:
    """Dotted names, with the names that are imported from a package or module."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def imported_folders(path: Path) -> set[str]:
    names = {name.split(".")[1] for name in imported_modules(ast.parse(path.read_text())) if name.startswith("dd_jax.")}
    return {name for name in names - {folder_of(path)} if (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").exists()}


def test_every_folder_is_in_a_row():
    assert {folder_of(path) for path in FILES} == {name for row in LAYERS for name in row}


def test_imports_point_one_way():
    row_of = {name: number for number, names in enumerate(LAYERS) for name in names}
    wrong = {
        f"{path.relative_to(PACKAGE)} imports {other}"
        for path in FILES
        for other in imported_folders(path)
        if row_of[other] > row_of[folder_of(path)]
    }
    assert not wrong


def test_no_circular_imports():
    uses = {name: set() for row in LAYERS for name in row}
    for path in FILES:
        uses[folder_of(path)] |= imported_folders(path)
    while free := [name for name, used in uses.items() if not used & uses.keys()]:
        uses = {name: used for name, used in uses.items() if name not in free}
    assert not uses, "these import each other"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_below_400_lines(path):
    assert len(path.read_text().splitlines()) <= 400


def packages(tree: ast.Module) -> set[str]:
    return {name.split(".")[0] for name in imported_modules(tree)}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_heavy_packages_imported_inside_functions(path):
    """TensorFlow never; PyTorch and others inside the functions that use them."""
    tree = ast.parse(path.read_text())
    assert "tensorflow" not in packages(tree)
    assert folder_of(path) == "prepare" or "transformers" not in packages(tree)
    for scope in (tree, *(node for node in tree.body if isinstance(node, ast.ClassDef))):
        scope.body = [node for node in scope.body if not isinstance(node, ast.FunctionDef)]
    assert not {"torch", "transformers", "manydepth", "huggingface_hub"} & packages(tree)
