"""Numbers of a table as texts: how many digits, which signs, and what stands for the spread."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from orthocond.report.readable import readable

EFFECTS = {
    "svd+nog": "NOG",
    "svd+olr": "OLR",
    "svd+ow": "OW",
    "svd+nog+ow+olr": "NOG + OW + OLR",
}
"""Statistics that are effects of a method against plain SVD, by method: shown with their sign."""

WHOLE = (
    *("n", "rank", "failures", "Failure Times", "unrecovered", "FP (ms)", "BP (ms)"),
    *("images", "steps"),
)
"""Statistics shown without trailing zeros."""

SIGNED = ("difference",)
"""Statistics shown with their sign, also where it is a plus."""

P_VALUE = "p (Holm)"
"""The statistic shown with two significant digits."""

PERCENT = ("train (%)", "test (%)", "gap")
"""Statistics shown with one decimal place."""

MILLISECONDS = ("FP (ms)", "BP (ms)")
"""Statistics shown with three significant digits."""

MAGNITUDES = ("kappa", "kappa_support", "kappa_eps")
"""Statistics shown with two significant digits and a power of ten."""


def cell_text(numbers: Sequence[float], name: str, plus_minus: str) -> str:
    """Return the text of a cell.

    Args:
        numbers: the number and its spread: nothing, a standard deviation, or the ends of an
            interval, which are NaN where they are unknown.
        name: the statistic.
        plus_minus: the sign ± as the target format spells it.

    Example:
        >>> cell_text([1.25, 0.5], "error", "±"), cell_text([0.04, -0.1, 0.2], "NOG", "±")
        ('1.25 ± 0.50', '+0.0 [-0.1, +0.2]')
    """
    value, *spread = numbers
    if name in MAGNITUDES:
        return f"{value:.1e}"
    if name == P_VALUE:
        return f"{value:.2g}"
    if name in MILLISECONDS and spread:
        return f"{readable(value)} [{', '.join(map(readable, spread))}]"
    form = "+z.1f" if name in EFFECTS.values() else "+z.2f" if name in SIGNED else ".2f"
    form = "z.1f" if name in PERCENT else form
    text = _whole(value) if name in WHOLE and not spread else f"{value:{form}}"
    if not spread or np.isnan(spread).any():
        return text
    if len(spread) == 1:
        return f"{text} {plus_minus} {spread[0]:.2f}"
    form = form.replace("z", "")  # an end that is rounded to -0.0 tells the side of 0
    return f"{text} [{spread[0]:{form}}, {spread[1]:{form}}]"


def _whole(value: float) -> str:
    return f"{value:,.0f}" if value == round(value) else readable(value)
