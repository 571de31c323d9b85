"""Functions by which the chapters show figures, tables and sentences about runs.

Plotting and statistics are in orthocond.report. This module adds a caption, a text for readers who
cannot see the figure, and downloads. Where runs are missing, the page shows the command that makes
them. A run that was altered raises an error, which stops the build.
"""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
import warnings
from collections.abc import Callable
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import replace
from functools import lru_cache
from html import escape
from io import StringIO
from math import isnan
from pathlib import Path
from typing import TypeVar

import matplotlib.pyplot as plt
import pandas as pd
import torch
from IPython.display import HTML, Markdown
from matplotlib.figure import Figure

from orthocond.config.methods import Method
from orthocond.errors import UserError
from orthocond.report.figures.study_figure import StudyFigure
from orthocond.report.ledger import changes, ledger, summary
from orthocond.report.output import save_figure, write_figure
from orthocond.report.provenance import Numbers, folded
from orthocond.report.readable import readable_cell
from orthocond.report.registry import FIGURES, TABLES
from orthocond.report.study import MissingRuns, Study
from orthocond.report.style import theme
from orthocond.report.tables import chosen_settings, differences, overview
from orthocond.report.tables.render import render
from orthocond.report.tables.table import Table

Shown = TypeVar("Shown", HTML, Markdown)
ROOT = Path(__file__).resolve().parents[1]
FILES = ROOT / "book/_build/html/files"  # pages of the book refer to it as files/


COLUMNS = 6  # a table with more columns is as wide as the page, with its margin

MAIN = ("cifar10-cpu", "tiny32-cpu", "tiny-imagenet-cpu")
"""Studies that the chapters show where they name none; further ones do not change them."""


def all_studies() -> Study:
    """Return all committed runs."""
    folder = Path("runs")
    folder.mkdir(exist_ok=True)
    return _read(folder, _state(folder.resolve()))


