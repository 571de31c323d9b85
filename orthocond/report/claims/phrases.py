"""The phrases that the paper's claims are made of, as criteria."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from orthocond.report.criteria import Compared
from orthocond.report.verdicts import ABOVE, BELOW, KAPPA_MARGIN, MARGIN

WEIGHTS = ("svd+sn", "svd+ol", "svd+ow")
HYBRIDS = ("svd+nog+ow", "svd+nog+olr", "svd+ow+olr")
ALL = "svd+nog+ow+olr"
WIDE = 11  # pixels: the receptive field of the skew orthogonal convolution


def better(method: str, baseline: str = "svd", **more: Any) -> Compared:
    """It has the smaller error."""
    return Compared(method, baseline, "error", BELOW, **more)


def worse(method: str, baseline: str = "svd", **more: Any) -> Compared:
    """It has the larger error."""
    return Compared(method, baseline, "error", ABOVE, **more)


def no_better(method: str, baseline: str = "svd", **more: Any) -> Compared:
    """Its error is not smaller by as much as counts."""
    return Compared(method, baseline, "error", ABOVE, bound=-MARGIN, **more)


def no_worse(method: str, baseline: str = "svd", **more: Any) -> Compared:
    """Its error is not larger by as much as counts."""
    return Compared(method, baseline, "error", BELOW, bound=MARGIN, **more)


def conditioned(method: str, baseline: str = "svd", **more: Any) -> Compared:
    """Its covariance has the smaller condition number, on the support."""
    return Compared(method, baseline, "support", BELOW, **more)


def ill_conditioned(method: str, baseline: str = "svd", **more: Any) -> Compared:
    """Its covariance has the larger condition number, on the support."""
    return Compared(method, baseline, "support", ABOVE, **more)


def no_better_conditioned(method: str, baseline: str, **more: Any) -> Compared:
    """Its condition number is not smaller by half a decade."""
    return Compared(method, baseline, "support", ABOVE, bound=-KAPPA_MARGIN, **more)


def best(method: str, others: Iterable[str], **more: Any) -> tuple[Compared, ...]:
    """It has the smallest error of all."""
    return tuple(better(method, other, **more) for other in others)


def best_conditioned(method: str, others: Iterable[str], **more: Any) -> tuple[Compared, ...]:
    """Its covariance has the smallest condition number of all."""
    return tuple(conditioned(method, other, **more) for other in others)
