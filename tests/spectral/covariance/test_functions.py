"""Logarithm and powers of a covariance against scipy, closed forms, the ridge form and autograd."""

from __future__ import annotations

from typing import Any

import pytest
import scipy.linalg
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

import orthocond as oc
from orthocond.spectral.covariance.functions import covariance_function
from orthocond.spectral.covariance.lowrank import covariance_root
from orthocond.spectral.eigh import Outcome

POWERS = [0.2, 0.5, 0.8, 1.0, 1.5, 2.0]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def features(l: list[float], n: int, seed: int = 0) -> Tensor:
    """(d, n), with a mean, whose covariance has the eigenvalues l; at most n - 1 are not zero."""
    d, s = len(l), torch.tensor(l, dtype=torch.float64).sqrt()
    k = min(d, n - 1)
    centred = torch.cat([torch.ones(n, 1, dtype=torch.float64), normal(n, n - 1, seed=seed)], 1)
    V = torch.linalg.qr(centred).Q[:, 1 : k + 1]
    U = torch.linalg.qr(normal(d, d, seed=seed)).Q[:, :k]
    return (U * s[:k]) @ V.mT * n**0.5 + 3


def both(X: Tensor, g: Tensor, *settings: Any) -> tuple[Tensor, Tensor]:
    """The value, and the gradient for dl/dF = g."""
    X = X.detach().clone().requires_grad_()
    F = covariance_function(X, *settings)[0]
    F.backward(g.to(F.dtype))
    assert X.grad is not None
    return F.detach(), X.grad


@pytest.mark.parametrize("n", [9, 4, 3])
@pytest.mark.parametrize("eps", [0.0, 0.05])
def test_values_are_those_of_scipy(n: int, eps: float) -> None:
    X = torch.stack([features([2.0, 2.0, 0.3, 0.01], n, seed) for seed in range(2)])
    P = X[1].cov(correction=0)
    A = (P + eps * torch.eye(4).double()).numpy()
    for p in (None, *POWERS):
        F, outcome = covariance_function(X, p, eps)
        wide, _ = covariance_function(X, p, eps, True)
        torch.testing.assert_close(F, wide, rtol=1e-10, atol=1e-12)
        if p is None and eps == 0 and n <= 4:
            assert outcome.tolist() == [Outcome.FAILED] * 2 and not F.any()
            continue
        assert outcome.tolist() == [Outcome.OK] * 2
        if n > 4 or eps:
            f = scipy.linalg.logm(A) if p is None else scipy.linalg.fractional_matrix_power(A, p)
            expected = torch.from_numpy(f.real)
        else:  # scipy's iterations lose digits at a singular matrix
            l, U = torch.linalg.eigh(P)
            expected = (U * torch.where(l > 1e-12, l, 0) ** p) @ U.mT
        assert torch.dist(F[1], expected) <= 1e-11 * expected.norm()


