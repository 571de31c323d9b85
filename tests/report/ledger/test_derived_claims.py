from __future__ import annotations

import pytest
import torch

from orthocond.report.ledger import derived_claims
from orthocond.report.ledger.claims import CLAIMS
from orthocond.report.ledger.derived_claims import Derived

HOLD = {
    "bias_has_no_influence",
    "normalization_gives_norm_one",
    "orthogonal_weight_is_best",
    "norm_is_preserved",
    "exponential_is_orthogonal",
    "skew_convolution_is_orthogonal",
    "polar_factor_is_nearest",
    "gradient_is_orthogonal",
    "gradient_has_kappa_one",
    "singular_vectors_are_kept",
    "rule_is_unbounded",
    "unswitched_rule_does_not_settle",
    "rule_is_bounded",
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
    assert len(checks) == 24


def test_the_numbers_in_words_are_those_of_a_new_stem() -> None:
    torch.manual_seed(1)
    W = torch.nn.Conv2d(3, 64, 3).weight.flatten(1)
    assert "wᵀw is 21" in derived_claims.orthogonal_gradient_outweighs_the_weight.statement
    assert (W * W).sum().item() == pytest.approx(64 * 27 / 81, rel=0.05)  # uniform: 1 / (3 * 27)


def test_the_witnesses_leave_the_random_state_alone() -> None:
    before = torch.random.get_rng_state()
    derived_claims.skew_convolution_is_orthogonal.check()
    derived_claims.orthogonal_gradient_outweighs_the_weight.check()
    assert torch.equal(torch.random.get_rng_state(), before)
