"""Sphinx extension: two pages are executed at a time, for which Jupyter Book has no option."""

from sphinx.application import Sphinx

PAGES = 2
SILENT = ("sphinx_multitoc_numbering", "sphinx_jupyterbook_latex")
"""Extensions of Jupyter Book that do not say whether pages may be read in parallel.

They may: one numbers the sections after all pages were read, the other acts on LaTeX builds alone.
"""


def allow(app: Sphinx, *_: object) -> None:
    for name in SILENT:
        app.extensions[name].parallel_read_safe = True


def setup(app: Sphinx) -> dict[str, bool]:
    app.parallel = max(app.parallel, PAGES)
    app.connect("env-before-read-docs", allow)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
