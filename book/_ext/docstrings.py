"""Sphinx extension: show |x|, x* and x_ in docstrings as they are, not as markup."""

import re
from typing import Any

from sphinx.application import Sphinx

LITERAL = re.compile(r"(``.+?``)")


def escape(line: str) -> str:
    """Escape |, * and a final _ that reStructuredText reads as markup; keep ``literals``."""
    if line.lstrip().startswith((">>>", "...")):
        return line
    parts = LITERAL.split(line)
    return "".join(
        part if LITERAL.fullmatch(part) else re.sub(r"([|*]|_(?=\W|$))", r"\\\1", part)
        for part in parts
    )


def escape_docstring(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    lines[:] = map(escape, lines)


def setup(app: Sphinx) -> dict[str, bool]:
    # This runs before napoleon, which adds its own markup.
    app.connect("autodoc-process-docstring", escape_docstring, priority=100)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
