"""Numbers as texts for people: three significant digits, and commas between thousands."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any

LARGE, SMALL = 1e7, 1e-3  # from and below which a number has a power of ten


def readable(value: float) -> str:
    """Return a number with three significant digits; whole digits are never dropped.

    Example:
        >>> [readable(value) for value in (99513.8, 184.9, 95.37, 1.0, 0.01234, 7e-05)]
        ['99,514', '185', '95.4', '1.00', '0.0123', '7.0e-05']
    """
    size = abs(float(f"{value:.2e}"))  # 9.996 is 10.0: it has one digit less after the point
    if size and not SMALL <= size < LARGE:
        return f"{value:.1e}"
    digits = 2 - math.floor(math.log10(size)) if size else 0
    return f"{value:,.{max(0, digits)}f}"


def readable_cell(cell: Any) -> Any:
    """Return the text of a table's cell: numbers as ``readable``, whole numbers in full.

    A missing number is empty. Texts and truth values stay as they are.

    Example:
        >>> [readable_cell(cell) for cell in (50000, 0.5, float("nan"), None, "eigh", True)]
        ['50,000', '0.500', '', '', 'eigh', True]
    """
    if cell is None:
        return ""
    if isinstance(cell, bool) or not isinstance(cell, Real):
        return cell
    if math.isnan(cell):
        return ""
    return f"{cell:,}" if isinstance(cell, Integral) else readable(float(cell))
