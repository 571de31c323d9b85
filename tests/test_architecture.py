"""The map in ARCHITECTURE.md: few modules in a folder, and imports that point downwards only."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "orthocond"
ROWS = (
    ("errors",),
    ("spectral",),
    ("layers", "treatments", "probes"),
    ("artifacts", "config", "data", "models"),
    ("training", "measure", "report"),
)
ROW = {folder: row for row, folders in enumerate(ROWS) for folder in folders}
MODULES = sorted(PACKAGE.rglob("*.py"))
FOLDERS = sorted({module.parent for module in MODULES})


def _imported(module: Path) -> set[str]:
    """The folders of orthocond that a module imports from, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "orthocond":
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and str(node.module).startswith("orthocond."):
            names.add(str(node.module).split(".")[1])
    return names


def test_every_folder_has_a_row() -> None:
    found = {p.stem for p in PACKAGE.iterdir() if p.is_dir() and (p / "__init__.py").exists()}
    assert found | {"errors"} == set(ROW)


@pytest.mark.parametrize("module", MODULES, ids=lambda m: str(m.relative_to(PACKAGE)))
def test_imports_point_downwards(module: Path) -> None:
    own = module.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if own != "__init__":
        assert all(ROW[name] <= ROW[own] for name in _imported(module))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda f: f.name)
def test_a_folder_has_few_modules(folder: Path) -> None:
    modules = [p for p in folder.glob("*.py") if p.name != "__init__.py"]
    assert len(modules) <= 15
    assert folder != PACKAGE or len([p for p in folder.iterdir() if p.is_file()]) <= 8
