"""The figures and tables that the command line and the book show, by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial

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
from orthocond.report.study import Study
from orthocond.report.tables import differences, overview, regimes, tab5, tab6
from orthocond.report.tables import findings as findings_table
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
TABLES: Mapping[str, Callable[[Study], Table]] = {
    "overview": lambda study: overview.of_task(study, study.main_task),
    "differences": lambda study: differences.of_task(study, study.main_task),
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
