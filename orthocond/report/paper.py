"""Numbers that the paper published, by table, row and column.

The paper is Song, Sebe, Wang: Improving Covariance Conditioning of the SVD Meta-layer by
Orthogonality, ECCV 2022. Our source of its text lacks some cells. They are absent here, even where
another table or a sentence suggests their value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from orthocond.errors import UserError

PUBLISHED = "https://www.ecva.net/papers/eccv_2022/papers_ECCV/html/2041_ECCV_2022_paper.php"
"""Address of the published paper, which has all cells."""

ERROR = ("mean", "std", "min")  # statistics of the validation error in percent, over ten runs

_LONG = {
    "svd+sn": "SVD + Spectral Norm (SN)",
    "svd+ol": "SVD + Orthogonal Loss (OL)",
    "svd+ow": "SVD + Orthogonal Weight (OW)",
    "svd+nog": "SVD + Nearest Orthogonal Gradient (NOG)",
    "svd+olr": "SVD + Optimal Learning Rate (OLR)",
}
_COST = {"svd+nog+ow+olr": "SVD + OW + NOG + OLR", "bn": "Vanilla ResNet-50"}

_CIFAR100 = tuple(f"CIFAR100 {statistic}" for statistic in ERROR)
_BOTH = (*(f"CIFAR10 {statistic}" for statistic in ERROR), *_CIFAR100)

Row = tuple[float | None, ...]  # None: our source text lacks this cell


@dataclass(frozen=True)
class PublishedTable:
    """One table of the paper.

    Args:
        caption: the paper's caption, shortened to what was run.
        columns: headings; the mean, std and min of an error are three columns.
        rows: canonical method -> the row's numbers, in the paper's order.
        names: canonical method -> the row's name in the paper, where ours is shorter or another.
    """

    caption: str
    columns: tuple[str, ...]
    rows: Mapping[str, Row]
    names: Mapping[str, str]


PAPER_TABLES: Mapping[int, PublishedTable] = {
    1: PublishedTable(
        "Weight treatments, validation error (%), ResNet-50 on CIFAR100, 10 runs",
        _CIFAR100,
        {
            "svd": (19.99, 0.16, None),
            "svd+sn": (19.94, 0.33, 19.60),
            "svd+ol": (19.73, 0.28, None),
            "svd+ow": (20.06, 0.17, 19.94),
            "ns": (19.45, 0.33, 19.01),
        },
        {},
    ),
    2: PublishedTable(
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
        {},
    ),
    3: PublishedTable(
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
        {},
    ),
    4: PublishedTable(
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
        _LONG,
    ),
    5: PublishedTable(
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
        _LONG,
    ),
    6: PublishedTable(
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
        _COST,
    ),
}


def published(table: int, method: str, column: str) -> float | None:
    """Return a number of the paper, or None for an unknown row or a cell that our source lacks.

    Args:
        table: 1 to 6.
        method: canonical spelling, as in ``str(Method.parse("nog"))``.
        column: one of ``PAPER_TABLES[table].columns``.

    Raises:
        UserError: the paper has no such table, or the table has no such column.

    Example:
        >>> published(3, "svd+olr", "CIFAR100 mean")
        19.5
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
    return source.rows[method][source.columns.index(column)]


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
