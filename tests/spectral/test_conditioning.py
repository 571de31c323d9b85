"""Condition numbers against numpy, scipy and closed forms."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import entropy

from orthocond.errors import UserError
from orthocond.spectral.conditioning import (
    MEASURED,
    conditioning,
    covariance_eigenvalues,
    measures,
    rank_tolerance,
)


def spectrum(d: int, kappa: float, scale: float) -> np.ndarray:
    return scale * np.logspace(0, -np.log10(kappa), d)


def covariance(eigenvalues: np.ndarray, seed: int) -> torch.Tensor:
    d = len(eigenvalues)
    Q = np.linalg.qr(np.random.default_rng(seed).normal(size=(d, d)))[0]
    return torch.from_numpy((Q * eigenvalues) @ Q.T)


@given(
    st.integers(2, 24),
    st.sampled_from([1.0, 10.0, 1e4]),
    st.sampled_from([1e-12, 1.0, 1e12]),
    st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_full_rank_agrees_with_numpy_and_scipy(d, kappa, scale, seed):
    P = covariance(spectrum(d, kappa, scale), seed)
    record = conditioning(P, eps=0.1 * scale, structural_rank=d)
    l = np.linalg.eigvalsh(P.numpy())
    s = np.linalg.svd(P.numpy(), compute_uv=False)
    rounding = 1e-15 * d * kappa  # of the smallest eigenvalue, relative to itself
    assert record.kappa == pytest.approx(s[0] / s[-1], rel=4 * rounding + 1e-13)
    assert record.kappa_support == pytest.approx(record.kappa)
    shifted = np.linalg.cond(P.numpy() + 0.1 * scale * np.eye(d))
    assert record.kappa_eps == pytest.approx(shifted, rel=1e-9)
    assert record.rank == np.linalg.matrix_rank(P.numpy()) == record.dimension == d
    assert record.negative == 0
    assert record.effective_rank == pytest.approx(math.exp(entropy(l / l.sum())))
    assert record.stable_rank == pytest.approx(np.trace(P.numpy()) / l[-1])
    assert record.lambda_max == pytest.approx(np.linalg.norm(P.numpy(), 2))
    assert record.structural_rank == d


@pytest.mark.parametrize("d, rank", [(64, 27), (10, 1), (96, 63)])
def test_a_singular_covariance_has_a_rank_and_a_support(d, rank):
    l = np.concatenate([np.logspace(0, -5, rank), np.zeros(d - rank)])
    record = conditioning(covariance(l, 0))
    assert record.rank == rank
    assert record.kappa_support == pytest.approx(1e5 if rank > 1 else 1.0, rel=1e-8)
    assert record.kappa > 1e14  # the rounding noise, or inf
    # entropy of the support alone: zeros add nothing
    assert record.effective_rank == pytest.approx(math.exp(entropy(l[:rank])), rel=1e-10)


def test_eigenvalues_in_any_order_give_the_record_of_their_matrix():
    l = torch.tensor([2.0, -1e-17, 8.0, 4.0], dtype=torch.float64)
    record = conditioning(l, eps=1.0)
    assert (record.kappa, record.negative, record.rank) == (8.0 / 1e-17, 1, 3)
    assert (record.kappa_eps, record.kappa_support) == (9.0, 4.0)
    assert (record.stable_rank, record.lambda_max, record.dimension) == (14 / 8, 8.0, 4)
    assert conditioning(torch.diag(l), eps=1.0) == record
    assert conditioning(l).kappa_eps == measures(l, 1e-12)["kappa_eps"] == record.kappa


def test_kappa_takes_magnitudes_as_an_svd_does():
    l = torch.tensor([1.0, -4.0, 2.0], dtype=torch.float64)
    assert conditioning(l).kappa == np.linalg.cond(np.diag(l.numpy())) == 4.0


def test_one_eigenvalue_and_whole_numbers_are_a_spectrum_too():
    assert conditioning(torch.tensor([[2.0]])).kappa == conditioning(torch.tensor([2.0])).kappa == 1
    assert conditioning(torch.tensor([4, 2])) == conditioning(torch.tensor([4.0, 2.0]).double())


def test_equal_eigenvalues():
    record = conditioning(3 * torch.eye(5, dtype=torch.float64))
    assert (record.kappa, record.kappa_support, record.rank) == (1.0, 1.0, 5)
    assert record.effective_rank == pytest.approx(5)
    assert record.stable_rank == 5


def test_an_exact_zero_is_infinite_and_a_tiny_number_is_not():
    assert conditioning(torch.tensor([1.0, 0.0])).kappa == math.inf
    assert conditioning(torch.tensor([1.0, 1e-300], dtype=torch.float64)).kappa > 9e299


def test_all_zero_is_defined():
    record = conditioning(torch.zeros(4, 4), eps=0.5)
    assert (record.kappa, record.kappa_support, record.kappa_eps) == (math.inf, math.inf, 1.0)
    assert (record.rank, record.negative, record.lambda_max) == (0, 0, 0.0)
    assert (record.effective_rank, record.stable_rank) == (0.0, 0.0)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_nan_and_inf_are_defined(bad):
    P = torch.eye(3, dtype=torch.float64)
    P[0, 1] = P[1, 0] = bad
    record = conditioning(P)
    assert all(math.isnan(getattr(record, f)) for f in MEASURED if f not in ("negative", "rank"))
    assert (record.negative, record.rank) == (0, 0)


def test_the_rank_tolerance_knows_features_and_covariance():
    assert rank_tolerance(64) == 4 * 64 * 2**-52
    # float32 features: (2^-23 / 8)^2 is below the float64 arithmetic's own rounding at d = 64
    assert rank_tolerance(64, feature_dtype=torch.float32) == 4 * 64 * 2**-52
    assert rank_tolerance(64, feature_dtype=torch.bfloat16) == (2**-7 / 8) ** 2
    assert rank_tolerance(64, feature_dtype=torch.float16) == (2**-10 / 8) ** 2
    assert rank_tolerance(64, dtype=torch.float32) == 4 * 64 * 2**-23
    l = torch.tensor([1.0, 1e-7], dtype=torch.float64)
    assert conditioning(l).rank == 2
    assert conditioning(l, feature_dtype=torch.bfloat16).rank == 1
    assert conditioning(l.float()).rank == 1  # d = 2: 9.5e-7
    assert conditioning(l).rank_tol == 4 * 2 * 2**-52
    assert conditioning(l, feature_dtype=torch.bfloat16).rank_tol == (2**-7 / 8) ** 2


def test_many_spectra_at_once_are_each_of_them_alone():
    P = torch.stack([covariance(spectrum(6, 10.0**k, 1.0), k) for k in range(6)])
    P[2] = torch.nan
    P[3] = 0
    P[4] -= 0.5 * torch.eye(6, dtype=P.dtype)  # eigenvalues of both signs
    many = measures(covariance_eigenvalues(P.reshape(2, 3, 6, 6)), rank_tolerance(6), eps=1e-3)
    assert tuple(many) == MEASURED
    for name, values in many.items():
        assert values.shape == (2, 3)
        alone = [getattr(conditioning(matrix, eps=1e-3), name) for matrix in P]
        assert values.flatten().tolist() == pytest.approx(alone, nan_ok=True, rel=1e-9)


def test_a_driver_that_raises_for_the_batch_loses_no_other_matrix(monkeypatch):
    def raises(P):
        raise torch.linalg.LinAlgError("failed to converge")

    P = torch.stack([2 * torch.eye(3), torch.diag(torch.tensor([1.0, 2.0, 3.0]))]).double()
    poisoned = torch.cat([P, torch.full((1, 3, 3), torch.nan)])
    monkeypatch.setattr(torch.linalg, "eigvalsh", raises)
    l = covariance_eigenvalues(poisoned)
    assert l[:2].tolist() == [[2, 2, 2], [1, 2, 3]] and l[2].isnan().all()
    assert covariance_eigenvalues(P.float()).dtype == torch.float32  # as where nothing raises
    monkeypatch.setattr(torch.linalg, "eigh", raises)
    monkeypatch.setattr(torch.linalg, "svd", raises)
    assert covariance_eigenvalues(P).isnan().all()


@pytest.mark.parametrize("shape", [(2, 3), (0,), (2, 3, 3), ()])
def test_bad_shapes_are_named(shape):
    with pytest.raises(UserError, match=r"expected a covariance \(d, d\).*got shape"):
        conditioning(torch.zeros(shape))
