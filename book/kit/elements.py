"""Figures and tables as elements of a page: caption, text for readers who cannot see, downloads.

Where runs are missing, an element shows the command that makes them. A run that was altered raises
an error, which stops the build.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import chdir
from html import escape
from typing import TypeVar

import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import HTML, Markdown
from matplotlib.figure import Figure

from kit.runs import ROOT
from orthocond.report.commands import MissingRuns
from orthocond.report.output import save_figure
from orthocond.report.provenance import folded
from orthocond.report.readable import readable_cell
from orthocond.report.style import theme

Shown = TypeVar("Shown", HTML, Markdown)
FILES = ROOT / "book/_build/html/files"  # pages of the book refer to it as files/
COLUMNS = 5  # a table with more columns is as wide as the page, with its margin


def from_root(name: str, show: Callable[[], Shown]) -> Shown | HTML:
    """Show an element that needs runs, or the command that makes the runs if they are missing.

    Paths and commands are relative to the repository's root.
    """
    with chdir(ROOT):
        try:
            return show()
        except MissingRuns as missing:
            reason, lines = escape(missing.reason), escape("\n".join(missing.commands))
            made = f"This makes them:</p><pre>{lines}</pre>" if lines else "</p>"
            return HTML(
                f'<div class="admonition note missing-runs" id="{name}">'
                '<p class="admonition-title">No runs yet</p>'
                f"<p>{reason[:1].upper()}{reason[1:]}. {made}</div>"
            )


def _links(name: str, suffixes: tuple[str, ...]) -> str:
    return " ".join(
        f'<a href="files/{name}{suffix}" download>{suffix[1:].upper()}</a>' for suffix in suffixes
    )


def captioned(
    name: str, content: str, caption: str, suffixes: tuple[str, ...], source: str = ""
) -> HTML:
    """Show a figure or a table with its caption, its downloads and its ``source``."""
    text = f'{escape(caption)} <span class="downloads">{_links(name, suffixes)}</span>{source}'
    return HTML(
        f'<figure class="kit" id="{name}">{content}<figcaption>{text}</figcaption></figure>'
    )


def box(table: str) -> str:
    """Return a table in a box that scrolls, and that has the margin, too, for many columns."""
    columns = max(len(re.findall("<t[hd][ >]", row)) for row in table.split("</tr>"))
    whole = re.compile(r"\[[\d., −+-]+\]|\d ± \d")  # an interval, a spread: not cut at a line's end
    table = whole.sub(lambda number: number[0].replace(" ", "&nbsp;"), table)
    return f'<div class="wide{" full-width" * (columns > COLUMNS)}">{table}</div>'


def both_images(name: str, alt: str) -> str:
    """Return the light and the dark version of a figure, of which a page shows one."""
    images = "".join(
        f'<img class="only-{page}" src="files/{name}{suffix}.svg" alt="{escape(alt)}">'
        for page, suffix in (("light", ""), ("dark", "-dark"))
    )
    return f"<div>{images}</div>"  # in a div: the theme hides a caption beside a hidden image


def show_figure(
    name: str,
    draw: Callable[[], Figure],
    data: pd.DataFrame,
    caption: str,
    alt: str,
    source: str = "",
) -> HTML:
    """Show a figure that is computed on the page, in a light and a dark version.

    ``alt`` must state the finding, because it is all that some readers get. ``source`` says on
    which machine and with which versions the numbers were measured; it is folded away.
    """
    for suffix, formats in (("", ["svg", "pdf"]), ("-dark", ["svg"])):
        with theme(dark=bool(suffix)):
            figure = draw()
            save_figure(figure, FILES / f"{name}{suffix}", None, formats)
            plt.close(figure)
    data.to_csv(FILES / f"{name}.csv", index=False)
    fold = folded([source]) if source else ""
    return captioned(name, both_images(name, alt), caption, (".svg", ".pdf", ".csv"), fold)


def show_table(
    name: str,
    table: pd.DataFrame,
    caption: str,
    source: str = "",
    shown: pd.DataFrame | None = None,
) -> HTML:
    """Show a table that is computed on the page, with rounded numbers; its CSV has all digits.

    ``shown`` has the cells as texts, where three significant digits are too many or too few;
    ``source`` is as in ``show_figure``.
    """
    FILES.mkdir(parents=True, exist_ok=True)
    table.to_csv(FILES / f"{name}.csv", index=False)
    cells = table.map(readable_cell) if shown is None else shown
    rows = cells.to_html(index=False, border=0, na_rep="")
    fold = folded([source]) if source else ""
    return captioned(name, box(rows), caption, (".csv",), fold)
