"""The paper's figures and tables and what sums up a study, each by its name and its module."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

import pandas as pd
from matplotlib.figure import Figure

from orthocond.errors import unknown
from orthocond.report import (
    differences,
    fig1,
    fig2,
    fig3,
    fig4,
    fig5,
    fig6,
    fig7,
    overview,
    tab1,
    tab2,
    tab3,
    tab4,
    tab5,
    tab6,
)
from orthocond.report.study import Study


class FigureModule(Protocol):
    """A figure: its data, its drawing in the current theme, and what it shows in words."""

    def data(self, study: Study) -> pd.DataFrame:
        """The numbers drawn; ``attrs`` says where they come from."""

    def draw(self, study: Study) -> Figure:
        """The figure."""

    def alt(self, study: Study) -> str:
        """What stands in for the image."""


class TableModule(Protocol):
    """A table of a study's numbers, beside the paper's where it has them."""

    def build(self, study: Study) -> pd.DataFrame:
        """The numbers; ``render`` writes them out."""


FIGURES: Mapping[str, FigureModule] = {
    "fig1": fig1,
    "fig2": fig2,
    "fig3": fig3,
    "fig4": fig4,
    "fig5": fig5,
    "fig6": fig6,
    "fig7": fig7,
}
TABLES: Mapping[str, TableModule] = {
    "overview": overview,
    "differences": differences,
    "tab1": tab1,
    "tab2": tab2,
    "tab3": tab3,
    "tab4": tab4,
    "tab5": tab5,
    "tab6": tab6,
}


def chosen(kind: str, names: Iterable[str], known: Iterable[str]) -> list[str]:
    """The names that were asked for, once each; ``all`` is every one.

    Raises:
        UserError: an unknown name.

    Example:
        >>> chosen("figure", ["fig2", "fig1", "fig2"], ["fig1", "fig2"])
        ['fig2', 'fig1']
    """
    known = list(known)
    for name in names:
        if name not in (*known, "all"):
            raise unknown(kind, name, [*known, "all"])
    return list(dict.fromkeys(n for name in names for n in (known if name == "all" else [name])))
