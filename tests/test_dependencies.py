"""The packages that the code imports are those that pyproject.toml declares, pinned for CI."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from lock import HEADER, PYTHONS, constraint
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
OURS = {"orthocond", "orthocond_cli"}
TYPES = {"_typeshed"}  # mypy's own, which only it imports
# Imported only when a user asks for them, behind an error that says what to install.
OPTIONAL = {"timm"}
CELL = re.compile(r"^```\{code-cell\}.*\n((?s:.*?))^```$", re.MULTILINE)
OPTION_OF_CELL = re.compile(r"^:\w+:.*", re.MULTILINE)


def imports(tree: ast.AST) -> Iterator[str]:
    """Yield the modules that some code imports, inside its functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield str(node.module)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if name in ("import_module", "importorskip", "__import__"):
                yield node.args[0].value


def code(folder: str) -> Iterator[str]:
    """Yield the source of each Python file and of each code cell of a folder."""
    for file in (ROOT / folder).rglob("*.py"):
        yield file.read_text()
    for page in (ROOT / folder).glob("*.md"):
        for cell in CELL.findall(page.read_text()):
            yield OPTION_OF_CELL.sub("", cell)


def imported(folder: str) -> set[str]:
    """Return the top-level modules that a folder imports, other than Python's own and ours."""
    found = {name.partition(".")[0] for text in code(folder) for name in imports(ast.parse(text))}
    assert found
    return found - OURS - TYPES - sys.stdlib_module_names


def declared(requirements: Iterable[str]) -> set[str]:
    """Return the names of the distributions, in their canonical form."""
    return {canonicalize_name(Requirement(line).name) for line in requirements}


distributions_of = cache(packages_distributions)  # seconds, of an environment as large as ours


def providers(modules: Iterable[str]) -> dict[str, set[str]]:
    """Return the distributions that bring each module: none where it is not installed."""
    brought = distributions_of()
    return {m: {canonicalize_name(name) for name in brought.get(m, ())} for m in modules}


DEPENDENCIES = declared(PROJECT["dependencies"])
EXTRAS = {name: declared(lines) for name, lines in PROJECT["optional-dependencies"].items()}


def test_the_package_declares_what_it_imports_and_nothing_else():
    found = providers((imported("orthocond") | imported("cli")) - OPTIONAL)
    undeclared = {module for module, names in found.items() if not names & DEPENDENCIES}
    assert not undeclared
    unused = DEPENDENCIES.difference(*found.values())
    assert not unused


def test_every_folder_of_modules_is_packed():
    folders = {module.parent.relative_to(ROOT) for module in (ROOT / "orthocond").rglob("*.py")}
    packed = PYPROJECT["tool"]["setuptools"]["packages"]
    presets = "orthocond.config.presets"
    assert {".".join(f.parts) for f in folders} | {presets, "orthocond_cli"} == set(packed)


def test_optional_packages_are_installed_for_the_tests():
    assert EXTRAS["dev"] >= OPTIONAL


@pytest.mark.parametrize(
    ("folder", "extras"),
    [("tests", ["dev", "book"]), ("benchmarks", []), ("book", ["book"]), ("examples", ["dev"])],
)
def test_scripts_outside_the_package_declare_their_imports(folder, extras):
    allowed = DEPENDENCIES.union(*(EXTRAS[extra] for extra in extras))
    ours = (folder, "benchmarks")  # the tests import benchmarks
    siblings = {path.stem for name in ours for path in (ROOT / name).rglob("*")}
    siblings |= {path.stem for path in (ROOT / "book").glob("*.py")}  # the tests import these too
    found = providers(imported(folder) - siblings)
    assert not {module for module, names in found.items() if not names & allowed}


def test_imports_are_found_wherever_they_are():
    text = """
import a.b, c as d
from e.f import g
from .h import i
def j():
    from k import l
    if m:
        import n
importlib.import_module("o.p"), pytest.importorskip("q"), import_module(name)
"""
    assert set(imports(ast.parse(text))) == {"a.b", "c", "e.f", "k", "n", "o.p", "q"}


def pins() -> list[Requirement]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert lines[0] + "\n" == HEADER and lines[1:] == sorted(lines[1:])
    return [Requirement(line) for line in lines[1:]]


def test_each_package_is_pinned_to_one_version():
    names = [pin.name for pin in pins()]
    assert len(names) == len(set(names)) and set(names) == {canonicalize_name(n) for n in names}
    for pin in pins():
        assert re.fullmatch(r"==[\w.]+", str(pin.specifier)) and not pin.url and not pin.extras
    assert DEPENDENCIES.union(*EXTRAS.values()) <= set(names)


def test_the_pins_keep_what_is_declared():
    versions = {pin.name: str(pin.specifier).removeprefix("==") for pin in pins()}
    everything = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    for line in (line for lines in everything for line in lines):
        wanted = Requirement(line)
        assert versions[canonicalize_name(wanted.name)] in wanted.specifier


def test_the_project_supports_the_pythons_that_are_locked_for():
    assert PYTHONS[0] in SpecifierSet(PROJECT["requires-python"])


def test_a_pin_applies_to_the_pythons_that_its_version_supports():
    assert constraint("Typing_Extensions", "4.1", ">=3.9") == "typing-extensions==4.1"
    assert constraint("torch", "2.14.1+cpu", ">=3.10") == "torch==2.14.1"
    assert constraint("a", "1", None) == constraint("a", "1", "!=3.14.1,>=3.11") == "a==1"
    assert constraint("a", "1", ">=3.11.5") == 'a==1; python_full_version >= "3.11.5"'
    newer = Requirement(constraint("a", "1", ">=3.12,<4,!=3.13.0"))
    runs = {p: newer.marker.evaluate({"python_full_version": p}) for p in (*PYTHONS, "3.13.1")}
    assert list(runs.values()) == [False, True, False, True]
