"""Factors, outcomes and injected faults of the eigendecomposition."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import by_condition

from orthocond.spectral.eigh import DecompositionError, Outcome, eigh


@given(
    st.integers(1, 12),
    st.sampled_from([1.0, 1e3, 1e12]),
    st.sampled_from([1e-12, 1.0, 1e12]),
    st.sampled_from([torch.float32, torch.float64]),
    st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_factors_rebuild_the_matrix(d, kappa, scale, dtype, seed):
    P = by_condition(d, kappa, scale, seed).to(dtype)
    l, U, outcome = eigh(P)
    tolerance = 4 * d * torch.finfo(torch.float64).eps
    identity = torch.eye(d, dtype=torch.float64)
    symmetrised = (P.double() + P.double().mT) / 2
    assert outcome == Outcome.OK and outcome.dtype == torch.int8 and l.dtype == torch.float64
    assert (l.diff() >= 0).all()
    assert torch.dist(U @ torch.diag(l) @ U.mT, symmetrised) <= tolerance * symmetrised.norm()
    assert torch.dist(U.mT @ U, identity) <= tolerance * d


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), -float("inf")])
def test_a_poisoned_matrix_fails_alone(poison):
    P = torch.eye(3).repeat(2, 2, 1, 1)
    P[1, 0, 2, 2] = poison
    result = eigh(P)
    assert result.outcome.tolist() == [[Outcome.OK, Outcome.OK], [Outcome.FAILED, Outcome.OK]]
    assert result.values.isfinite().all() and result.vectors.isfinite().all()
    assert result.values[1, 0].tolist() == [0, 0, 0]
    with pytest.raises(
        DecompositionError,
        match=r"^1 of 4 matrices could not be decomposed: they hold NaN or Inf, or no driver "
        r"converged; check the features before the covariance$",
    ):
        eigh(P, strict=True)


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
@pytest.mark.parametrize(
    ("refusals", "expected"),
    [(0, Outcome.OK), (1, Outcome.OK), (2, Outcome.RETRIED), (3, Outcome.RETRIED)],
)
def test_a_driver_that_refuses_is_retried(monkeypatch, refusals, expected, scale):
    calls, lapack = iter(range(99)), torch.linalg.eigh

    def refuse(P):
        if next(calls) < refusals:
            raise torch.linalg.LinAlgError("did not converge")
        return lapack(P)

    monkeypatch.setattr(torch.linalg, "eigh", refuse)
    P = scale * (by_condition(5, 10.0, 1.0, 0) - 0.3 * torch.eye(5))  # eigenvalues of both signs
    l, U, outcome = eigh(P)
    assert outcome == expected
    assert torch.dist(U @ torch.diag(l) @ U.mT, P) < 1e-11 * scale


def test_a_driver_that_returns_nan_is_caught(monkeypatch):
    lapack = torch.linalg.eigh

    def silent(P):
        values, vectors = lapack(P)
        return values * float("nan"), vectors

    monkeypatch.setattr(torch.linalg, "eigh", silent)
    assert eigh(torch.eye(3)).outcome == Outcome.RETRIED


def test_mixed_singular_vectors_are_not_taken_for_eigenvectors(monkeypatch):
    def refuse(P):
        raise torch.linalg.LinAlgError("did not converge")

    monkeypatch.setattr(torch.linalg, "eigh", refuse)
    P = torch.tensor([[0.0, 1.0], [1.0, 0.0]])  # eigenvalues 1 and -1, equal singular values
    l, U, outcome = eigh(P)
    rebuilt = torch.dist(U @ torch.diag(l) @ U.mT, P.double()) < 1e-10
    assert outcome == Outcome.FAILED or rebuilt
    factors = torch.eye(2).double(), torch.ones(2).double(), P.double()  # U S V^T = P all the same
    monkeypatch.setattr(torch.linalg, "svd", lambda _: factors)
    assert eigh(P).outcome == Outcome.FAILED


def test_the_jitter_alone_saves_a_matrix_of_any_size(monkeypatch):
    refusals, lapack = iter("12"), torch.linalg.eigh  # of the batch, and of its one matrix

    def refuse(P):
        if next(refusals, None):
            raise torch.linalg.LinAlgError("did not converge")
        return lapack(P)

    monkeypatch.setattr(torch.linalg, "eigh", refuse)
    monkeypatch.setattr(torch.linalg, "svd", pytest.fail)
    P = by_condition(5, 10.0, 1e100)  # beyond float32
    l, U, outcome = eigh(P)
    assert outcome == Outcome.RETRIED
    assert torch.dist(U @ torch.diag(l) @ U.mT, P) < 1e-11 * 1e100


def test_singular_vectors_of_a_null_space_may_be_any(monkeypatch):
    def refuse(P):
        raise torch.linalg.LinAlgError("did not converge")

    monkeypatch.setattr(torch.linalg, "eigh", refuse)
    assert eigh(torch.zeros(3, 3)).outcome == Outcome.RETRIED
    P = torch.diag(torch.tensor([2.0, 0.0, 0.0])).double()
    U = torch.eye(3).double()
    crossed = U, P.diagonal(), U[[0, 2, 1]]  # <u, v> = 0 on the null space, and U S V^T = P
    monkeypatch.setattr(torch.linalg, "svd", lambda _: crossed)
    l, U, outcome = eigh(P)
    assert outcome == Outcome.RETRIED and l.tolist() == [0, 0, 2]
    assert torch.equal(U @ torch.diag(l) @ U.mT, P)


def test_when_everything_refuses_the_outcome_says_so(monkeypatch):
    def refuse(*args):
        raise torch.linalg.LinAlgError("did not converge")

    monkeypatch.setattr(torch.linalg, "eigh", refuse)
    monkeypatch.setattr(torch.linalg, "svd", refuse)
    result = eigh(torch.eye(3).repeat(2, 1, 1))
    assert result.outcome.tolist() == [Outcome.FAILED] * 2
    assert result.vectors.isfinite().all()


def test_an_empty_batch_stays_empty():
    l, U, outcome = eigh(torch.zeros(2, 0, 3, 3))
    assert (l.shape, U.shape, outcome.shape) == ((2, 0, 3), (2, 0, 3, 3), (2, 0))


def test_bad_shapes_are_named():
    for shape in [(3,), (2, 3), (0, 0)]:
        with pytest.raises(ValueError, match="square matrices"):
            eigh(torch.zeros(shape))
