"""Counters of failed decompositions, which each spectral layer shows in its ``outcomes``."""

from __future__ import annotations

import torch
from torch import Tensor

from orthocond.layers.inference.evaluation import is_exported, outside_transforms
from orthocond.spectral.eigh import Outcome


def _count(outcome: Tensor) -> Tensor:
    """Return the numbers (2,) of matrices that failed at first, and that have no result."""
    failed = outcome == int(Outcome.FAILED)
    return torch.stack([(outcome != int(Outcome.OK)).sum(), failed.sum()])


class SpectralOutcomes:
    """Counters of the matrices whose decomposition failed at the first attempt.

    They are kept on the device of the matrices. Counting does not wait for the device; reading an
    attribute does. An exported graph does not count, nor does a pass over shapes only (meta and
    fake tensors). Inside of torch.func and torch.vmap all matrices of a batch count.

    Attributes:
        failures: number of matrices that held NaN or Inf, or whose first attempt did not converge,
            or for which the steps of the solver ``minimax`` were too few, or at which the function
            or its derivative does not exist.
        unrecovered: number of these matrices that have no usable result, because every retry failed
            too or the function does not exist.

    Example:
        >>> outcomes = SpectralOutcomes()
        >>> outcomes.count(torch.tensor([Outcome.OK, Outcome.RETRIED, Outcome.FAILED]))
        >>> outcomes
        SpectralOutcomes(failures=2, unrecovered=1)
    """

    def __init__(self) -> None:
        self._counts: dict[torch.device, Tensor] = {}  # (2,) on each device: the two attributes

    @torch.no_grad()
    def count(self, outcome: Tensor) -> None:
        """Count the outcomes (...) of a batch of matrices, int8 values of ``Outcome``."""
        if is_exported():
            return
        if torch.compiler.is_compiling():
            self._add(outcome)
        elif type(outcome) is Tensor and not outcome.is_meta:  # a fake count would be kept
            with outside_transforms(outcome) as plain:
                self._add(plain)

    def _add(self, outcome: Tensor) -> None:
        found = _count(outcome)
        if outcome.device not in self._counts:
            with torch.inference_mode(False):  # a counter made in it could not change outside it
                self._counts[outcome.device] = torch.zeros_like(found)
        self._counts[outcome.device] += found  # in place, so that a CUDA graph counts on replay

    @property
    def failures(self) -> int:
        """Number of matrices whose first attempt failed."""
        return sum(int(counts[0]) for counts in self._counts.values())

    @property
    def unrecovered(self) -> int:
        """Number of these matrices that have no usable result."""
        return sum(int(counts[1]) for counts in self._counts.values())

    def reset(self) -> None:
        """Set both counters to zero."""
        for counts in self._counts.values():
            counts.zero_()

    def __repr__(self) -> str:
        return f"SpectralOutcomes(failures={self.failures}, unrecovered={self.unrecovered})"
