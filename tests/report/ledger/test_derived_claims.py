from __future__ import annotations

import torch

from orthocond.report.ledger import derived_claims
from orthocond.report.ledger.claims import CLAIMS
from orthocond.report.ledger.derived_claims import Derived

HOLD = {
    "bias_has_no_influence",
    "orthogonal_weight_is_best",
    "exponential_is_orthogonal",
    "skew_convolution_is_orthogonal",
    "polar_factor_is_nearest",
    "gradient_has_kappa_one",
    "singular_vectors_are_kept",
    "rule_is_unbounded",
    "upper_bound_holds",
    "inference_is_unchanged",
}
"""What the book derives; of the others it derives the contrary."""


def test_every_witness_agrees_with_the_derivation_in_the_book() -> None:
    checks = {
        part.check.__name__: part.check()
        for claim in CLAIMS
        for part in claim.parts
        if isinstance(part, Derived)
    }
    assert {name for name, holds in checks.items() if holds} == HOLD
    assert len(checks) == 20


def test_the_witnesses_leave_the_random_state_alone() -> None:
    before = torch.random.get_rng_state()
    derived_claims.skew_convolution_is_orthogonal.check()
    assert torch.equal(torch.random.get_rng_state(), before)