def _state(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """Return what changes when a file in a folder is written: names, times and sizes."""
    files = ((path, path.stat()) for path in sorted(folder.rglob("*")))
    return tuple((str(path), at.st_mtime_ns, at.st_size) for path, at in files)


@lru_cache(maxsize=1)
def _read(folder: Path, state: tuple[tuple[str, int, int], ...]) -> Study:
    """Read and verify the runs of a folder once, until one of its files is written."""
    return Study(folder)


def study(name: str | None = None) -> Study:
    """Return the committed runs of one study, or of those in ``MAIN``.

    Where there is no such study, as in a folder of other runs, all of its runs are returned.
    """
    every = all_studies()
    own = [n for n in every.names() if n in (MAIN if name is None else (name,))]
    if name is not None and not own:
        raise every.missing(every.main_task, ["svd"])
    return every.only(*own) if own else every


def _from_root(name: str, show: Callable[[], Shown]) -> Shown | HTML:
    """Show an element that needs runs, or the command that makes the runs if they are missing.

    Paths and commands are relative to the repository's root.
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


def _element(
    name: str, content: str, caption: str, suffixes: tuple[str, ...], source: str = ""
) -> HTML:
    """Show a figure or a table with its caption, its downloads and its ``source``, as HTML."""
    text = f'{escape(caption)} <span class="downloads">{_links(name, suffixes)}</span>{source}'
    return HTML(
        f'<figure class="kit" id="{name}">{content}<figcaption>{text}</figcaption></figure>'
    )


def _box(table: str) -> str:
    """Return a table in a box that scrolls, and that has the margin, too, for many columns."""
    columns = max(len(re.findall("<t[hd][ >]", row)) for row in table.split("</tr>"))
    return f'<div class="wide{" full-width" * (columns > COLUMNS)}">{table}</div>'


def _images(name: str, alt: str) -> str:
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
    for dark in (False, True):
        with theme(dark):
            figure = draw()
            save_figure(figure, FILES / f"{name}{'-dark' * dark}", None, ["svg", "pdf"])
            plt.close(figure)
    data.to_csv(FILES / f"{name}.csv", index=False)
    fold = folded([source]) if source else ""
    return _element(name, _images(name, alt), caption, (".svg", ".pdf", ".csv"), fold)


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
    return _element(name, _box(rows), caption, (".csv",), fold)


def study_figure(figure: str | StudyFigure, every: bool = False) -> HTML:
    """Show a figure of the paper by its name, or another figure, from the committed runs.

    With ``every``, the figure may read all studies, not only those in ``MAIN``.

    Studies, seeds and commits are folded away below the caption.
    """
    own = FIGURES[figure] if isinstance(figure, str) else figure

    def show() -> HTML:
        runs = all_studies() if every else study()
        data = own.data(runs)
        drawn = write_figure(runs, replace(own, data=lambda _: data), FILES, ["svg", "pdf"])
        caption = " ".join(
            [drawn["caption"], *(f"{text.rstrip('.')}." for text in data.provenance.shown)]
        )
        suffixes = (".svg", ".pdf", ".csv")
        images = _images(own.name, drawn["alt"])
        return _element(own.name, images, caption, suffixes, data.provenance.folded)

    return _from_root(own.name, show)


def study_table(name: str, folder: str | None = None) -> HTML:
    """Show a table of the paper beside our numbers, from the committed runs.

    With a folder, the numbers come from the runs and timings in this folder instead.
    """
    element = f"{name}-{Path(folder).name}" if folder else name
    return _from_root(
        element,
        lambda: _rendered(element, TABLES[name](Study(Path(folder)) if folder else study())),
    )


def _rendered(name: str, table: Table) -> HTML:
    """Show a table with its title and notes, as the command line writes it."""
    FILES.mkdir(parents=True, exist_ok=True)
    (FILES / f"{name}.csv").write_text(render(table, "csv"))
    return _element(name, _box(render(table, "html")), "", (".csv",))


def study_overview(task: str, data: str | None = None, name: str | None = None) -> HTML:
    """Show a table of errors, ranks and condition numbers per method, from the committed runs.

    ``name`` is a study; None stands for those in ``MAIN``.
    """
    element = "-".join(filter(None, ("overview", task, data, name)))
    return _from_root(
        element, lambda: _rendered(element, overview.of_task(study(name), task, data))
    )


def study_text(task: str, write: Callable[[Study], str]) -> HTML | Markdown:
    """Show sentences about the committed runs.

    Args:
        task: task of the runs that the sentences are about. Where a method has no runs, the page
            shows the command that makes them.
        write: returns the sentences in Markdown, with numbers from the runs. It checks its own
            statements: runs that contradict them stop the build.
    """

    def show() -> Markdown:
        runs = study()
        try:
            return Markdown(write(runs))
        except KeyError as absent:
            method = str(absent.args[0]).split()[0]
            try:
                Method.parse(method)
            except UserError:  # a mistake in the page, not a method without runs
                raise absent from None
            raise runs.missing(task, [method]) from None

    return _from_root(f"{task}-{write.__name__}", show)


def power(value: float) -> str:
    """Return a number in Markdown as two digits and a power of ten."""
    digits, exponent = f"{value:.1e}".split("e")
    return rf"${digits}\cdot10^{{{int(exponent)}}}$"


def study_differences(task: str, data: str | None = None, name: str | None = None) -> HTML:
    """Show differences in error between methods at equal seeds, from the committed runs.

    ``name`` is a study; None stands for those in ``MAIN``.
    """
    element = "-".join(filter(None, ("differences", task, data, name)))
    return _from_root(
        element, lambda: _rendered(element, differences.of_task(study(name), task, data))
    )


def study_regimes() -> HTML:
    """Show accuracies, gap, images and steps of every committed study."""
    return _from_root("regimes", lambda: _rendered("regimes", TABLES["regimes"](all_studies())))


def held_out(task: str) -> pd.DataFrame:
    """Return the errors on held-out images, one row per value of a setting (``runs/settings``)."""
    return chosen_settings.build(Study("runs/settings"), task).frame


def study_choices(task: str) -> HTML:
    """Show the settings that were chosen on held-out images, from ``runs/settings``."""
    name = f"choices-{task}"

    def show() -> HTML:
        choices = chosen_settings.build(Study("runs/settings"), task)
        frame = choices.frame
        errors = [column for column in frame if "error" in column]
        table = frame.astype({"value": str, **dict.fromkeys(errors, object)})
        table[errors] = frame[errors].map("{:.2f}".format)
        table["chosen"] = frame["chosen"].map({True: "chosen", False: ""})
        return show_table(name, frame, f"{choices.provenance.note}.", shown=table)

    return _from_root(name, show)


def _link(name: str) -> str:
    """Return a link to the chapter that has an equation (``eq-20b``), a figure or a table."""
    kind = {"eq-": "eq.", "fig": "figure", "tab": "table"}[name[:3]]
    mark = f"$$ ({name})" if kind == "eq." else f'study_{kind}("{name}")'
    page = next(p.stem for p in sorted((ROOT / "book").glob("*.md")) if mark in p.read_text())
    anchor = f"equation-{name}" if kind == "eq." else name
    return f'<a href="{page}.html#{anchor}">{kind} {name[3:]}</a>'


@lru_cache(maxsize=1)
def _claims(every: Study) -> Numbers:
    """Judge the claims once for all elements of a page."""
    return ledger.build(every)


def study_ledger() -> HTML:
    """Show the paper's claims and their verdicts, from the committed runs."""

    def show() -> HTML:
        claims = _claims(all_studies())
        FILES.mkdir(parents=True, exist_ok=True)
        claims.frame.to_csv(FILES / "ledger.csv", index=False)
        table = ledger.to_html(claims.frame, _link)
        return _element("ledger", _box(table), f"{claims.provenance.note}.", (".csv",))

    return _from_root("ledger", show)


def study_verdicts() -> HTML:
    """Show what was found in three groups of claims, and the claims per verdict, with links."""

    def show() -> HTML:
        table = summary.to_html(_claims(all_studies()).frame, "ledger.html")
        return HTML(f'<figure class="kit" id="verdicts">{_box(table)}</figure>')

    return _from_root("verdicts", show)


def study_summary() -> HTML | Markdown:
    """Show what was found in three groups of claims, one sentence each."""
    return _from_root(
        "summary", lambda: Markdown(summary.to_markdown(_claims(all_studies()).frame))
    )


def study_rules() -> HTML:
    """Show the rules that changed after the runs, with both counts and the verdicts that moved."""

    def show() -> HTML:
        frame = _claims(all_studies()).frame
        table = changes.counts(frame).to_html(index=False, border=0)
        sections = changes.to_html(frame, "ledger.html")
        return HTML(f'<div id="rules">{_box(table)}{sections}</div>')

    return _from_root("rules", show)


def study_hours() -> HTML:
    """Show the hours that the presets need, from the speed of the committed runs."""

    from orthocond.report.tables import preset_hours  # imports torchvision, which takes seconds

    def show() -> HTML:
        hours = preset_hours.build(study())
        table = hours.frame.map(_rounded)
        return show_table("hours", hours.frame, f"{hours.provenance.note}.", shown=table)

    return _from_root("hours", show)


def _rounded(cell: object) -> object:
    """Round hours to two significant digits, because they are estimates; keep other cells."""
    if not isinstance(cell, float):
        return cell
    if isnan(cell):
        return ""
    return f"{cell:,.0f}" if cell >= 100 else f"{cell:.2g}" if cell >= 0.01 else "under 0.01"


def run_example(name: str, *launcher: str) -> None:
    """Run a script of the folder examples with Python, and print its output.

    Without a launcher the script runs in this process, which has imported torch already.

    Args:
        name: name of the script, without ``.py``.
        launcher: arguments of Python before the script, such as those of ``torch.distributed.run``.

    Raises:
        RuntimeError: a launched script failed; the text is what it wrote to its standard error.
    """
    script = str(ROOT / "examples" / f"{name}.py")
    if not launcher:
        print(_output(script))
        return
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, *launcher, script]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise RuntimeError(done.stderr)
    print(done.stdout)


def _output(script: str) -> str:
    """Run a script in this process, in one thread, and return what it prints."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()) as shown:
            warnings.simplefilter("ignore")
            with redirect_stderr(StringIO()):  # bars of progress
                runpy.run_path(script, run_name="__main__")
    finally:
        torch.set_num_threads(threads)
    return shown.getvalue()
