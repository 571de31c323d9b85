"""The book's own Sphinx extensions, without a build."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

BOOK = Path(__file__).parents[1] / "book"


def extension(name: str) -> ModuleType:
    """Import an extension of the book."""
    sys.path.insert(0, str(BOOK / "_ext"))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.pop(0)


def test_the_search_reads_neither_equations_nor_hashes() -> None:
    nodes = pytest.importorskip("docutils.nodes")
    utils = pytest.importorskip("docutils.utils")
    page = utils.new_document("page")
    page += nodes.paragraph("", "", nodes.Text("the gradient "), nodes.math("", r"\mathbf{G}"))
    page += nodes.math_block("", r"\frac{1}{2}")
    page += nodes.raw("", "<p>seeds 0-4, commit 53c3649, 4992000 images, added</p>", format="html")
    page += nodes.literal_block("", f"config {'9a17' * 16} decade")
    page += nodes.container("", nodes.literal_block("", "cell = 1"), classes=["cell_input"])
    before = page.astext()
    search = extension("readable_search")
    read = search.readable(page).astext()
    assert "the gradient" in read and "seeds 0-4" in read and "4992000 images, added" in read
    assert "decade" in read
    assert not any(word in read for word in ("mathbf", "frac", "53c3649", "9a17", "config", "cell"))
    assert page.astext() == before, "the page that is shown stays as it is"


def test_references_are_labelled_by_authors_and_year_with_a_letter_where_needed() -> None:
    database = pytest.importorskip("pybtex.database")
    labels = extension("author_year").Labels()
    entries = database.parse_file(str(BOOK / "references.bib")).entries.values()
    named = dict(zip([e.key for e in entries], labels.format_labels(list(entries)), strict=True))
    assert named["higham2008functions"] == "Higham, 2008"
    assert named["roy2007effective"] == "Roy and Vetterli, 2007"
    assert {named["song2022improving"][:-1], named["song2022fast"][:-1]} == {"Song et al., 2022"}
    assert len(set(named.values())) == len(named)


def test_a_book_of_other_runs_says_so_on_each_page(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sphinx")
    app, kit = SimpleNamespace(srcdir=str(BOOK)), ModuleType("kit")
    monkeypatch.setitem(sys.modules, "kit", kit)
    for committed in (True, False):
        config = SimpleNamespace(html_theme_options={"show_toc_level": 2})
        monkeypatch.setattr(kit, "of_committed_runs", lambda: committed, raising=False)  # noqa: B023
        monkeypatch.setattr(kit, "folders", lambda: (Path("a"), Path("b")), raising=False)
        extension("runs_of_the_book").announce(app, config)
        assert ("announcement" in config.html_theme_options) is not committed
    assert "the runs in a, b." in config.html_theme_options["announcement"]


def test_a_page_is_executed_in_a_fork_that_has_the_imports_of_the_build() -> None:
    pytest.importorskip("nbclient")
    script = (
        "import sys, types\n"
        f"sys.path.insert(0, {str(BOOK / '_ext')!r})\n"
        "import forked_kernels, nbclient, nbformat\n"
        "forked_kernels.setup(None)\n"
        "sys.modules['imported_by_the_build'] = types.ModuleType('imported_by_the_build')\n"
        "for source in ('import os, imported_by_the_build; print(os.getppid())', '1 / 0'):\n"
        "    cell = nbformat.v4.new_code_cell(source)\n"
        "    page = nbformat.v4.new_notebook(cells=[cell])\n"
        "    try:\n"
        "        nbclient.NotebookClient(page, kernel_name='python3').execute()\n"
        "    except nbclient.exceptions.CellExecutionError as error:\n"
        "        print(error.ename)\n"
        "    else:\n"
        "        print(int(cell.outputs[0].text) == __import__('os').getpid())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.split() == ["True", "ZeroDivisionError"], done.stderr


def test_each_page_is_a_part_of_its_own() -> None:
    pytest.importorskip("sphinx")
    assert extension("two_at_a_time").one_by_one(["a", "b", "c"], 2) == [["a"], ["b"], ["c"]]
