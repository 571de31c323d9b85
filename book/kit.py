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
from contextvars import ContextVar
from dataclasses import replace
from functools import cache
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
from other_runs import named_methods, replaced, without_checks

from orthocond.artifacts.run_writer import CorruptRun, Run
from orthocond.config.tasks import TASKS
from orthocond.report.commands import RECIPES, find_recipe, recipe_command, train_command
from orthocond.report.figures.study_figure import StudyFigure
from orthocond.report.ledger import changes, ledger, summary
from orthocond.report.output import save_figure, write_figure
from orthocond.report.provenance import Numbers, folded
from orthocond.report.readable import readable_cell
from orthocond.report.registry import FIGURES, TABLES
from orthocond.report.statistics import WIDE
from orthocond.report.study import MissingRuns, Study
from orthocond.report.style import theme
from orthocond.report.tables import chosen_settings, differences, overview
from orthocond.report.tables.render import render
from orthocond.report.tables.table import Table

Shown = TypeVar("Shown", HTML, Markdown)
ROOT = Path(__file__).resolve().parents[1]
FILES = ROOT / "book/_build/html/files"  # pages of the book refer to it as files/


COLUMNS = 5  # a table with more columns is as wide as the page, with its margin

MAIN = ("cifar10-cpu", "tiny32-cpu", "tiny-imagenet-cpu")
"""Studies that the chapters show where they name none; further ones do not change them."""

LACKS = (AssertionError, ArithmeticError, LookupError, ValueError)
"""Errors of a text whose checks fail, or whose runs are missing."""

_committed = ContextVar("committed", default=False)
"""True while a text about the committed runs is written, in a book of other runs."""


def folders() -> tuple[Path, ...]:
    """Return the folders of ``make book RUNS=...``; without RUNS, the folder of committed runs.

    Paths are relative to the repository's root.
    """
    named = "" if _committed.get() else os.environ.get("ORTHOCOND_RUNS", "")
    return tuple(map(Path, named.split())) or (Path("runs"),)


@cache
def _read(*named: Path) -> Study:
    """Return the runs in folders, which do not change while a page is built."""
    return Study(named[0], also=named[1:])


@cache
def _without_demo() -> Study:
    """Return the runs in ``runs``, except those of ``make demo``."""
    Path("runs").mkdir(exist_ok=True)
    return _read(Path("runs")).keeping(lambda run: run.path.parent.name != "demo")


def all_studies() -> Study:
    """Return all runs that the book is built from.

    Those of ``make demo`` in ``runs`` are left out, unless RUNS names their folder.
    """
    with chdir(ROOT):
        if _committed.get():
            return _committed_study()
        named = folders()
        return _without_demo() if named == (Path("runs"),) else _read(*named)


def _identity(run: Run) -> tuple[str, str, str]:
    """Return study, configuration and commit of a run."""
    return run.path.resolve().parent.name, run.config["hash"], str(run.environment.get("commit"))


@cache
def _results() -> frozenset[tuple[str, str, str]]:
    """Return the identities of the committed runs, from ``runs/results.csv``."""
    if not (ROOT / "runs/results.csv").is_file():
        return frozenset()
    rows = pd.read_csv(ROOT / "runs/results.csv", dtype=str)
    return frozenset(zip(rows["study"], rows["config"], rows["commit"], strict=True))


@cache
def _committed_study() -> Study:
    """Return the committed runs.

    Raises:
        MissingRuns: some of them are not in ``runs``.
    """
    runs = Path("runs")
    own = _read(runs).keeping(lambda run: _identity(run) in _results()) if runs.is_dir() else None
    if own is None or len(own.runs) < len(_results()):
        raise MissingRuns("not all committed runs are in 'runs'")
    return own


@cache
def of_committed_runs() -> bool:
    """Return whether the book is built from the committed runs: all of them, and no others."""
    return {_identity(run) for run in all_studies().runs} == _results()


def study(name: str | None = None) -> Study:
    """Return the runs of one study, or of those in ``MAIN``.

    If a book of other runs has none of the studies in ``MAIN``, all of its runs are returned.

    Raises:
        MissingRuns: there is no study of this name.
    """
    every = all_studies()
    own = [n for n in every.names() if n in (MAIN if name is None else (name,))]
    if name is not None and not own:
        known = [recipe for recipe in RECIPES if recipe.study == name]
        commands = [recipe_command(recipe, every.folder) for recipe in known]
        raise MissingRuns(f"no runs of the study {name!r}", *commands)
    return every.only(*own) if own else every


