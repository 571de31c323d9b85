"""Functions that turn the paper's usual phrases ("better", "best", ...) into criteria."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from orthocond.report.ledger.criteria import Compared
from orthocond.report.ledger.verdicts import ABOVE, BELOW, HALF_DECADE, MARGIN, TENTH

WEIGHTS = ("svd+sn", "svd+ol", "svd+ow")
HYBRIDS = ("svd+nog+ow", "svd+nog+olr", "svd+ow+olr")
ALL = "svd+nog+ow+olr"


def better(method: str, baseline: str = "svd", **more: Any) -> Compared:
    """Return the criterion that the method has a smaller error than the baseline."""
    return Compared(method, baseline, "error", BELOW, **more)


def worse(method: str, baseline: str = "svd", **more: Any) -> Compared:
    """Return the criterion that the method has a larger error than the baseline."""
    return Compared(method, baseline, "error", ABOVE, **more)


def no_better(method: str, baseline: str = "svd", **more: Any) -> Compared:
    """Return the criterion that the method's error is not smaller by ``MARGIN`` or more."""
    return Compared(method, baseline, "error", ABOVE, bound=-MARGIN, **more)


def no_worse(method: str, baseline: str = "svd", **more: Any) -> Compared:
    """Return the criterion that the method's error is not larger by ``MARGIN`` or more."""
    return Compared(method, baseline, "error", BELOW, bound=MARGIN, **more)


def conditioned(method: str, baseline: str = "svd", **more: Any) -> Compared:
    """Return the criterion that kappa on the support is smaller by ``TENTH`` or more."""
    return Compared(method, baseline, "support", BELOW, bound=-TENTH, **more)


def ill_conditioned(method: str, baseline: str = "svd", **more: Any) -> Compared:
    """Return the criterion that kappa on the support is larger by ``TENTH`` or more."""
    return Compared(method, baseline, "support", ABOVE, bound=TENTH, **more)


def no_better_conditioned(method: str, baseline: str, **more: Any) -> Compared:
    """Return the criterion that kappa on the support is not smaller by half a decade."""
    return Compared(method, baseline, "support", ABOVE, bound=-HALF_DECADE, **more)


def best(method: str, others: Iterable[str], **more: Any) -> tuple[Compared, ...]:
    """Return the criteria that the method has a smaller error than each of the others."""
    return tuple(better(method, other, **more) for other in others)


def best_conditioned(method: str, others: Iterable[str], **more: Any) -> tuple[Compared, ...]:
    """Return the criteria that the method has a smaller kappa than each of the others."""
    return tuple(conditioned(method, other, **more) for other in others)
