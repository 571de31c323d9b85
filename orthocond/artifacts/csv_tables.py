"""The tables of a run: their columns, and their CSV format.

Numbers have 9 significant digits, a missing value is blank, and infinity is ``inf``. Reading a
table and writing it again gives the same bytes. A newer version may add columns; in an older file,
which lacks them, they read as blank.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping
from numbers import Integral
from typing import TYPE_CHECKING, Any

from orthocond.spectral.conditioning import CONSTANTS, MEASURED

if TYPE_CHECKING:
    import pandas as pd

Rows = list[dict[str, Any]]

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
    "train_eval_loss",
    "train_eval_top1",
    "train_eval_top5",
    "failures",
    "unrecovered",
    "eta",
    "eta_used",
    "sv_min",
    "sv_max",
)
TIMINGS = ("epoch", "seconds", "images_per_second", "eval_seconds", "peak_memory_mb")
CONDITIONING = (
    "phase",
    "epoch",
    "step",
    "samples",
    *(column for field in MEASURED for column in (field, f"{field}_min", f"{field}_max")),
    *CONSTANTS,
)
COLUMNS_OF = {"metrics": METRICS, "timings": TIMINGS, "conditioning": CONDITIONING}
"""Name of each table: its columns."""
TEXT = ("phase",)  # columns of text; all others hold numbers
ADDED = frozenset(
    (
        *("train_eval_loss", "train_eval_top1", "train_eval_top5"),
        *("kappa_common", "kappa_common_min", "kappa_common_max", "common_rank"),
    )
)
"""Columns added after format 1: a file without them is older, not damaged."""
MAX_CSV = 128 << 20  # bytes
DIGITS = 9  # significant digits of a number


def _cell(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return str(int(value)) if isinstance(value, Integral) else f"{float(value):.{DIGITS}g}"


def rounded(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row with its floats rounded to the digits that its file will have.

    Example:
        >>> rounded({"step": 1, "loss": 1 / 3, "eta": None})
        {'step': 1, 'loss': 0.333333333, 'eta': None}
    """
    return {k: float(_cell(v)) if isinstance(v, float) else v for k, v in row.items()}


def to_csv(columns: Iterable[str], rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Return rows as CSV.

    Raises:
        ValueError: a row has a key that is not a column.

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
    """Return the columns of a file: all columns in order, where columns in ``ADDED`` may be absent.

    Raises:
        ValueError: the file has other columns.
    """
    line, newline, _ = data[: len(",".join(columns)) + 1].partition(b"\n")
    named = line.decode(errors="replace").split(",")
    if not newline or named != [c for c in columns if c in named or c not in ADDED]:
        raise ValueError(f"does not begin with the columns {','.join(columns)}")
    return named


def _cells(columns: tuple[str, ...], data: bytes) -> list[list[str]]:
    """Return the cells below the header; each row has one cell per column.

    Raises:
        ValueError: the data is not such a table.
    """
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
    # -0 is read as a float: an int would lose the sign, and a resumed run would differ in bytes.
    return int(cell) if re.fullmatch(r"0|-?[1-9]\d{,17}", cell) else float(cell)


def from_csv(columns: tuple[str, ...], data: bytes) -> Rows:
    """Return the rows of a table that ``to_csv`` wrote.

    Raises:
        ValueError: the data is not such a table.

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
    """Return a table that ``to_csv`` wrote as a DataFrame: numbers as floats, blank cells as NaN.

    Raises:
        ValueError: the data is not such a table.
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
