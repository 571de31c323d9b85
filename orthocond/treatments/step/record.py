"""The record of a treated step."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property

from torch import Tensor

from orthocond.host import double
from orthocond.spectral.spectra import singular_values


def _kappa(G: Tensor) -> float:
    if not G.isfinite().all():
        return math.nan
    s = singular_values(double(G))
    return (s.max() / s.min()).item()


@dataclass(frozen=True)
class Last:
    """Record of the last step that had a gradient to treat.

    Args:
        eta: learning rate that the rule of OLR found; None without a rule.
        eta_used: whether the step was taken with eta; None without a rule, as with ``muon``.
        finite: whether the gradient was finite. One that is not finite is not treated; the training
            loop must deal with it.
    """

    eta: float | None
    eta_used: bool | None
    finite: bool
    _before: Tensor = field(repr=False)
    _after: Tensor = field(repr=False)

    @cached_property
    def gradient_kappa_before(self) -> float:
        """Condition number (largest over smallest singular value) of the untreated gradient.

        It is NaN if the gradient is not finite.
        """
        return _kappa(self._before)

    @cached_property
    def gradient_kappa_after(self) -> float:
        """Condition number of the gradient that the optimizer got; NaN if it is not finite."""
        return _kappa(self._after)