@pytest.mark.parametrize("p", [0.2, 0.5, 0.8, 1.0, 2.0])
def test_the_gradient_at_a_diagonal_covariance_in_closed_form(p: float) -> None:
    """Channels 0 and 1 are orthogonal with variances 4 and 1, and channel 2 is constant."""
    y = torch.tensor([[2.0, -2.0, 2.0, -2.0], [1.0, 1.0, -1.0, -1.0]], dtype=torch.float64)
    X = torch.cat([y, torch.zeros(1, 4).double()]) + 5
    a, b = 4.0, 1.0
    F = both(X, torch.eye(3), p)[0]
    torch.testing.assert_close(F, torch.diag(torch.tensor([a**p, b**p, 0.0])).double())
    zero = torch.zeros(4, dtype=torch.float64)
    cross = (a**p - b**p) / (a - b)
    for (i, j), rows in {
        (0, 0): [2 * p * a ** (p - 1) * y[0], zero, zero],
        (0, 1): [cross * y[1], cross * y[0], zero],
        (0, 2): [zero, zero, a ** (p - 1) * y[0]],
        (1, 2): [zero, zero, b ** (p - 1) * y[1]],
        (2, 2): [zero, zero, zero],
    }.items():
        g = torch.zeros(3, 3).double()
        g[i, j] = 1
        for by_channels in (False, True):
            gradient = both(X, g, p, 0.0, by_channels)[1]
            torch.testing.assert_close(gradient, torch.stack(rows) / 4, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("n", [5, 3, 2])
@pytest.mark.parametrize("l", [[2.0, 0.7, 0.1], [1.0, 1.0, 0.2]])
@pytest.mark.parametrize(("p", "eps"), [(0.2, 0.0), (1.5, 0.0), (0.3, 0.1), (None, 0.1), (None, 0)])
def test_derivatives(p: float | None, eps: float, l: list[float], n: int) -> None:
    """At simple and equal eigenvalues. For n - 1 < d every change of X keeps the rank."""
    if p is None and eps == 0 and n <= 3:
        return

    def function(X: Tensor) -> Tensor:
        return covariance_function(X, p, eps)[0]

    X = features(l, n).requires_grad_()
    assert gradcheck(function, X, fast_mode=True, check_forward_ad=True)
    assert gradgradcheck(function, X, fast_mode=True, check_fwd_over_rev=True, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("n", [7, 3])
@pytest.mark.parametrize("p", [0.5, 0.8, 1.0, 1.5])
def test_below_full_rank_it_is_the_limit_of_the_ridge_form(p: float, n: int) -> None:
    """Without a dead channel, with one, and with a repeated one, against oc.matrix_power."""
    g = normal(4, 4, seed=9)
    for change in ([], [0.0], [1.0]):
        X = features([2.0, 1.0, 0.5, 0.2], n)
        if change:
            X[1] = change[0] * X[0]
        F, gradient = both(X, g, p)
        for eps in (1e-6, 1e-10):

            def definition(X: Tensor, eps: float = eps) -> Tensor:
                return oc.matrix_power(X.cov(correction=0), p, eps)

            here = X.clone().requires_grad_()
            expected = definition(here)
            (slope,) = torch.autograd.grad(expected, here, g)
            bound = 30 * eps ** min(p, 1)
            assert torch.dist(F, expected.detach()) < bound
            assert torch.dist(gradient, slope) < bound


@pytest.mark.parametrize(("d", "n"), [(4, 9), (9, 4), (5, 5)])
def test_one_half_is_the_root_and_one_is_the_covariance(d: int, n: int) -> None:
    X, g = normal(2, d, n), normal(2, d, d, seed=9)
    X[0, 1] = X[0, 0]
    here = X.clone().requires_grad_()
    root = covariance_root(here)[0]
    for ours, theirs in zip(
        both(X, g, 0.5), (root, torch.autograd.grad(root, here, g)[0]), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
    Y = here - here.mean(-1, keepdim=True)
    plain = Y @ Y.mT / n
    for ours, theirs in zip(
        both(X, g, 1.0), (plain, torch.autograd.grad(plain, here, g)[0]), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_outcomes() -> None:
    """A sample of low rank, one with NaN, and one of full rank."""
    X = normal(3, 3, 7)
    X[0, 1] = 0
    X[1, 0, 0] = torch.nan
    alone = both(X[2], torch.ones(3, 3), 0.3)
    F, G = Outcome.FAILED, Outcome.INEXACT
    for p, eps, expected in [
        (0.3, 0.0, [G, F, 0]),
        (0.5, 0.0, [0, F, 0]),
        (0.3, 0.1, [0, F, 0]),
        (None, 0.0, [F, F, 0]),
        (None, 0.1, [0, F, 0]),
    ]:
        value, outcome = covariance_function(X, p, eps)
        assert outcome.tolist() == expected and outcome.dtype == torch.int8
        _, gradient = both(X, torch.ones(3, 3, 3), p, eps)
        for i, ended in enumerate(expected):
            assert value[i].isfinite().all() and gradient[i].isfinite().all()
            assert value[i].any().item() == gradient[i].any().item() == (ended != F)
    for ours, theirs in zip(both(X, torch.ones(3, 3, 3), 0.3), alone, strict=True):
        torch.testing.assert_close(ours[2], theirs)
    half = (300 * normal(2, 3, 7)).half()
    half[0] /= 100
    assert covariance_function(half, 1.5)[1].tolist() == [0, F]  # above float16's 65504


def test_below_the_rank_of_the_shape_a_second_derivative_is_refused_where_there_is_none() -> None:
    X, g, dX = features([2.0, 1.0, 0.5], 6), normal(3, 3), normal(3, 6, seed=3)
    X[1] = X[0]
    for p in (0.3, 0.8, 1.5):

        def loss(X: Tensor, eps: float = 0.0, p: float = p) -> Tensor:
            return (covariance_function(X, p, eps)[0] * g).sum()

        here = X.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(here), here, create_graph=True)
        assert torch.equal(gradient, both(X, g, p)[1])
        line = rf"the power {p:g} of a covariance has no second derivative below rank min\(d, N - 1"
        with pytest.raises(oc.UserError, match=line):
            gradient.sum().backward()
        torch.testing.assert_close(torch.func.jvp(loss, (X,), (dX,))[1], (gradient * dX).sum())
        with pytest.raises(oc.UserError, match=line):
            torch.func.hessian(loss)(X)
        assert gradgradcheck(lambda X, f=loss: f(X, 0.1), here, fast_mode=True)
    for p in (1.0, 2.0):
        assert gradgradcheck(lambda X, p=p: covariance_function(X, p)[0], here, fast_mode=True)


@pytest.mark.parametrize(("d", "n"), [(3, 5), (4, 3)])
def test_torch_func_and_samples_of_their_own_scale(d: int, n: int) -> None:
    scale = torch.tensor([1.0, 1e-150, 1e150], dtype=torch.float64).view(3, 1, 1)
    X = features([2.0, 1.0, 0.5, 0.1][:d], n).expand(3, d, n) - 3
    g = normal(d, d)
    for p in (0.4, 0.5):
        F, gradient = both(X, g.expand(3, d, d), p)
        scaled_F, scaled_gradient = both(scale * X, g.expand(3, d, d), p)
        torch.testing.assert_close(scaled_F / scale ** (2 * p), F, rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(
            scaled_gradient / scale ** (2 * p - 1), gradient, rtol=1e-9, atol=1e-11
        )
    if n > d:
        shift = 2 * scale.log() * torch.eye(d)
        ours, expected = both(scale * X, g.expand(3, d, d), None), both(X, g.expand(3, d, d), None)
        torch.testing.assert_close(ours[0], expected[0] + shift, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(ours[1] * scale, expected[1], rtol=1e-9, atol=1e-11)

    def loss(X: Tensor) -> Tensor:
        return (covariance_function(X, 0.4)[0] * g).sum()

    vmap, hessian = torch.func.vmap, torch.func.hessian
    torch.testing.assert_close(vmap(torch.func.grad(loss))(X), both(X, g.expand(3, d, d), 0.4)[1])
    expected = torch.autograd.functional.hessian(loss, X[0])
    torch.testing.assert_close(hessian(loss)(X[0]), expected)
    torch.testing.assert_close(vmap(hessian(loss))(X[:2])[1], expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_arithmetic_is_float64_and_autocast_changes_neither_pass(dtype: torch.dtype) -> None:
    X, g = normal(6, 5).to(dtype), normal(6, 6, seed=9)
    for p, eps in ((0.3, 0.0), (None, 0.1)):
        exact = both(X.double(), g.to(dtype).double(), p, eps)
        with torch.autocast("cpu", torch.bfloat16):
            ours = both(X, g, p, eps)
        for a, b in zip(ours, exact, strict=True):
            assert a.dtype == dtype
            torch.testing.assert_close(a, b.to(dtype))
