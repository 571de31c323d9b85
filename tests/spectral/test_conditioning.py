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
    measures,
    rank_tolerance,
)
from orthocond.spectral.spectra import covariance_eigenvalues


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


def test_one_eigenvalue_is_a_spectrum_too():
    assert conditioning(torch.tensor([[2.0]])).kappa == conditioning(torch.tensor([2.0])).kappa == 1


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
    record = conditioning(P, common_rank=2)
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
    many = measures(covariance_eigenvalues(P.reshape(2, 3, 6, 6)), rank_tolerance(6), 1e-3, 4)
    assert tuple(many) == MEASURED
    for name, values in many.items():
        assert values.shape == (2, 3)
        alone = [getattr(conditioning(matrix, 1e-3, common_rank=4), name) for matrix in P]
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


DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16,
          torch.float8_e4m3fn, torch.float8_e5m2]  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("d", [1, 2, 31, 32, 64, 513])
def test_the_identity_has_full_rank_and_an_outer_product_rank_one_in_every_dtype(dtype, d):
    assert conditioning(torch.eye(d).to(dtype)).rank == d
    assert conditioning(torch.ones(d).to(dtype)).rank == d  # its eigenvalues
    v = torch.randn(d, generator=torch.Generator().manual_seed(d)).double()
    assert conditioning((torch.outer(v, v) / v.abs().max() ** 2).to(dtype)).rank == 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("rank", [1, 10, 27, 63])
def test_storing_a_covariance_in_half_precision_keeps_its_rank(dtype, rank):
    Q = np.linalg.qr(np.random.default_rng(rank).normal(size=(64, rank)))[0]
    P = torch.from_numpy(Q @ np.diag(np.linspace(1, 0.3, rank)) @ Q.T)
    assert conditioning(P.to(dtype)).rank == conditioning(P).rank == rank
    # The note's bound on what storing moves: half the tolerance.
    moved = np.linalg.norm((P.to(dtype).double() - P).numpy(), 2)
    assert moved <= rank_tolerance(64, dtype) / 2


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_tolerance_never_reaches_one(dtype):
    for d in (1, 64, 10**6, 10**12):
        assert 0 < rank_tolerance(d, dtype) <= 0.5
        assert rank_tolerance(d, torch.float64, dtype) <= 0.5


@pytest.mark.parametrize("n", [64, 10_000, 300_000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_covariance_is_symmetric_up_to_the_rounding_of_its_sums(n, dtype):
    X = torch.randn(16, n, dtype=dtype, generator=torch.Generator().manual_seed(n))
    # The worst there is: the halves are summed in opposite orders, one product after the other.
    forth, back = X @ X.mT, torch.stack([(X * row).flip(-1).cumsum(-1)[:, -1] for row in X])
    P = torch.triu(forth) + torch.tril(back, -1)
    assert n == 64 or not torch.equal(P, P.mT)
    assert conditioning(P / n).rank == 16


@pytest.mark.parametrize("dtype", DTYPES[:4])
def test_a_matrix_that_is_not_symmetric_is_refused(dtype):
    P = torch.eye(3)
    P[0, 2] = 0.5
    with pytest.raises(UserError, match=r"a symmetric covariance, but.*up to 0\.5 and P up to 1:"):
        conditioning(P.to(dtype))
    with pytest.raises(UserError, match="expected a symmetric covariance"):
        conditioning(torch.randn(8, 8, generator=torch.Generator().manual_seed(0)).to(dtype))
    skew = 1e-3 * torch.tensor([[0.0, 1.0], [-1.0, 0.0]])
    assert conditioning(torch.zeros(2, 2, dtype=dtype)).rank == 0
    if dtype not in (torch.float16, torch.bfloat16):
        with pytest.raises(UserError, match="rounding"):
            conditioning((torch.eye(2) + skew).to(dtype))


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, np.longdouble, ">f4", ">f8"])
def test_a_numpy_array_is_taken(dtype):
    P = np.diag([4.0, 2.0, 1.0]).astype(dtype)
    found = conditioning(P)
    same = {2: torch.float16, 4: torch.float32}.get(P.dtype.itemsize, torch.float64)
    assert found == conditioning(torch.diag(torch.tensor([4.0, 2.0, 1.0], dtype=same)))
    assert conditioning(np.diag(P)[::-1]) == conditioning(np.diag(P)) == found
    P.flags.writeable = False  # torch.from_numpy would warn
    assert conditioning(P) == found


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (torch.tensor([4, 2]), r"of a real floating dtype, got torch\.int64$"),
        (torch.eye(2, dtype=torch.bool), r"got torch\.bool$"),
        (torch.eye(2, dtype=torch.complex64), r"got torch\.complex64$"),
        (np.array([4, 2]), r"got NumPy's int64: pass P\.astype\(float\)$"),
        (np.eye(2, dtype=bool), r"got NumPy's bool"),
        (np.eye(2, dtype=complex), r"got NumPy's complex128"),
        (np.array([None, 1.0]), r"got NumPy's object"),
        ([[1.0]], r"got list: pass a tensor or a NumPy array$"),
        (3.0, r"got float: pass a tensor"),
        (np.zeros((0, 0)), r"got shape \(0, 0\)$"),
        (np.zeros((2, 3)), r"got shape \(2, 3\)$"),
        (np.float64(2.0), r"got float64: pass a tensor"),
    ],
)
def test_what_is_no_floating_covariance_is_refused(given, message):
    with pytest.raises(UserError, match=message) as error:
        conditioning(given)
    assert "\n" not in str(error.value)


def test_a_dtype_that_is_not_floating_is_refused():
    for dtype in (torch.int8, torch.complex64, "float32", np.float32):
        with pytest.raises(UserError, match="expected a real floating dtype, such as"):
            conditioning(torch.eye(2), feature_dtype=dtype)


def test_kappa_common_compares_the_leading_eigenvalues_of_layers_of_different_rank():
    narrow, wide = [8.0, 4.0, 1e-17], [8.0, 4.0, 2.0]
    records = [
        conditioning(torch.tensor(l, dtype=torch.float64), common_rank=2) for l in (narrow, wide)
    ]
    assert [r.kappa_common for r in records] == [2, 2] and [r.rank for r in records] == [2, 3]
    assert records[0].common_rank == 2
    assert conditioning(torch.tensor(wide)).kappa_common is None


@pytest.mark.parametrize("r", [1, 3, 6])
def test_kappa_common_is_the_ratio_of_singular_values(r):
    P = covariance(spectrum(6, 1e4, 1.0), 0)
    sigma = np.linalg.svd(P.numpy(), compute_uv=False)
    assert conditioning(P, common_rank=r).kappa_common == pytest.approx(sigma[0] / sigma[r - 1])


@pytest.mark.parametrize("r", [0, 7, 2.5])
def test_a_common_rank_outside_of_the_spectrum_is_refused(r):
    with pytest.raises(UserError, match=r"common_rank is .*: allowed are whole numbers"):
        conditioning(covariance(spectrum(6, 1e4, 1.0), 0), common_rank=r)
