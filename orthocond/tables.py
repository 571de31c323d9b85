"""The tables of a run: their columns, and their one way to be written as CSV.

Numbers have 9 significant digits, what is missing is blank, infinity is ``inf``. What is read and
written again is the same bytes. Tables may gain columns: one that an older file lacks reads as
blank.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping
from numbers import Integral
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

Table = list[dict[str, Any]]

METRICS = (
    "epoch",
    "step",
    "lr",
    "train_loss",
    "train_penalty",
    "train_top1",
    "eval_loss",
    "eval_top1",
    "eval_top5",
    "recalibrated_loss",
    "recalibrated_top1",
    "recalibrated_top5",
    "failures",
    "unrecovered",
    "eta",
    "eta_used",
    "sv_min",
    "sv_max",
)
TIMINGS = ("epoch", "seconds", "images_per_second", "eval_seconds", "peak_memory_mb")
_FIELDS = (
    "kappa",
    "negative",
    "kappa_eps",
    "rank",
    "kappa_support",
    "effective_rank",
    "stable_rank",
    "lambda_max",
)
CONDITIONING = (
    "phase",
    "epoch",
    "step",
    "samples",
    *(column for field in _FIELDS for column in (field, f"{field}_min", f"{field}_max")),
    "rank_tol",
    "structural_rank",
)
TABLES = {"metrics": METRICS, "timings": TIMINGS, "conditioning": CONDITIONING}
TEXT = ("phase",)  # the columns that are no numbers
ADDED: frozenset[str] = frozenset()
"""Columns that format 1 does not have: files without them are older, not damaged."""
MAX_CSV = 128 << 20  # bytes


def _cell(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return str(int(value)) if isinstance(value, Integral) else f"{float(value):.9g}"


def to_csv(columns: Iterable[str], rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Rows as CSV.

    Raises:
        ValueError: a row has a key that is no column.

    Example:
        >>> to_csv(("step", "loss", "eta"), [{"step": 1, "loss": 1 / 3}])
        b'step,loss,eta\\n1,0.333333333,\\n'
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, list(columns), restval=None, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: _cell(value) for key, value in row.items()})
    return text.getvalue().encode()


def _header(columns: tuple[str, ...], data: bytes) -> list[str]:
    """Return the columns of a file: all of them in order, or all but some that were added."""
    line, newline, _ = data[: len(",".join(columns)) + 1].partition(b"\n")
    named = line.decode(errors="replace").split(",")
    if not newline or named != [c for c in columns if c in named or c not in ADDED]:
        raise ValueError(f"does not begin with the columns {','.join(columns)}")
    return named


def _cells(columns: tuple[str, ...], data: bytes) -> list[list[str]]:
    """The cells below the header, one in each row for each of the columns."""
    named = _header(columns, data)
    try:
        rows = list(csv.reader(io.StringIO(data.decode(), newline="")))[1:]
    except (ValueError, csv.Error) as error:
        raise ValueError(f"is not a table: {error}") from None
    if any(len(row) != len(named) for row in rows):
        raise ValueError(f"is not a table: not every row has {len(named)} cells")
    if len(named) == len(columns):
        return rows
    places = [named.index(column) if column in named else None for column in columns]
    return [["" if i is None else row[i] for i in places] for row in rows]


def _value(column: str, cell: str) -> str | int | float | None:
    if column in TEXT or not cell:
        return cell or None
    # -0 is a float: an int would lose its sign, and with it the bytes of a resumed run.
    return int(cell) if re.fullmatch(r"0|-?[1-9]\d{,17}", cell) else float(cell)


def from_csv(columns: tuple[str, ...], data: bytes) -> Table:
    """The rows that ``to_csv`` wrote.

    Raises:
        ValueError: it is not such a table.

    Example:
        >>> from_csv(("step", "eta"), b"step,eta\\n1,\\n2,inf\\n")
        [{'step': 1, 'eta': None}, {'step': 2, 'eta': inf}]
    """
    rows = _cells(columns, data)
    try:
        return [{c: _value(c, cell) for c, cell in zip(columns, row, strict=True)} for row in rows]
    except ValueError as error:
        raise ValueError(f"is not a table: {error}") from None


def to_frame(columns: tuple[str, ...], data: bytes) -> pd.DataFrame:
    """The same as a DataFrame, every number a float and NaN where it is blank.

    Raises:
        ValueError: it is not such a table.
    """
    import numpy as np
    import pandas as pd

    cells = np.array(_cells(columns, data), dtype=object).reshape(-1, len(columns))
    cells[cells == ""] = np.nan
    try:
        return pd.DataFrame(
            {
                column: pd.Series(cells[:, i], dtype="str" if column in TEXT else "float64")
                for i, column in enumerate(columns)
            }
        )
    except ValueError as error:
        raise ValueError(f"is not a table: {error}") from None
