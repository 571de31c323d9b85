"""What the chapters show figures and tables with. No plotting and no statistics: those are in
orthocond.report; here they get a caption, a text for those who do not see them, and downloads."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import HTML
from matplotlib.figure import Figure

from orthocond.report.style import theme

FILES = Path("_build/html/files")  # seen from here; a page of the book calls it files/


def _save(name: str, draw: Callable[[], Figure]) -> None:
    FILES.mkdir(parents=True, exist_ok=True)
    for suffixes, dark in (((".svg", ".pdf"), False), (("-dark.svg",), True)):
        with theme(dark):
            figure = draw()
            for suffix in suffixes:
                figure.savefig(FILES / f"{name}{suffix}")
            plt.close(figure)


def _save_data(name: str, data: pd.DataFrame) -> None:
    FILES.mkdir(parents=True, exist_ok=True)
    data.to_csv(FILES / f"{name}.csv", index=False)


def _page_element(name: str, content: str, caption: str, suffixes: tuple[str, ...]) -> HTML:
    links = " ".join(
        f'<a href="files/{name}{suffix}" download>{suffix[1:].upper()}</a>' for suffix in suffixes
    )
    text = f'{escape(caption)} <span class="downloads">{links}</span>'
    return HTML(
        f'<figure class="kit" id="{name}">{content}<figcaption>{text}</figcaption></figure>'
    )


def show_figure(
    name: str, draw: Callable[[], Figure], data: pd.DataFrame, caption: str, alt: str
) -> HTML:
    """The figure for light and for dark pages, with links to it as SVG, PDF and to its CSV.

    ``alt`` states the finding: it is all that some readers get.
    """
    _save(name, draw)
    _save_data(name, data)
    images = "".join(
        f'<img class="only-{page}" src="files/{name}{suffix}.svg" alt="{escape(alt)}">'
        for page, suffix in (("light", ""), ("dark", "-dark"))
    )
    return _page_element(name, images, caption, (".svg", ".pdf", ".csv"))


def show_table(name: str, table: pd.DataFrame, caption: str) -> HTML:
    """The table, with a link to it as CSV."""
    _save_data(name, table)
    rows = table.to_html(index=False, border=0, na_rep="")
    return _page_element(name, f'<div class="wide">{rows}</div>', caption, (".csv",))
