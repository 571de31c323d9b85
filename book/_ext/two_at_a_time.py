"""Sphinx extension: two pages are executed at a time, for which Jupyter Book has no option.

Threads of OpenMP that wait for each other give up their core, which the other page can use.
"""

import os
from collections.abc import Sequence

import sphinx.builders
from sphinx.application import Sphinx

PAGES = 2
SILENT = ("sphinx_multitoc_numbering", "sphinx_jupyterbook_latex")
"""Extensions of Jupyter Book that do not say whether pages may be read in parallel.

They may: one numbers the sections after all pages were read, the other acts on LaTeX builds alone.
"""


def one_by_one(pages: Sequence[str], processes: int) -> list[Sequence[str]]:
    """Return parts of one page each, so that no process waits for a part of ten pages."""
    return [[page] for page in pages]


def allow(app: Sphinx, *_: object) -> None:
    for name in SILENT:
        app.extensions[name].parallel_read_safe = True


def setup(app: Sphinx) -> dict[str, bool]:
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # read when torch is imported
    app.parallel = max(app.parallel, PAGES)
    sphinx.builders.make_chunks = one_by_one
    app.connect("env-before-read-docs", allow)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
