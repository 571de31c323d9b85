"""Drivers that return wrong factors without an error, injected into eigh and the SVD."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from reference import by_condition
from torch import Tensor

import orthocond as oc
from orthocond.spectral.eigh import Outcome, eigh
from orthocond.spectral.verification import is_eigh, is_svd, vectors

Factors = tuple[Tensor, Tensor]
Fault = Callable[[Tensor, Tensor], Factors]
SIZES = [2, 3, 8, 33, 64, 128]


def swapped(l: Tensor, U: Tensor) -> Factors:
    U[:, [0, -1]] = U[:, [-1, 0]]
    return l, U


def exchanged_values(l: Tensor, U: Tensor) -> Factors:
    l[[0, -1]] = l[[-1, 0]]
    return l, U


def repeated(l: Tensor, U: Tensor) -> Factors:
    U[:, 1] = U[:, 0]
    return l, U


def longer(l: Tensor, U: Tensor) -> Factors:
    """Unit vectors to six digits, as an iteration that stopped too early leaves them."""
    U[:, -1] *= 1 + 1e-6
    return l, U


def tilted(l: Tensor, U: Tensor) -> Factors:
    """Two vectors that are not orthogonal."""
    U[:, 0] += 1e-6 * U[:, -1]
    return l, U


def rotated(l: Tensor, U: Tensor) -> Factors:
    """Orthonormal, but two of them are mixed: no eigenvectors."""
    t = torch.tensor(1e-5, dtype=U.dtype)
    a, b = U[:, 0].clone(), U[:, -1].clone()
    U[:, 0], U[:, -1] = t.cos() * a - t.sin() * b, t.sin() * a + t.cos() * b
    return l, U


def another_basis(l: Tensor, U: Tensor) -> Factors:
    return l, torch.linalg.qr(torch.randn_like(U)).Q


def transposed(l: Tensor, U: Tensor) -> Factors:
    return l, U.mT.clone()


def rows_lost(l: Tensor, U: Tensor) -> Factors:
    U[0] = 0
    return l, U


def one_value_off(l: Tensor, U: Tensor) -> Factors:
    l[0] += 1e-6 * l[-1]
    return l, U


def zeros(l: Tensor, U: Tensor) -> Factors:
    return l * 0, U * 0


def nan_vectors(l: Tensor, U: Tensor) -> Factors:
    U[-1, -1] = torch.nan
    return l, U


def nan_values(l: Tensor, U: Tensor) -> Factors:
    return l * torch.nan, U


def infinite_value(l: Tensor, U: Tensor) -> Factors:
    l[-1] = torch.inf
    return l, U


FAULTS: list[Fault] = [
    swapped,
    exchanged_values,
    repeated,
    longer,
    tilted,
    rotated,
    another_basis,
    transposed,
    rows_lost,
    one_value_off,
    zeros,
    nan_vectors,
    nan_values,
    infinite_value,
]


def drawn(d: int, seed: int) -> Tensor:
    kappa = [1.5, 1e3, 1e8][seed % 3]
    return by_condition(d, kappa, [1e-9, 1.0, 1e9][seed % 2], seed)


def is_right(P: Tensor, l: Tensor, U: Tensor) -> bool:
    """By the full residuals."""
    apart = torch.dist(U.mT @ U, torch.eye(len(P), dtype=P.dtype))
    return bool(apart < 1e-13 * len(P) and torch.dist((U * l) @ U.mT, P) < 1e-13 * P.norm())


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("d", SIZES)
def test_every_fault_is_noticed_every_time(d: int, fault: Fault) -> None:
    torch.manual_seed(d)
    P = torch.stack([drawn(d, seed) for seed in range(6)])
    l, U = torch.linalg.eigh(P)
    assert is_eigh(P, l, U).all()
    for i in range(len(P)):
        wrong_l, wrong_U = l.clone(), U.clone()
        wrong_l[i], wrong_U[i] = fault(wrong_l[i], wrong_U[i])
        expected = [] if is_right(P[i], wrong_l[i], wrong_U[i]) else [[i]]
        assert is_eigh(P, wrong_l, wrong_U).logical_not().nonzero().tolist() == expected
        assert expected or (
            d == 2 and fault is transposed
        )  # a reflection of the plane is its own transpose


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("d", [4, 64])
def test_errors_far_above_the_limit_are_noticed(d: int, dtype: torch.dtype) -> None:
    """Errors e v^T in 200 random directions, with a norm of 1000 d times the limit.

    A vector w sees e |v^T w|, which is |e| / sqrt(d) on average and smaller by chance, spread over
    d entries. So an error at the limit itself can pass; it is no worse than rounding.
    """
    generator = torch.Generator().manual_seed(0)
    P = by_condition(d, 10.0).to(dtype).expand(200, d, d)
    l, U = torch.linalg.eigh(P[:1])
    left, right = torch.randn(2, 200, d, generator=generator, dtype=dtype)
    E = left[:, :, None] * right[:, None, :] / left.norm(dim=1)[:, None, None]
    E *= 1e3 * 4 * (d + 8) * torch.finfo(dtype).eps / right.norm(dim=1)[:, None, None]
    E *= d
    assert not is_eigh(P, l.expand(200, d), U + E).any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [0.0, 1e-320, 1e-300, 1e-44, 1e-38, 1.0, 1e37, 1e300, 5e307])
def test_right_factors_of_any_scale_pass(scale: float, dtype: torch.dtype) -> None:
    if scale > torch.finfo(dtype).max:
        return
    for d in (1, 2, 7, 40):
        P = (by_condition(d, 100.0, 1.0, seed=d) * scale).to(dtype)[None]
        assert is_eigh(P, *torch.linalg.eigh(P)).all(), d
        assert is_svd(P, *torch.linalg.svd(P)).all(), d


def test_low_precision_of_other_products_does_not_matter() -> None:
    P = by_condition(40, 100.0).float()[None]
    factors = torch.linalg.eigh(P)
    with torch.autocast("cpu", torch.bfloat16):
        assert is_eigh(P, *factors).all()
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        assert is_eigh(P, *factors).all()
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("wrong", [[0], [1, 3], [0, 1, 2, 3]])
def test_wrong_factors_are_retried_and_counted(
    monkeypatch: pytest.MonkeyPatch, fault: Fault, wrong: list[int]
) -> None:
    """The driver is wrong in a batch only, as those for batches are other drivers on CUDA."""
    lapack = torch.linalg.eigh

    def driver(P: Tensor) -> Factors:
        l, U = lapack(P)
        for i in wrong if P.dim() == 3 else ():
            l[i], U[i] = fault(l[i], U[i])
        return l, U

    P = torch.stack([drawn(6, seed) for seed in range(4)])
    expected = eigh(P)
    monkeypatch.setattr(torch.linalg, "eigh", driver)
    with pytest.warns(
        RuntimeWarning,
        match=rf"eigh on cpu returned wrong factors for {len(wrong)} of 4 matrices of size 6 ",
    ):
        found = eigh(P.view(2, 2, 6, 6))
    outcomes = [Outcome.RETRIED if i in wrong else Outcome.OK for i in range(4)]
    assert found.outcome.flatten().tolist() == outcomes
    for a, b in zip(found[:2], expected[:2], strict=True):
        torch.testing.assert_close(a.reshape(b.shape), b, rtol=0, atol=0)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_driver_that_is_always_wrong_is_replaced(
    monkeypatch: pytest.MonkeyPatch, fault: Fault
) -> None:
    lapack = torch.linalg.eigh

    def driver(P: Tensor) -> Factors:
        l, U = lapack(P)
        return fault(l, U) if P.dim() == 2 else fault(l[0], U[0])

    def batched(P: Tensor) -> Factors:
        l, U = driver(P)
        return (l, U) if P.dim() == 2 else (l[None], U[None])

    monkeypatch.setattr(torch.linalg, "eigh", batched)
    P = by_condition(6, 10.0)
    with pytest.warns(RuntimeWarning, match="for 1 of 1 matrices"):
        l, U, outcome = eigh(P)
    assert outcome == Outcome.RETRIED
    assert torch.dist(U @ torch.diag(l) @ U.mT, P) < 1e-13


def test_the_vectors_are_fixed_and_draw_no_random_numbers() -> None:
    before = torch.get_rng_state()
    device = torch.device("cpu")
    vectors.cache_clear()
    w = vectors(64, device)
    assert torch.equal(torch.get_rng_state(), before)
    vectors.cache_clear()
    assert torch.equal(vectors(64, device), w) and vectors(64, device) is vectors(64, device)
    size = w.abs() * 64**0.5
    assert size.min() >= 0.5 and size.max() <= 1
    assert (torch.linalg.svdvals(w[0]) > 0.3).all()  # no vector repeats the others


@pytest.mark.parametrize(
    "function",
    [
        oc.matrix_sqrt,
        partial(oc.matrix_inv_sqrt, solver="newton-schulz"),
        partial(oc.matrix_sqrt, solver="minimax"),
        oc.matrix_log,
        partial(oc.matrix_power, p=0.3),
        oc.covariance_sqrt,
        oc.polar_factor,
        partial(oc.polar_factor, method="svd"),
        lambda P: oc.conditioning(P.detach()).kappa * P.sum(),
        lambda P: oc.optimal_lr(P.detach(), P.detach()) * P.sum(),
    ],
)
def test_torchs_default_device_changes_no_function(function: Callable[[Tensor], Tensor]) -> None:
    P = by_condition(4, 10.0).requires_grad_()
    F = function(P)
    (expected,) = torch.autograd.grad(F.sum(), P)
    vectors.cache_clear()
    with torch.device("meta"):
        ours = function(P)
        (g,) = torch.autograd.grad(ours.sum(), P)
    assert torch.equal(ours, F) and torch.equal(g, expected)


def test_wrong_singular_vectors_are_noticed() -> None:
    torch.manual_seed(0)
    for m, n in [(3, 3), (4, 9), (9, 4), (27, 64)]:
        G = torch.randn(2, m, n, dtype=torch.float64)
        U, s, Vh = torch.linalg.svd(G, full_matrices=False)
        assert is_svd(G, U, s, Vh).all()
        for fault in FAULTS:
            for side in range(2):
                t, W = s[0].clone(), (Vh.mT if side else U)[0].clone()
                if fault is transposed and W.shape[0] != W.shape[1]:
                    continue
                t, W = fault(t, W)
                wrong = (U[:1], t[None], W.mT[None]) if side else (W[None], t[None], Vh[:1])
                assert not is_svd(G[:1], *wrong).any(), (fault, side)
