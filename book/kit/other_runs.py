"""Sentences that were written about the committed runs, for a book of other runs.

``make book RUNS=folder`` builds the book from other runs. A sentence that does not hold for them
is shown as it was written, with the reader's numbers beside those of the committed runs.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from difflib import SequenceMatcher
from textwrap import dedent
from typing import Any

from orthocond.config.methods import Method
from orthocond.errors import UserError
from orthocond.report.statistics import WIDE

WIDE_STEM = f" ({WIDE}×{WIDE} stem)"
WORD = re.compile(r"[^\s|]+ \[[^\]\n]*\]|\s+|[^\s|]+|\|")
"""A number with its interval, spaces, a word, or the border of a cell in a table."""


def without_checks(write: Callable[..., str]) -> Callable[..., str]:
    """Return a function as it would be without its ``assert`` statements.

    What it returns is not checked, so it must not be shown as a statement about any runs.
    """
    made: dict[str, Any] = {}
    code = compile(dedent(inspect.getsource(write)), "<no checks>", "exec", optimize=1)
    exec(code, write.__globals__ | dict(inspect.getclosurevars(write).nonlocals), made)
    return made[write.__name__]


def beside(committed: str, own: str) -> str:
    """Return a text with the words of another one beside those that differ.

    Args:
        committed: text about the committed runs, in Markdown.
        own: the same text with the numbers of other runs.

    Example:
        >>> beside("An error of 3.1 [2.9, 3.3] points.", "An error of 0.4 [-1.0, 1.8] points.")
        'An error of 3.1 [2.9, 3.3] (yours: 0.4 [-1.0, 1.8]) points.'
    """
    first, second = WORD.findall(committed), WORD.findall(own)
    parts = []
    for kind, i, j, k, m in SequenceMatcher(None, first, second, autojunk=False).get_opcodes():
        text, other = "".join(first[i:j]), "".join(second[k:m]).strip().replace("**", "")
        if kind != "equal":
            end = text[len(text.rstrip()) :]
            text = f"{text.rstrip()} (yours: {other or 'without this'}){end}".lstrip()
        parts.append(text)
    return "".join(parts)


def _readable(own: str) -> str:
    """Return a text with words in place of numbers that the runs do not have."""
    own = re.sub(r"\[[+-]?nan, [+-]?nan\]", "[no interval]", own)
    return re.sub(r"[+-]?\bnan\b", "not measured", own)


def named_methods(text: str) -> list[tuple[str, bool]]:
    """Return the methods that an error names, and whether each is meant with a wide stem.

    Example:
        >>> named_methods("\"['svd+ow', 'bn'] not in index\"")
        [('svd+ow', False), ('bn', False)]
    """
    found = []
    for word, wide in re.findall(rf"([a-z][a-z+-]*)({re.escape(WIDE_STEM)})?", text):
        try:
            found.append((str(Method.parse(word)), bool(wide)))
        except UserError:
            continue
    return list(dict.fromkeys(found))


def replaced(committed: str | None, own: str | None, error: Exception) -> str:
    """Return what a page shows in place of a text that does not hold for the reader's runs.

    Args:
        committed: the text about the committed runs; None where some of them are missing.
        own: the text with the reader's numbers; None where they lack what it needs.
        error: the failed check, or the error that shows what the runs lack.
    """
    own = own and _readable(own)
    about = "The committed runs are not all in `runs/`, so their numbers are missing."
    if own is None:
        missing = isinstance(error, KeyError) and error.args  # a study, a method or a column
        reason = str(error.args[0]) if missing else f"{type(error).__name__}: {error}"
        reason = " ".join(reason.split())
        lead, text = f"Your runs do not have what this text needs (`{reason}`).", committed or ""
    elif committed is None:
        lead, text = "The numbers are those of your runs. They contradict the text.", own
    else:
        lead = "The numbers of your runs are in brackets, where they differ."
        text = beside(committed, own)
    lead += "" if committed else f" {about}"
    title = "Written about the committed runs; yours differ"
    return f"::::{{admonition}} {title}\n:class: note other-runs\n*{lead}*\n\n{text.strip()}\n::::"
