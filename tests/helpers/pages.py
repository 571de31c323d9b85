"""The cells of the book's pages that depend on runs, executed without building the book."""

from __future__ import annotations

import ast
import linecache
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import torch

BOOK = Path(__file__).parents[2] / "book"
FUNCTIONS = re.compile(r"\b(study_(?!names)\w+|held_out|all_studies|one_study|study)\(")
SHOWN = (RuntimeWarning, UserWarning, FutureWarning)  # in a cell they would stop the build
NUMBER = count()


@dataclass(frozen=True)
class Cell:
    """A cell of a page, with the names that it defines and those that it uses."""

    page: str
    source: str

    @property
    def shows(self) -> bool:
        """True if the cell shows something about runs."""
        return bool(FUNCTIONS.search(self.source))

    @property
    def defines(self) -> set[str]:
        names = set()
        for node in ast.parse(self.source).body:
            for inner in ast.walk(node):
                if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store):
                    names.add(inner.id)
                if isinstance(inner, ast.alias):
                    names.add((inner.asname or inner.name).partition(".")[0])
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                names.add(node.name)
        return names

    @property
    def uses(self) -> set[str]:
        nodes = ast.walk(ast.parse(self.source))
        return {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}

    def run(self, namespace: dict[str, Any]) -> Any:
        """Execute the cell as a notebook does, and return the value of its last expression."""
        name = f"<{self.page} {next(NUMBER)}>"
        linecache.cache[name] = (len(self.source), None, self.source.splitlines(True), name)
        tree = ast.parse(self.source)
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            exec(compile(tree, name, "exec"), namespace)
            value = None
            if last is not None:
                value = eval(compile(ast.Expression(last.value), name, "eval"), namespace)
        assert [str(w.message) for w in told if issubclass(w.category, SHOWN)] == [], self.source
        return value


def cells(page: Path) -> list[Cell]:
    """The cells of a page that depend on runs, and those before them that they need."""
    text = page.read_text()
    sources = re.findall(r"```\{code-cell\} ipython3\n(.*?)```", text, re.DOTALL)
    own = [Cell(page.stem, re.sub(r"^:tags:.*\n", "", source, flags=re.M)) for source in sources]
    wanted: list[Cell] = []
    needed: set[str] = set()
    for cell in reversed(own):
        if cell.shows or cell.defines & needed:
            wanted.insert(0, cell)
            needed |= cell.uses
    return wanted if any(cell.shows for cell in wanted) else []


def shown(pages: str = "*", only: str = "") -> Iterator[tuple[Cell, str]]:
    """What the cells about runs show.

    Args:
        pages: pattern of the names of pages.
        only: part of the source of cells; other cells about runs are left out.
    """
    for page in sorted(BOOK.glob(f"{pages}.md")):
        namespace: dict[str, Any] = {}
        dtype = torch.get_default_dtype()  # pages set it, each in a process of its own
        try:
            for cell in cells(page):
                if cell.shows and only not in cell.source and not cell.defines:
                    continue
                value = cell.run(namespace)
                if cell.shows and hasattr(value, "data"):
                    yield cell, value.data
        finally:
            torch.set_default_dtype(dtype)
