"""Sphinx extension: the search neither finds nor shows LaTeX, commits and hashes.

The index is made from a copy of each page without equations, cells and hashes. The lines under a
search result come from the text of the page before MathJax has typeset it, so a script in
``search.html`` leaves equations, cells and hashes out of this text. The pages keep all of them.
"""

import re
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

HASH = r"\b(?=[0-9a-f]*[0-9])(?=[0-9a-f]*[a-f])[0-9a-f]{7,64}\b"
"""A commit or a configuration: hexadecimal, with a digit and a letter (no number, no word)."""
PROVENANCE = rf"(?:,?\s*\b(?:commit|config)\s+)?{HASH}"
UNREADABLE = ".math, .downloads, .cell_input"

SCRIPT = rf"""
addEventListener("DOMContentLoaded", () => {{
  const original = Search.htmlToText;
  Search.htmlToText = (html, anchor) => {{
    const page = new DOMParser().parseFromString(html, "text/html");
    page.querySelectorAll("{UNREADABLE}").forEach(element => element.remove());
    const text = original(page.documentElement.outerHTML, anchor);
    return text.replace(/{PROVENANCE}/g, "").replace(/\s+/g, " ");
  }};
}});
"""


def unreadable(node: nodes.Node) -> bool:
    """Return whether a node is an equation or the source of a cell, whose text has LaTeX, too."""
    if isinstance(node, nodes.Element) and "cell_input" in node["classes"]:
        return True
    return isinstance(node, nodes.math | nodes.math_block)


def readable(doctree: nodes.document) -> nodes.document:
    """Return a copy of a page without equations, sources of cells, commits and hashes."""
    copy = doctree.deepcopy()
    for node in list(copy.findall(unreadable)):
        node.parent.remove(node)
    for raw in copy.findall(nodes.raw):
        raw.children = [nodes.Text(re.sub(PROVENANCE, "", raw.astext()))]
    for text in list(copy.findall(nodes.Text)):
        if re.search(HASH, text):
            text.parent.replace(text, nodes.Text(re.sub(PROVENANCE, "", text)))
    return copy


def index_readable_text(app: Sphinx) -> None:
    if app.builder.format != "html":
        return
    index_page = app.builder.index_page  # type: ignore[attr-defined]
    app.builder.index_page = lambda page, doctree, title: index_page(  # type: ignore[attr-defined]
        page, readable(doctree), title
    )


def show_readable_text(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any
) -> None:
    if page == "search":
        app.add_js_file(None, body=SCRIPT)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("builder-inited", index_readable_text)
    app.connect("html-page-context", show_readable_text)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
