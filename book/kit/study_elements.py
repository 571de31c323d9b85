"""Figures and tables of the paper, and the ledger of its claims, from the runs of the book."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from math import isnan
from pathlib import Path

from IPython.display import HTML, Markdown

from kit import elements
from kit.elements import both_images, box, captioned, from_root, show_table
from kit.runs import GPU_TIMES, ROOT, all_studies, choices, of_committed_runs, study
from orthocond.artifacts.timing_artifacts import find_timings
from orthocond.report.figures.study_figure import StudyFigure
from orthocond.report.ledger import ledger, summary
from orthocond.report.ledger.history import changes
from orthocond.report.output import write_figure
from orthocond.report.provenance import Numbers
from orthocond.report.registry import FIGURES, TABLES
from orthocond.report.study import Study
from orthocond.report.tables import differences, overview
from orthocond.report.tables.render import render
from orthocond.report.tables.table import Table


def study_figure(figure: str | StudyFigure, every: bool = False) -> HTML:
    """Show a figure of the paper by its name, or another figure, from the runs of the book.

    With ``every``, the figure may read all studies, not only those in ``MAIN``.

    Studies, seeds and commits are folded away below the caption.
    """
    own = FIGURES[figure] if isinstance(figure, str) else figure

    def show() -> HTML:
        runs = all_studies() if every else study()
        data = own.data(runs)
        drawn = write_figure(
            runs, replace(own, data=lambda _: data), elements.FILES, ["svg", "pdf"]
        )
        caption = " ".join(
            [drawn["caption"], *(f"{text.rstrip('.')}." for text in data.provenance.shown)]
        )
        suffixes = (".svg", ".pdf", ".csv")
        images = both_images(own.name, drawn["alt"])
        return captioned(own.name, images, caption, suffixes, data.provenance.folded)

    return from_root(own.name, show)


def study_table(name: str, folder: str | None = None, every: bool = False) -> HTML:
    """Show a table of the paper beside the numbers of the runs.

    With a folder, the numbers come from the runs and timings in this folder instead. With
    ``every``, the table may read all studies, not only those in ``MAIN``.
    """
    element = f"{name}-{Path(folder).name}" if folder else name

    def show() -> HTML:
        runs = Study(Path(folder)) if folder else all_studies() if every else study()
        return _rendered(element, TABLES[name](runs))

    return from_root(element, show)


def _rendered(name: str, table: Table) -> HTML:
    """Show a table with its title and notes, as the command line writes it."""
    elements.FILES.mkdir(parents=True, exist_ok=True)
    (elements.FILES / f"{name}.csv").write_text(render(table, "csv"))
    return captioned(name, box(render(table, "html")), "", (".csv",))


def study_overview(task: str, data: str | None = None, name: str | None = None) -> HTML:
    """Show a table of errors, ranks and condition numbers per method, from the runs of the book.

    ``name`` is a study; None stands for those in ``MAIN``.
    """
    element = "-".join(filter(None, ("overview", task, data, name)))
    return from_root(element, lambda: _rendered(element, overview.of_task(study(name), task, data)))


def study_differences(task: str, data: str | None = None, name: str | None = None) -> HTML:
    """Show differences in error between methods at equal seeds, from the runs of the book.

    ``name`` is a study; None stands for those in ``MAIN``.
    """
    element = "-".join(filter(None, ("differences", task, data, name)))
    return from_root(
        element, lambda: _rendered(element, differences.of_task(study(name), task, data))
    )


def study_regimes() -> HTML:
    """Show accuracies, gap, images and steps of every study."""
    return from_root("regimes", lambda: _rendered("regimes", TABLES["regimes"](all_studies())))


def study_choices(task: str) -> HTML:
    """Show the settings that were chosen on held-out images."""
    name = f"choices-{task}"

    def show() -> HTML:
        found = choices(task)
        frame = found.frame
        errors = [column for column in frame if "error" in column]
        table = frame.astype({"value": str, **dict.fromkeys(errors, object)})
        table[errors] = frame[errors].map("{:.2f}".format)
        table["chosen"] = frame["chosen"].map({True: "chosen", False: ""})
        return show_table(name, frame, f"{found.provenance.note}.", shown=table)

    return from_root(name, show)


@cache
def _claims() -> Numbers:
    """Return the ledger of all studies, which takes seconds."""
    timings = find_timings(ROOT / GPU_TIMES) if of_committed_runs() else ()
    return ledger.build(all_studies(), timings)


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
        elements.FILES.mkdir(parents=True, exist_ok=True)
        claims.frame.to_csv(elements.FILES / "ledger.csv", index=False)
        table = ledger.to_html(claims.frame, _link)
        return captioned("ledger", box(table), f"{claims.provenance.note}.", (".csv",))

    return from_root("ledger", show)


def study_verdicts() -> HTML:
    """Show what was found in three groups of claims, and the claims per verdict, with links."""

    def show() -> HTML:
        table = summary.to_html(_claims().frame, "ledger.html")
        return HTML(f'<figure class="kit" id="verdicts">{box(table)}</figure>')

    return from_root("verdicts", show)


def study_summary() -> HTML | Markdown:
    """Show what was found in three groups of claims, one sentence each."""
    return from_root("summary", lambda: Markdown(summary.to_markdown(_claims().frame)))


def study_rules() -> HTML:
    """Show the rules that changed after the runs, with both counts and the verdicts that moved."""

    def show() -> HTML:
        frame = _claims().frame
        table = changes.counts(frame).to_html(index=False, border=0)
        sections = changes.to_html(frame, "ledger.html")
        return HTML(f'<div id="rules">{box(table)}{sections}</div>')

    return from_root("rules", show)


def study_hours() -> HTML:
    """Show the hours that the presets need, from the speed of its runs."""

    from orthocond.report.tables import preset_hours  # imports torchvision, which takes seconds

    def show() -> HTML:
        hours = preset_hours.build(study())
        table = hours.frame.map(_rounded)
        return show_table("hours", hours.frame, f"{hours.provenance.note}.", shown=table)

    return from_root("hours", show)


def _rounded(cell: object) -> object:
    """Round hours to two significant digits, because they are estimates; keep other cells."""
    if not isinstance(cell, float):
        return cell
    if isnan(cell):
        return ""
    return f"{cell:,.0f}" if cell >= 100 else f"{cell:.2g}" if cell >= 0.01 else "under 0.01"
