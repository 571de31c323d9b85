"""Counters of failed decompositions, which each spectral layer shows in its ``outcomes``."""

from __future__ import annotations

from torch import Tensor

from orthocond.spectral.eigh import Outcome


class SpectralOutcomes:
    """Counters of the matrices whose decomposition failed at the first attempt.

    Attributes:
        failures: number of matrices that held NaN or Inf, or whose first attempt did not converge.
        unrecovered: number of these matrices for which every retry failed too.

    Example:
        >>> outcomes = SpectralOutcomes()
        >>> outcomes.count(torch.tensor([Outcome.OK, Outcome.RETRIED, Outcome.FAILED]))
        >>> outcomes
        SpectralOutcomes(failures=2, unrecovered=1)
    """

    failures: int
    unrecovered: int

    def __init__(self) -> None:
        self.reset()

    def count(self, outcome: Tensor) -> None:
        """Count the outcomes (...) of a batch of matrices, int8 values of ``Outcome``."""
        self.failures += int((outcome != Outcome.OK).sum())
        self.unrecovered += int((outcome == Outcome.FAILED).sum())

    def reset(self) -> None:
        """Set both counters to zero."""
        self.failures = self.unrecovered = 0

    def __repr__(self) -> str:
        return f"SpectralOutcomes(failures={self.failures}, unrecovered={self.unrecovered})"