def _from_root(name: str, show: Callable[[], Shown]) -> Shown | HTML:
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
    """Show a figure of the paper by its name, or another figure, from the runs of the book.

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


def study_table(name: str, folder: str | None = None, every: bool = False) -> HTML:
    """Show a table of the paper beside the numbers of the runs.

    With a folder, the numbers come from the runs and timings in this folder instead. With
    ``every``, the table may read all studies, not only those in ``MAIN``.
    """
    element = f"{name}-{Path(folder).name}" if folder else name

    def show() -> HTML:
        runs = Study(Path(folder)) if folder else all_studies() if every else study()
        return _rendered(element, TABLES[name](runs))

    return _from_root(element, show)


def _rendered(name: str, table: Table) -> HTML:
    """Show a table with its title and notes, as the command line writes it."""
    FILES.mkdir(parents=True, exist_ok=True)
    (FILES / f"{name}.csv").write_text(render(table, "csv"))
    return _element(name, _box(render(table, "html")), "", (".csv",))


def study_overview(task: str, data: str | None = None, name: str | None = None) -> HTML:
    """Show a table of errors, ranks and condition numbers per method, from the runs of the book.

    ``name`` is a study; None stands for those in ``MAIN``.
    """
    element = "-".join(filter(None, ("overview", task, data, name)))
    return _from_root(
        element, lambda: _rendered(element, overview.of_task(study(name), task, data))
    )


def study_text(task: str, write: Callable[[Study], str]) -> HTML | Markdown:
    """Show sentences about runs.

    Args:
        task: task of the runs that the sentences are about. Where a method has no runs, the page
            shows the command that makes them.
        write: returns the sentences in Markdown, with numbers from the runs. It checks its own
            statements with ``assert``. If the committed runs contradict them, the build stops. If
            other runs do, the page shows the sentences with the numbers of both.
    """

    def show() -> Markdown:
        runs = study()
        try:
            return Markdown(write(runs))
        except (CorruptRun, MissingRuns):
            raise
        except LACKS as error:
            if of_committed_runs():
                raise
            if commands := _commands_for(str(error), runs, task):
                raise MissingRuns("no runs of some methods for this", *commands) from None
            own = _attempt(without_checks(write), runs)
            token = _committed.set(True)
            try:
                committed = _attempt(write)
            finally:
                _committed.reset(token)
            return Markdown(replaced(committed, own, error))

    return _from_root(f"{task}-{write.__name__}", show)


def _attempt(write: Callable[[Study], str], runs: Study | None = None) -> str | None:
    """Return a text; None where the runs lack what it needs."""
    try:
        return write(study() if runs is None else runs)
    except CorruptRun:
        raise
    except LACKS:
        return None


def _commands_for(error: str, runs: Study, task: str) -> list[str]:
    """Return the commands for the methods that an error names, where they have no runs."""
    named = named_methods(error)
    for name in (task, *(other for other in TASKS if other != task)):
        fitting = [(m, wide) for m, wide in named if m.split("+")[0] in TASKS[name].solvers]
        commands = []
        for data in runs.data_sets(name):
            own = runs.select(name, data=data)
            control = runs.beside(own, stem_kernel=WIDE)
            absent = [m for m, wide in fitting if not wide and not own.runs.get(m)]
            narrow = [m for m, wide in fitting if wide and not (control and control.runs.get(m))]
            for methods, more in ((absent, {}), (narrow, {"stem_kernel": WIDE})):
                if methods:
                    settings = dict(own.settings) | more
                    commands.append(train_command(name, methods, own.folder, settings, own.seeds))
        if name != task and not runs.data_sets(name):
            new = any(m.split("+")[0] not in TASKS[task].solvers for m, _ in fitting)
            commands += runs.missing(name, [m for m, _ in fitting]).commands if new else ()
        if commands:
            return commands
    return []


def power(value: float) -> str:
    """Return a number in Markdown as two digits and a power of ten."""
    digits, exponent = f"{value:.1e}".split("e")
    return rf"${digits}\cdot10^{{{int(exponent)}}}$"


def study_differences(task: str, data: str | None = None, name: str | None = None) -> HTML:
    """Show differences in error between methods at equal seeds, from the runs of the book.

    ``name`` is a study; None stands for those in ``MAIN``.
    """
    element = "-".join(filter(None, ("differences", task, data, name)))
    return _from_root(
        element, lambda: _rendered(element, differences.of_task(study(name), task, data))
    )


def study_regimes() -> HTML:
    """Show accuracies, gap, images and steps of every study."""
    return _from_root("regimes", lambda: _rendered("regimes", TABLES["regimes"](all_studies())))


def _choices(task: str) -> Numbers:
    """Return the settings that were varied on held-out images, from the folders ``settings``.

    Raises:
        MissingRuns: there are no such runs; the commands are from ``runs/README.md``.
    """
    found = [folder / "settings" for folder in folders() if (folder / "settings").is_dir()]
    try:
        if found:
            return chosen_settings.build(_read(*found), task)
        reason = "no runs on held-out images"
    except MissingRuns as missing:
        reason = missing.reason
    readme = ROOT / "runs/README.md"
    loops = (
        re.findall(r"^for .*?^done$", readme.read_text(), re.S | re.M) if readme.is_file() else []
    )
    preset, place = f"--preset {find_recipe(task).preset} ", f"--out {folders()[0]}/settings/"
    own = [loop.replace("--out runs/settings/", place) for loop in loops if preset in loop]
    raise MissingRuns(reason, *own)


def held_out(task: str) -> pd.DataFrame:
    """Return the errors on held-out images, one row per value of a setting."""
    return _choices(task).frame


def study_choices(task: str) -> HTML:
    """Show the settings that were chosen on held-out images."""
    name = f"choices-{task}"

    def show() -> HTML:
        choices = _choices(task)
        frame = choices.frame
        errors = [column for column in frame if "error" in column]
        table = frame.astype({"value": str, **dict.fromkeys(errors, object)})
        table[errors] = frame[errors].map("{:.2f}".format)
        table["chosen"] = frame["chosen"].map({True: "chosen", False: ""})
        return show_table(name, frame, f"{choices.provenance.note}.", shown=table)

    return _from_root(name, show)


@cache
def _claims() -> Numbers:
    """Return the ledger of all studies, which takes seconds."""
    return ledger.build(all_studies())


def _link(name: str) -> str:
    """Return a link to the chapter that has an equation (``eq-20b``), a figure or a table."""
    kind = {"eq-": "eq.", "fig": "figure", "tab": "table"}[name[:3]]
    mark = f"$$ ({name})" if kind == "eq." else f'study_{kind}("{name}")'
    page = next(p.stem for p in sorted((ROOT / "book").glob("*.md")) if mark in p.read_text())
    anchor = f"equation-{name}" if kind == "eq." else name
    return f'<a href="{page}.html#{anchor}">{kind} {name[3:]}</a>'


def study_ledger() -> HTML:
    """Show the paper's claims and their verdicts, from the runs of the book."""

    def show() -> HTML:
        claims = _claims()
        FILES.mkdir(parents=True, exist_ok=True)
        claims.frame.to_csv(FILES / "ledger.csv", index=False)
        table = ledger.to_html(claims.frame, _link)
        return _element("ledger", _box(table), f"{claims.provenance.note}.", (".csv",))

    return _from_root("ledger", show)


def study_verdicts() -> HTML:
    """Show what was found in three groups of claims, and the claims per verdict, with links."""

    def show() -> HTML:
        table = summary.to_html(_claims().frame, "ledger.html")
        return HTML(f'<figure class="kit" id="verdicts">{_box(table)}</figure>')

    return _from_root("verdicts", show)


def study_summary() -> HTML | Markdown:
    """Show what was found in three groups of claims, one sentence each."""
    return _from_root("summary", lambda: Markdown(summary.to_markdown(_claims().frame)))


def study_rules() -> HTML:
    """Show the rules that changed after the runs, with both counts and the verdicts that moved."""

    def show() -> HTML:
        frame = _claims().frame
        table = changes.counts(frame).to_html(index=False, border=0)
        sections = changes.to_html(frame, "ledger.html")
        return HTML(f'<div id="rules">{_box(table)}{sections}</div>')

    return _from_root("rules", show)


def study_hours() -> HTML:
    """Show the hours that the presets need, from the speed of its runs."""

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
