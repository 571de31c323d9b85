"""How the decompositions of a layer ended, counted where training and people can see them."""

from __future__ import annotations

from torch import Tensor

from orthocond.spectral.eigh import Outcome


class SpectralOutcomes:
    """Counters of the decompositions that did not simply succeed.

    Attributes:
        failures: matrices whose first attempt did not converge, or that held NaN or Inf.
        unrecovered: those of them that no retry could save either.

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
        """Add the outcomes (...) of a batch of matrices, as ``spectral.eigh`` records them."""
        self.failures += int((outcome != Outcome.OK).sum())
        self.unrecovered += int((outcome == Outcome.FAILED).sum())

    def reset(self) -> None:
        """Start again at zero."""
        self.failures = self.unrecovered = 0

    def __repr__(self) -> str:
        return f"SpectralOutcomes(failures={self.failures}, unrecovered={self.unrecovered})"
