"""Logarithm and real powers against scipy and mpmath, and where they are refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import mpmath
import pytest
import scipy.linalg
import torch
from reference import spectrum
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

import orthocond as oc
from orthocond.spectral.powers import _second, first_difference

POWERS = [None, -2.0, -1.7, -0.5, 0.0, 1 / 3, 1.0, 1.5, 2.0, 3.0, 7.5, 20.0]


def applied(P: Tensor, p: float | None, eps: float = 0.0) -> Tensor:
    return oc.matrix_log(P, eps) if p is None else oc.matrix_power(P, p, eps)


@pytest.mark.parametrize("p", POWERS)
@pytest.mark.parametrize("values", [[4.0, 4.0, 1e-3], [9.0, 2.0, 1.0]])
def test_values_are_those_of_scipy(p: float | None, values: list[float]) -> None:
    P = spectrum(values)
    A = P.numpy()
    expected = scipy.linalg.logm(A) if p is None else scipy.linalg.fractional_matrix_power(A, p)
    F = applied(torch.stack([P, P]).view(2, 1, 3, 3), p)
    assert F.shape == (2, 1, 3, 3)
    assert torch.dist(F[1, 0], torch.as_tensor(expected).real) < 1e-12 * (1 + F.norm())
    single = applied(P.float(), p)
    assert single.dtype == torch.float32
    assert torch.dist(single.double(), F[1, 0]) < 1e-3 * (1 + F.norm())


def divided(points: list[float], p: float | None) -> float:
    """The divided difference in 400 digits, at ties that are moved apart by 1e-80."""
    with mpmath.workdps(400):
        x = [mpmath.mpf(t) * (1 + i * mpmath.mpf(10) ** -80) for i, t in enumerate(points)]
        f = [mpmath.log(t) if p is None else t**p for t in x]
        for width in range(1, len(x)):
            f = [(f[i] - f[i + 1]) / (x[i] - x[i + width]) for i in range(len(f) - 1)]
        return float(f[0])


@pytest.mark.parametrize("p", POWERS)
@pytest.mark.parametrize(
    "points",
    [
        (3.0, 2.0, 1.0),
        (2.0, 2.0, 2.0),
        (2.0, 2.0, 1.0),
        (1 + 1e-9, 1.0, 1.0),
        (1 + 1e-15, 1 + 1e-13, 1.0),
        (1.12, 1.06, 1.0),
        (1.0, 1e-6, 1e-12),
        (1e6, 1.0, 1 - 1e-12),
        (2.0, 1.0, 1e-300),
        (1e10, 1e-150, 1e-200),  # a / b and its powers overflow
        (1.0, 1e-17, 1e-310),
        (1e-30, 1e-70, 1e-70),
    ],
)
def test_divided_differences_lose_no_digits(
    points: tuple[float, float, float], p: float | None
) -> None:
    a, b, c = (torch.tensor(t, dtype=torch.float64) for t in points)
    assert first_difference(a, c, p).item() == pytest.approx(
        divided([points[0], points[2]], p), rel=1e-13
    )
    expected = pytest.approx(divided(list(points), p), rel=2e-12, abs=1e-300)
    for order in ((a, b, c), (b, c, a), (c, a, b)):
        if p not in (0, 1):
            assert _second(*order, p).item() == expected
        else:
            assert _second(*order, p).item() == 0


@pytest.mark.parametrize("p", [2, 3, 20, 40])
def test_derivatives_of_whole_powers_at_ill_conditioned_matrices(p: int) -> None:
    """The condition number is 1e17, so its power overflows."""
    P, C = spectrum([1.0, 0.5, 1e-17]).requires_grad_(), spectrum([1.0, 2.0, 3.0], 1)
    found = []
    for power in (oc.matrix_power, torch.linalg.matrix_power):
        F = power((P + P.mT) / 2, p)
        (g,) = torch.autograd.grad((F * C).sum(), P, create_graph=True)
        found.append((g, *torch.autograd.grad((g * C).sum(), P)))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-12)


def test_the_root_is_the_power_one_half() -> None:
    P, C = spectrum([2.0, 2.0, 1.0]).requires_grad_(), spectrum([1.0, 2.0, 3.0], 1)
    for p, other in ((0.5, oc.matrix_sqrt), (-0.5, oc.matrix_inv_sqrt)):
        ours, theirs = (
            torch.autograd.functional.hessian(lambda P, f=f: (f(P) * C).sum(), P)
            for f in (lambda P, p=p: oc.matrix_power(P, p), other)
        )
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("p", [1.0, 2.0, 2.5, 3.0])
def test_smooth_powers_of_a_singular_matrix(p: float) -> None:
    """Along directions that keep the matrix semi-definite to second order: P = A^T A."""
    A = torch.tensor([[1.0, 2.0, 0.5], [0.3, -1.0, 1.0]], dtype=torch.float64).requires_grad_()
    assert gradcheck(lambda A: oc.matrix_power(A.mT @ A, p), A)
    assert gradgradcheck(lambda A: oc.matrix_power(A.mT @ A, p), A)
    Z = torch.zeros(2, 2, dtype=torch.float64, requires_grad=True)
    (g,) = torch.autograd.grad(oc.matrix_power(Z, p).trace(), Z, create_graph=True)
    torch.testing.assert_close(g, torch.eye(2).double() * (p == 1))
    (h,) = torch.autograd.grad(g.trace(), Z)
    torch.testing.assert_close(h, 2.0 * torch.eye(2).double() * (p == 2))


def test_infinite_derivatives_at_a_singular_matrix_are_refused() -> None:
    P = torch.diag(torch.tensor([4.0, 0.0], dtype=torch.float64)).requires_grad_()
    F = oc.matrix_power(P, 0.25)
    assert F[1, 1] == 0
    with pytest.raises(oc.UserError, match=r"^the power 0\.25 has an infinite derivative at a"):
        F.sum().backward()
    (g,) = torch.autograd.grad(oc.matrix_power(P, 1.5).sum(), P, create_graph=True)
    assert g.isfinite().all()
    with pytest.raises(oc.UserError, match=r"^the power 1\.5 has an infinite second derivative"):
        g.sum().backward()
    assert gradgradcheck(lambda P: oc.matrix_power((P + P.mT) / 2, 0.25, eps=0.5), P)


@pytest.mark.parametrize("p", [None, 0.3])
def test_a_third_derivative_is_refused(p: float | None) -> None:
    P = spectrum([3.0, 2.0, 1.0]).requires_grad_()
    value = applied(P, p).square().sum()
    for _ in range(2):
        (g,) = torch.autograd.grad(value, P, create_graph=True)
        value = g.square().sum()
    with pytest.raises(oc.UserError, match="matrix_log and matrix_power have no third derivative"):
        value.backward()


S = torch.diag(torch.tensor([4.0, 0.0]))


@pytest.mark.parametrize(
    ("P", "p", "message"),
    [
        (S, None, "^the matrix has no logarithm: smallest eigenvalue 0; pass eps > 0"),
        (S, -1.5, r"^the matrix has no power -1\.5: smallest eigenvalue 0; pass eps > 0"),
        (S - torch.eye(2), 2.0, "positive semi-definite matrix for its power 2, got the eigenval"),
        (1e30 * torch.eye(2), 20.0, r"^the power 20 of the matrix overflows: largest eigenvalue"),
        (S, float("nan"), "^the exponent must be a finite number, got nan"),
        (S, torch.tensor(2.0), r"^the exponent must be a finite number, got tensor\(2\.\)"),
        (S.long(), 2.0, "a real floating dtype, got torch.int64"),
        (S[:1], 2.0, r"expected square matrices .*\(1, 2\)"),
    ],
)
def test_what_has_no_power_is_refused(P: Tensor, p: Any, message: str) -> None:
    with pytest.raises(oc.UserError, match=message):
        applied(P, p)


def test_failures_and_a_bad_eps() -> None:
    with pytest.raises(oc.DecompositionError, match="1 of 1 matrices"):
        oc.matrix_log(torch.full((2, 2), torch.nan))
    with pytest.raises(oc.UserError, match="eps must be 0 or more and finite, got -1"):
        oc.matrix_power(S, 2.0, eps=-1.0)
    assert oc.matrix_log(S, eps=1.0).diagonal().tolist() == pytest.approx([math.log(5), 0.0])


@pytest.mark.parametrize("shape", [(0, 3, 3), (2, 0, 3, 3)])
@pytest.mark.parametrize("eps", [0.0, 0.1])
@pytest.mark.parametrize(
    "function",
    [oc.matrix_sqrt, oc.matrix_inv_sqrt, oc.matrix_log]
    + [partial(oc.matrix_power, p=p) for p in (-1.0, 0.5, 2.5)],
)
def test_an_empty_batch_has_an_empty_result_and_gradients(
    function: Callable[..., Tensor], eps: float, shape: tuple[int, ...]
) -> None:
    P = torch.zeros(shape, dtype=torch.float64, requires_grad=True)
    F = function(P, eps=eps)
    assert F.shape == shape and F.dtype == P.dtype
    (g,) = torch.autograd.grad(F.sum(), P, create_graph=True)
    (second,) = torch.autograd.grad(g.sum(), P)
    assert g.shape == second.shape == shape
