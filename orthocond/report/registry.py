"""The figures and tables that the command line and the book show, by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial

from orthocond.config.tasks import TASKS
from orthocond.errors import unknown
from orthocond.report.figures import (
    architecture_diagram,
    effects,
    fig1,
    fig5,
    findings,
    training_curves,
    treatment_figures,
)
from orthocond.report.figures.study_figure import StudyFigure
from orthocond.report.output import make_all
from orthocond.report.study import Study
from orthocond.report.tables import differences, overview, regimes, tab5, tab6
from orthocond.report.tables import findings as findings_table
from orthocond.report.tables.comparison import only
from orthocond.report.tables.error_table import error_table
from orthocond.report.tables.table import Table

FIGURES: Mapping[str, StudyFigure] = {
    figure.name: figure
    for figure in (
        fig1.FIGURE,
        *treatment_figures.FIGURES,
        fig5.FIGURE,
        *architecture_diagram.FIGURES,
        effects.FIGURE,
        findings.FIGURE,
        training_curves.FIGURE,
    )
}
ONE_TASK = {"overview": overview.of_task, "differences": differences.of_task}
TABLES: Mapping[str, Callable[[Study], Table]] = {
    "overview": lambda study: overview.of_task(study, _tasks(study)[0]),
    "differences": lambda study: differences.of_task(study, _tasks(study)[0]),
    "tab1": partial(error_table, 1),
    "tab2": partial(error_table, 2),
    "tab3": partial(error_table, 3),
    "tab4": partial(error_table, 4, others=True),
    "tab5": tab5.build,
    "tab6": tab6.build,
    "regimes": regimes.build,
    "findings": findings_table.build,
}
"""Functions that compute a table from a study, by the name of the table."""

EVERY_STUDY = frozenset({"tab6", "regimes", "effects", "findings", "fig6", "fig7"})
"""Figures and tables that show every study, or none."""


def _tasks(study: Study) -> list[str]:
    """Return the tasks that have runs on the study's data set, or the main task without any."""
    return [task for task in TASKS if study.largest(task)] or [study.main_task]


def _by_task(study: Study, name: str) -> dict[str, Callable[[Study], Table]]:
    """Return the functions that compute a table, by name: one per task if it is of one task."""
    further = _tasks(study)[1:] if name in ONE_TASK else []
    made = {f"{name}-{task}": partial(ONE_TASK[name], task=task) for task in further}
    return {name: TABLES[name], **made}


def make_tables(
    study: Study, names: Iterable[str], methods: Iterable[str] | None, strict: bool
) -> tuple[dict[str, Table], dict[str, str]]:
    """Compute tables from a study.

    Args:
        study: the runs.
        names: names of the tables. A table of one task is named NAME for the first task with runs,
            and NAME-TASK for each other one.
        methods: the methods to show, see ``only``; None shows all.
        strict: as for ``make_all``.

    Returns:
        The tables by name, and for each skipped name the reason.

    Raises:
        MissingRuns: see ``make_all``. A table of one of several tasks is skipped instead.
    """
    groups = [_by_task(study, name) for name in names]
    makers = {name: make for group in groups for name, make in group.items()}
    return make_all(
        makers,
        lambda name: only(makers[name](study), methods),
        strict,
        optional=[name for group in groups if len(group) > 1 for name in group],
    )


def chosen(kind: str, names: Iterable[str], known: Iterable[str]) -> list[str]:
    """Return the requested names, each once; ``all`` stands for every known name.

    Raises:
        UserError: a name is unknown.

    Example:
        >>> chosen("figure", ["fig2", "fig1", "fig2"], ["fig1", "fig2"])
        ['fig2', 'fig1']
    """
    known = list(known)
    for name in names:
        if name not in (*known, "all"):
            raise unknown(kind, name, [*known, "all"])
    return list(dict.fromkeys(n for name in names for n in (known if name == "all" else [name])))
