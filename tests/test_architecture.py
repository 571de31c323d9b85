"""The map in ARCHITECTURE.md: imports that point downwards only, and few and short modules."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "orthocond"
ROWS = (
    ("errors", "distributed", "host"),
    ("spectral",),
    ("layers", "treatments", "probes"),
    ("artifacts", "config", "data", "models"),
    ("training", "measure", "report"),
)
ROW = {folder: row for row, folders in enumerate(ROWS) for folder in folders}
MODULES = sorted(PACKAGE.rglob("*.py"))
CLI = sorted((ROOT / "cli").rglob("*.py"))
BOOK = sorted(p for p in (ROOT / "book").rglob("*.py") if "_build" not in p.parts)
KIT = (("runs", "other_runs"), ("elements", "example_scripts"), ("sentences", "study_elements"))
FOLDERS = sorted({module.parent for module in MODULES})


def _uses_torch_distributed(module: Path) -> bool:
    nodes = list(ast.walk(ast.parse(module.read_text())))
    used = [alias.name for n in nodes if isinstance(n, ast.Import) for alias in n.names]
    used += [str(n.module) for n in nodes if isinstance(n, ast.ImportFrom)]
    used += [ast.unparse(n) for n in nodes if isinstance(n, ast.Attribute)]
    return any(
        name == "torch.distributed" or name.startswith("torch.distributed.") for name in used
    )


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
    assert found | {"errors", "distributed", "host"} == set(ROW)


@pytest.mark.parametrize("module", MODULES, ids=lambda m: str(m.relative_to(PACKAGE)))
def test_imports_point_downwards(module: Path) -> None:
    own = module.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if own != "__init__":
        assert all(ROW[name] <= ROW[own] for name in _imported(module))


def test_collectives_have_one_module() -> None:
    users = [module for module in MODULES if _uses_torch_distributed(module)]
    assert users == [PACKAGE / "distributed.py"]


def test_imports_of_the_kit_point_downwards() -> None:
    row = {name: row for row, names in enumerate(KIT) for name in names}
    modules = {p.stem: p for p in (ROOT / "book/kit").glob("*.py") if p.name != "__init__.py"}
    assert set(modules) == set(row)
    for name, module in modules.items():
        used = re.findall(r"^from kit\.(\w+) import", module.read_text(), re.M)
        used += re.findall(r"^from kit import (\w+)", module.read_text(), re.M)
        assert all(row[other] < row[name] for other in used), name


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda f: f.name)
def test_a_folder_has_few_modules(folder: Path) -> None:
    modules = [p for p in folder.glob("*.py") if p.name != "__init__.py"]
    assert len(modules) <= 15
    assert folder != PACKAGE or len([p for p in folder.iterdir() if p.is_file()]) <= 8


@pytest.mark.parametrize("module", [*MODULES, *CLI, *BOOK], ids=lambda m: str(m.relative_to(ROOT)))
def test_modules_classes_and_functions_are_short(module: Path) -> None:
    text = module.read_text()
    assert len(text.splitlines()) <= 300
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            limit = 200 if isinstance(node, ast.ClassDef) else 60
            assert (node.end_lineno or 0) - node.lineno + 1 <= limit, node.name
