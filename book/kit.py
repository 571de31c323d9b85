"""What the chapters show figures and tables with.

No plotting and no statistics: those are in orthocond.report. Here they get a caption, a text for
those who do not see them, and downloads. What needs runs that are not there says so, with the
command that makes them; a run that was altered raises, which stops the build.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import chdir
from html import escape
from math import isnan
from pathlib import Path
from typing import TypeVar

import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import HTML, Markdown
from matplotlib.figure import Figure

from orthocond.errors import UserError
from orthocond.methods import Method
from orthocond.report import choices, differences, hours, ledger, overview
from orthocond.report.registry import FIGURES, TABLES, FigureModule
from orthocond.report.render import render
from orthocond.report.saving import plot, save_figure
from orthocond.report.study import MissingRuns, Study
from orthocond.report.style import theme

Shown = TypeVar("Shown", HTML, Markdown)
ROOT = Path(__file__).resolve().parents[1]
FILES = ROOT / "book/_build/html/files"  # a page of the book calls it files/


def study() -> Study:
    """The runs that are committed."""
    folder = Path("runs")
    folder.mkdir(exist_ok=True)
    return Study(folder)


def _from_root(name: str, show: Callable[[], Shown]) -> Shown | HTML:
    """Show something that is made of runs, or say in its place how to make the runs.

    Paths and commands are those of the repository's root.
    """
    with chdir(ROOT):
        try:
            return show()
        except MissingRuns as missing:
            reason, _, command = str(missing).partition(": ")
            return HTML(
                f'<div class="admonition note missing-runs" id="{name}">'
                '<p class="admonition-title">No runs yet</p>'
                f"<p>{escape(reason.capitalize())}. This command makes them:</p>"
                f"<pre>{escape(command)}</pre></div>"
            )


def _links(name: str, suffixes: tuple[str, ...]) -> str:
    return " ".join(
        f'<a href="files/{name}{suffix}" download>{suffix[1:].upper()}</a>' for suffix in suffixes
    )


def _element(name: str, content: str, caption: str, suffixes: tuple[str, ...]) -> HTML:
    text = f'{escape(caption)} <span class="downloads">{_links(name, suffixes)}</span>'
    return HTML(
        f'<figure class="kit" id="{name}">{content}<figcaption>{text}</figcaption></figure>'
    )


def _images(name: str, alt: str) -> str:
    images = "".join(
        f'<img class="only-{page}" src="files/{name}{suffix}.svg" alt="{escape(alt)}">'
        for page, suffix in (("light", ""), ("dark", "-dark"))
    )
    return f"<div>{images}</div>"  # the theme hides a caption that is a sibling of a hidden image


def show_figure(
    name: str, draw: Callable[[], Figure], data: pd.DataFrame, caption: str, alt: str
) -> HTML:
    """A figure that is computed on the page, for light and for dark pages.

    ``alt`` states the finding: it is all that some readers get.
    """
    for dark in (False, True):
        with theme(dark):
            figure = draw()
            save_figure(figure, FILES / f"{name}{'-dark' * dark}", None, ["svg", "pdf"])
            plt.close(figure)
    data.to_csv(FILES / f"{name}.csv", index=False)
    return _element(name, _images(name, alt), caption, (".svg", ".pdf", ".csv"))


def show_table(name: str, table: pd.DataFrame, caption: str) -> HTML:
    """A table that is computed on the page."""
    FILES.mkdir(parents=True, exist_ok=True)
    table.to_csv(FILES / f"{name}.csv", index=False)
    rows = table.to_html(index=False, border=0, na_rep="")
    return _element(name, f'<div class="wide">{rows}</div>', caption, (".csv",))


def study_figure(name: str, module: FigureModule | None = None) -> HTML:
    """A figure of the paper, or another module's, from the runs that are committed.

    Its runs are drawn under it and end its text for those who do not see it; the caption is the
    module's own title.
    """

    def show() -> HTML:
        drawn = plot(study(), name, FILES, ["svg", "pdf"], module)
        title = str((module or FIGURES[name]).__doc__).splitlines()[0]
        alt = f"{drawn['alt']} {'. '.join([drawn['note'], *drawn['remarks']])}."
        return _element(name, _images(name, alt), title, (".svg", ".pdf", ".csv"))

    return _from_root(name, show)


def study_table(name: str) -> HTML:
    """A table of the paper beside ours, from the runs that are committed."""
    return _from_root(name, lambda: _rendered(name, TABLES[name].build(study())))


def _rendered(name: str, frame: pd.DataFrame) -> HTML:
    """A table with its title and notes, as the command line writes it."""
    FILES.mkdir(parents=True, exist_ok=True)
    (FILES / f"{name}.csv").write_text(render(frame, "csv"))
    return _element(name, f'<div class="wide">{render(frame, "html")}</div>', "", (".csv",))


def study_overview(task: str, data: str | None = None) -> HTML:
    """A row a method: errors, rank and condition numbers, from the runs that are committed."""
    name = "-".join(filter(None, ("overview", task, data)))
    return _from_root(name, lambda: _rendered(name, overview.of_task(study(), task, data)))


def study_text(task: str, write: Callable[[Study], str]) -> HTML | Markdown:
    """Sentences about the runs that are committed.

    Args:
        task: what makes the runs of a method that they speak of, where there are none.
        write: the sentences, in Markdown, with their numbers taken from the runs. It checks what
            it says: runs that contradict it stop the build.
    """

    def show() -> Markdown:
        runs = study()
        try:
            return Markdown(write(runs))
        except KeyError as absent:
            method = str(absent.args[0]).split()[0]
            try:
                Method.parse(method)
            except UserError:  # a mistake in the page, and not a method without runs
                raise absent from None
            raise runs.missing(task, [method]) from None

    return _from_root(f"{task}-{write.__name__}", show)


def power(value: float) -> str:
    """Two digits and a power of ten, as Markdown sets it."""
    digits, exponent = f"{value:.1e}".split("e")
    return rf"${digits}\cdot10^{{{int(exponent)}}}$"


def study_differences(task: str, data: str | None = None) -> HTML:
    """Differences in error between methods at equal seeds, from the runs that are committed."""
    name = "-".join(filter(None, ("differences", task, data)))
    return _from_root(name, lambda: _rendered(name, differences.of_task(study(), task, data)))


def held_out(task: str) -> pd.DataFrame:
    """Errors on held-out images, a row a value of a setting, from ``runs/settings``."""
    return choices.build(Study("runs/settings"), task)


def study_choices(task: str) -> HTML:
    """The settings that were chosen on held-out images, from ``runs/settings``."""
    name = f"choices-{task}"

    def show() -> HTML:
        frame = held_out(task)
        table = frame.astype({"value": str}).round(2)
        table["chosen"] = frame["chosen"].map({True: "chosen", False: ""})
        return show_table(name, table, f"{frame.attrs['note']}.")

    return _from_root(name, show)


def _link(name: str) -> str:
    """To the chapter that derives an equation (``eq-20b``), or shows a figure or table."""
    kind = {"eq-": "eq.", "fig": "figure", "tab": "table"}[name[:3]]
    mark = f"$$ ({name})" if kind == "eq." else f'study_{kind}("{name}")'
    page = next(p.stem for p in sorted((ROOT / "book").glob("*.md")) if mark in p.read_text())
    anchor = f"equation-{name}" if kind == "eq." else name
    return f'<a href="{page}.html#{anchor}">{kind} {name[3:]}</a>'


def study_ledger() -> HTML:
    """The paper's claims and their verdicts, from the runs that are committed."""

    def show() -> HTML:
        frame = ledger.build(study())
        FILES.mkdir(parents=True, exist_ok=True)
        frame.to_csv(FILES / "ledger.csv", index=False)
        table = f'<div class="wide">{ledger.to_html(frame, _link)}</div>'
        return _element("ledger", table, f"{frame.attrs['note']}.", (".csv",))

    return _from_root("ledger", show)


def study_verdicts() -> HTML:
    """How many of the paper's claims have which verdict, with links into the ledger."""

    def show() -> HTML:
        table = ledger.summary_html(ledger.build(study()), "ledger.html")
        return HTML(f'<figure class="kit" id="verdicts">{table}</figure>')

    return _from_root("verdicts", show)


def study_hours() -> HTML:
    """The hours that the presets need, from the speed of the runs that are committed."""

    def show() -> HTML:
        frame = hours.build(study())
        return show_table("hours", frame.map(_rounded), frame.attrs["note"] + ".")

    return _from_root("hours", show)


def _rounded(cell: object) -> object:
    """Hours for people: two digits are all that an expectation has."""
    if not isinstance(cell, float):
        return cell
    if isnan(cell):
        return ""
    return f"{cell:,.0f}" if cell >= 100 else f"{cell:.2g}" if cell >= 0.01 else "under 0.01"
