"""Sphinx extension: an equation labelled ``eq-18a`` has the number 18a, also in links to it.

The paper's equations keep their numbers. An equation of our own has the number of the equation
that it belongs to, and a letter. ``{eq}`eq-18a` `` links to equation 18a from any chapter.
"""

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging

PREFIX = "eq-"
logger = logging.getLogger(__name__)


def number_equations(app: Sphinx, doctree: nodes.document) -> None:
    domain = app.env.domaindata["math"]["objects"]
    for node in doctree.findall(nodes.math_block):
        label = node.get("label")
        if not label:
            continue
        if not label.startswith(PREFIX):
            logger.warning("equation label %r does not start with %r", label, PREFIX, location=node)
        node["number"] = label.removeprefix(PREFIX)
        domain[label] = (app.env.docname, node["number"])


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("doctree-read", number_equations)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
