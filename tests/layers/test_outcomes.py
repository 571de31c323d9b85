"""The counters of a layer's decompositions."""

import torch

from orthocond.layers.outcomes import SpectralOutcomes
from orthocond.spectral.eigh import eigh


def test_failures_are_counted_until_they_are_reset():
    outcomes = SpectralOutcomes()
    P = torch.eye(2).repeat(3, 2, 1, 1)
    outcomes.count(eigh(P).outcome)
    assert (outcomes.failures, outcomes.unrecovered) == (0, 0)
    P[0, 1] = P[2, 1] = float("nan")
    for _ in range(2):
        outcomes.count(eigh(P).outcome)
    outcomes.count(torch.tensor(1, dtype=torch.int8))
    assert repr(outcomes) == "SpectralOutcomes(failures=5, unrecovered=4)"
    outcomes.reset()
    assert (outcomes.failures, outcomes.unrecovered) == (0, 0)
