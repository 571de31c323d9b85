"""Numbers that the paper published, each with its table and cell.

The paper is Song, Sebe, Wang: Improving Covariance Conditioning of the SVD Meta-layer by
Orthogonality, ECCV 2022. Some cells were lost or garbled in our source text. They are absent here,
even where another table or a sentence suggests their value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from orthocond.errors import UserError

ERROR = ("mean", "std", "min")  # statistics of the validation error in percent, over ten runs

_LABELS = {
    "svd": "SVD",
    "svd+sn": "SVD + SN",
    "svd+ol": "SVD + OL",
    "svd+ow": "SVD + OW",
    "svd+nog": "SVD + NOG",
    "svd+olr": "SVD + OLR",
    "svd+nog+sn": "SVD + NOG + SN",
    "svd+nog+ol": "SVD + NOG + OL",
    "svd+nog+ow": "SVD + NOG + OW",
    "svd+nog+olr": "SVD + NOG + OLR",
    "svd+ow+olr": "SVD + OW + OLR",
    "svd+nog+ow+olr": "SVD + NOG + OW + OLR",
    "ns": "Newton-Schulz iteration",
}
_LONG_LABELS = _LABELS | {
    "svd+sn": "SVD + Spectral Norm (SN)",
    "svd+ol": "SVD + Orthogonal Loss (OL)",
    "svd+ow": "SVD + Orthogonal Weight (OW)",
    "svd+nog": "SVD + Nearest Orthogonal Gradient (NOG)",
    "svd+olr": "SVD + Optimal Learning Rate (OLR)",
}
_COST_LABELS = _LABELS | {
    "svd+nog+ow+olr": "SVD + OW + NOG + OLR",
    "ns": "Newton-Schulz Iteration",
    "bn": "Vanilla ResNet-50",
}

_CIFAR100 = tuple(f"CIFAR100 {statistic}" for statistic in ERROR)
_BOTH = (*(f"CIFAR10 {statistic}" for statistic in ERROR), *_CIFAR100)

Row = tuple[float | None, ...]  # None: the source text lost this cell


@dataclass(frozen=True)
class PublishedTable:
    """One table of the paper.

    Args:
        number: number of the table; 4 is 'Table 4'.
        caption: the paper's caption, shortened to what was run.
        columns: headings; the mean, std and min of an error are three columns.
        lower_is_better: whether the best number of a column is the smallest.
        labels: canonical method -> the row's label in the paper, in the paper's order.
        rows: canonical method -> the row's numbers.
    """

    number: int
    caption: str
    columns: tuple[str, ...]
    lower_is_better: bool
    labels: Mapping[str, str]
    rows: Mapping[str, Row]


def _table(
    number: int,
    caption: str,
    columns: tuple[str, ...],
    rows: dict[str, Row],
    labels: dict[str, str],
    lower_is_better: bool = True,
) -> PublishedTable:
    used = {method: labels[method] for method in rows}
    return PublishedTable(
        number, caption, columns, lower_is_better, MappingProxyType(used), MappingProxyType(rows)
    )


_TABLES = (
    _table(
        1,
        "Weight treatments, validation error (%), ResNet-50 on CIFAR100, 10 runs",
        _CIFAR100,
        {
            "svd": (19.99, 0.16, None),
            "svd+sn": (19.94, 0.33, 19.60),
            "svd+ol": (19.73, 0.28, None),
            "svd+ow": (20.06, 0.17, 19.94),
            "ns": (19.45, 0.33, 19.01),
        },
        _LABELS,
    ),
    _table(
        2,
        "Gradient and weight treatments, validation error (%), ResNet-50 on CIFAR100, 10 runs",
        _CIFAR100,
        {
            "svd": (19.99, 0.16, 19.80),
            "svd+nog": (None, None, 19.15),
            "svd+nog+sn": (None, None, 19.20),
            "svd+nog+ol": (20.14, 0.39, 19.54),
            "svd+nog+ow": (19.22, 0.28, 18.90),
            "ns": (19.45, 0.33, 19.01),
        },
        _LABELS,
    ),
    _table(
        3,
        "Optimal learning rate and hybrids, validation error (%), ResNet-50 on CIFAR100, 10 runs",
        _CIFAR100,
        {
            "svd": (19.99, 0.16, 19.80),
            "svd+olr": (19.50, 0.39, 18.95),
            "svd+nog+olr": (19.77, 0.27, 19.36),
            "svd+ow+olr": (20.61, 0.22, 20.43),
            "svd+nog+ow+olr": (19.05, 0.31, 18.77),
            "ns": (19.45, 0.33, 19.01),
        },
        _LABELS,
    ),
    _table(
        4,
        "Decorrelated BN, validation error (%), ResNet-50 on CIFAR10 and CIFAR100, 10 runs",
        _BOTH,
        {
            "svd": (4.35, 0.09, 4.17, 19.99, 0.16, 19.80),
            "svd+sn": (4.31, 0.10, 4.15, 19.94, 0.33, 19.60),
            "svd+ol": (4.28, 0.07, 4.23, 19.73, 0.28, 19.54),
            "svd+ow": (None, None, None, 20.06, 0.17, 19.94),
            "svd+nog": (None,) * 6,
            "svd+olr": (None,) * 6,
            "svd+nog+ow": (4.09, 0.07, 4.01, 19.22, 0.28, 18.90),
            "svd+nog+ow+olr": (3.93, 0.09, 3.85, 19.05, 0.31, 18.77),
            "ns": (4.20, 0.11, 4.11, 19.45, 0.33, 19.01),
        },
        _LONG_LABELS,
    ),
    _table(
        5,
        "GCP methods: SVD failures in one training, accuracy (%), ResNet-18 on ImageNet",
        ("Failure Times", "Top-1 Acc. (%)", "Top-5 Acc. (%)"),
        {
            "svd": (5, 73.13, 91.02),
            "svd+sn": (2, 73.28, 91.11),
            "svd+ol": (1, 71.75, 90.20),
            "svd+ow": (2, 73.07, 90.93),
            "svd+nog": (1, 73.51, 91.35),
            "svd+olr": (0, 73.39, 91.26),
            "svd+nog+ow": (0, 73.71, 91.43),
            "svd+nog+ow+olr": (0, 73.82, 91.57),
            "ns": (0, 73.36, 90.96),
        },
        _LONG_LABELS,
        lower_is_better=False,
    ),
    _table(
        6,
        "Time of forward (FP) and backward pass (BP), ResNet-50 on CIFAR100, one RTX A6000",
        ("FP (ms)", "BP (ms)"),
        {
            "svd": (44, 95),
            "svd+nog": (44, 97),
            "svd+olr": (None, 96),
            "svd+ow": (48, 102),
            "svd+nog+ow+olr": (49, 106),
            "ns": (43, 93),
            "bn": (42, 90),
        },
        _COST_LABELS,
    ),
)
PAPER_TABLES: Mapping[int, PublishedTable] = MappingProxyType(
    {table.number: table for table in _TABLES}
)


@dataclass(frozen=True)
class Published:
    """One number that the paper prints, with its table, row and column."""

    table: int
    row: str
    column: str
    value: float

    def __str__(self) -> str:
        return f"{self.value:g} (Table {self.table}, {self.row}, {self.column})"


def published(table: int, method: str, column: str) -> Published | None:
    """Return a number of the paper, or None where the table has no such row or the cell was lost.

    Args:
        table: 1 to 6.
        method: canonical spelling, as in ``str(Method.parse("nog"))``.
        column: one of ``PAPER_TABLES[table].columns``.

    Raises:
        UserError: the paper has no such table, or the table has no such column.

    Example:
        >>> print(published(3, "svd+olr", "CIFAR100 mean"))
        19.5 (Table 3, SVD + OLR, CIFAR100 mean)
        >>> print(published(2, "svd+nog", "CIFAR100 mean"))
        None
    """
    if table not in PAPER_TABLES:
        raise UserError(f"the paper has tables 1 to {len(PAPER_TABLES)}, got {table}")
    source = PAPER_TABLES[table]
    if column not in source.columns:
        raise UserError(f"Table {table} has columns {', '.join(source.columns)}, got {column!r}")
    if method not in source.rows:
        return None
    value = source.rows[method][source.columns.index(column)]
    return None if value is None else Published(table, source.labels[method], column, value)


@dataclass(frozen=True)
class StatedKappa:
    """Order of magnitude of the covariance's condition number, as the paper's text states it."""

    task: str
    method: str
    value: float
    place: str


STATED_KAPPAS = (
    StatedKappa("dbn", "svd", 1e12, "Sec. 1"),
    StatedKappa("dbn", "ns", 1e5, "Sec. 1"),
    StatedKappa("dbn", "bn", 1e3, "Sec. 1"),
    StatedKappa("dbn", "svd+sn", 1e5, "Sec. 4.2"),
    StatedKappa("dbn", "svd+ow", 1e3, "Sec. 4.2"),
    StatedKappa("dbn", "svd+nog", 1e6, "Sec. 5.1"),
    StatedKappa("dbn", "svd+olr", 1e4, "Sec. 5.2"),
    StatedKappa("gcp", "svd", 1e16, "Sec. 1"),
    StatedKappa("gcp", "ns", 1e15, "Sec. 1"),
)
