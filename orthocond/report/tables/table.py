"""A comparison of methods as numbers, before it is written in any format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from orthocond.report.provenance import Provenance


@dataclass(frozen=True, eq=False)
class Table:
    """The numbers of a table, and the texts that are shown with them.

    Args:
        title: shown above the table.
        frame: one row per method (or contrast); the columns are pairs (group, statistic), where a
            group is the paper or a data set, and the statistic ``error mean`` is shown in one cell
            with ``error std``. A missing number is NaN.
        labels: a row's name -> its label.
        cells: group -> a row's name -> the text in place of a missing number.
        provenance: where the numbers come from.
    """

    title: str
    frame: pd.DataFrame
    labels: Mapping[str, str]
    cells: Mapping[str, Mapping[str, str]]
    provenance: Provenance
