"""The record of a treated step."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor


def _kappa(G: Tensor) -> float:
    if not G.isfinite().all():  # LAPACK would raise
        return math.nan
    s = torch.linalg.svdvals(G.double())
    return (s.max() / s.min()).item()


@dataclass(frozen=True)
class Last:
    """What happened in the last step that had a gradient to treat.

    Args:
        eta: the learning rate that the rule found; None without one.
        eta_used: whether the step was taken with it; None without a rule.
        finite: whether the gradient was; one that is not is left to the training loop as it is.
    """

    eta: float | None
    eta_used: bool | None
    finite: bool
    _before: Tensor = field(repr=False)
    _after: Tensor = field(repr=False)

    @cached_property
    def gradient_kappa_before(self) -> float:
        """Largest over smallest singular value of the gradient as it came, NaN if not finite."""
        return _kappa(self._before)

    @cached_property
    def gradient_kappa_after(self) -> float:
        """The same of the gradient that the optimizer got."""
        return _kappa(self._after)
