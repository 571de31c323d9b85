"""Logarithm and real powers of symmetric positive semi-definite matrices, differentiable.

Note [Divided differences]
    For F = f(P), P = U L U^T, the first and second derivatives in symmetric directions A and B are
        U (f[li, lj] o A') U^T   and   U (sum_k f[li, lk, lj] (A'_ik B'_kj + B'_ik A'_kj)) U^T
    with A' = U^T A U and the divided differences of f (Daleckii and Krein; Higham 2008, "Functions
    of Matrices", sections 3.2 and B.14). Both are self-adjoint in each direction, so gradients use
    the same maps. With a >= b and y = log1p((a - b) / b) = log(a / b), the first difference is
        log  y / (a - b),      power  b^p expm1(p y) / (a - b) = -a^p expm1(-p y) / (a - b),
    and f'(b) for a = b. The last form is for p > 0, where (a / b)^p may overflow. y is exact to
    rounding however close a and b are, so no digits are lost.
    The second difference of a >= b >= c is (f[a, b] - f[b, c]) / (a - c) where a - c is large
    compared with m = (a + b + c) / 3. Where it is small, this loses digits, and the Taylor series
        f[a, b, c] = sum_{k>=2} f^(k)(m) / k! h_{k-2}(a - m, b - m, c - m)
    is used, with the complete homogeneous symmetric polynomials h.
"""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from orthocond.errors import UserError, require_floating, require_nonnegative
from orthocond.host import Refusal, like, refuse
from orthocond.spectral.eigh import eigh
from orthocond.spectral.lyapunov import builds_graph, first_only, in_front, symmetric
from orthocond.spectral.newton_schulz import require_square

TERMS = 18  # of the Taylor series; the ratio of two terms is below 1/8 for large k

Exponent = float | None  # None is the logarithm, the limit of (x^p - 1) / p


def first_difference(a: Tensor, b: Tensor, p: Exponent) -> Tensor:
    """Return f[a, b] of Note [Divided differences] for a >= b >= 0, which are broadcast."""
    if p == 0:
        return torch.zeros_like(a)
    y, tie = torch.log1p((a - b) / b), a == b
    y = torch.where(y.isinf(), a.log() - b.log(), y)  # a / b overflows, or b = 0
    if p is None:
        return torch.where(tie, 1 / b, y / (a - b))
    fall = torch.expm1(-abs(p) * y)  # in [-1, 0]
    chord = b**p * fall / (a - b) if p < 0 else -(a ** (p - 1)) * fall * (a / (a - b))
    return torch.where(tie, p * b ** (p - 1), chord)


def _second(a: Tensor, b: Tensor, c: Tensor, p: Exponent) -> Tensor:
    """Return f[a, b, c] for any order of the arguments, all at least 0."""
    c, b, a = torch.stack(torch.broadcast_tensors(a, b, c)).sort(0).values
    if p in (0, 1):
        return torch.zeros_like(a)
    m = (a + b + c) / 3
    u, v, w = ((t - m) / torch.where(m > 0, m, 1) for t in (a, b, c))
    one, two, three = (torch.ones_like(m) for _ in range(3))  # h_k of u; of u, v; of u, v, w
    q = 0.0 if p is None else p
    coefficient = -0.5 if p is None else q * (q - 1) / 2  # f^(k)(m) / k! for m = 1
    total = coefficient * three
    for k in range(3, 3 + TERMS):
        one = one * u
        two = one + v * two
        three = two + w * three
        coefficient *= (q - k + 1) / k
        total = total + coefficient * three
    series = total * m ** (q - 2)
    chord = (first_difference(a, b, p) - first_difference(b, c, p)) / (a - c)
    return torch.where((a - c) * (8 + abs(q)) <= m, series, chord)


def first_differences(l: Tensor, p: Exponent) -> Tensor:
    """Return f[li, lj] (..., d, d) for the eigenvalues l (..., d)."""
    li, lj = l.unsqueeze(-1), l.unsqueeze(-2)
    return first_difference(torch.maximum(li, lj), torch.minimum(li, lj), p)


class _Curvature(torch.autograd.Function):
    """Second derivative in the directions A and B. The loop keeps the memory at d x d."""

    @staticmethod
    def forward(P: Tensor, A: Tensor, B: Tensor, p: Exponent, l: Tensor, U: Tensor) -> Tensor:
        A, B = (U.mT @ symmetric(t) @ U for t in (A, B))
        total = torch.zeros_like(A)
        for k in range(l.shape[-1]):
            T = A[..., :, k, None] * B[..., None, k, :]
            D = _second(l.unsqueeze(-1), l[..., k, None, None], l.unsqueeze(-2), p)
            total += D * (T + T.mT)
        return U @ total @ U.mT

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        raise UserError("matrix_log and matrix_power have no third derivative")

    @staticmethod
    def jvp(ctx: Any, *_: Any) -> Any:
        raise UserError("matrix_log and matrix_power have no third derivative")

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> tuple[Tensor, int]:
        return _Curvature.apply(*in_front(info, in_dims, args)), 0


class Slope(torch.autograd.Function):
    """First derivative at P, with eigenvalues l and eigenvectors U, in the direction C.

    It is differentiable once in P and to any order in C.
    """

    @staticmethod
    def forward(P: Tensor, C: Tensor, p: Exponent, l: Tensor, U: Tensor) -> Tensor:
        return U @ (first_differences(l, p) * (U.mT @ symmetric(C) @ U)) @ U.mT

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        P, C, ctx.p, l, U = inputs
        ctx.save_for_backward(P, C, l, U)
        ctx.save_for_forward(P, C, l, U)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        P, C, l, U = ctx.saved_tensors
        gP = _Curvature.apply(P, C, g, ctx.p, l, U) if ctx.needs_input_grad[0] else None
        return gP, Slope.apply(P, g, ctx.p, l, U), None, None, None

    @staticmethod
    def jvp(ctx: Any, dP: Tensor, dC: Tensor, *_: Any) -> Tensor:
        P, C, l, U = ctx.saved_tensors
        return Slope.apply(P, dC, ctx.p, l, U) + _Curvature.apply(P, C, dP, ctx.p, l, U)

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> tuple[Tensor, int]:
        return Slope.apply(*in_front(info, in_dims, args)), 0


def value(l: Tensor, p: Exponent) -> Tensor:
    """Return f(l)."""
    return l.log() if p is None else l**p


def _name(p: Exponent) -> str:
    return "logarithm" if p is None else f"power {p:g}"


def _in_domain(l: Tensor, p: Exponent, precision: float) -> Tensor:
    """Return eigenvalues (..., d) that are negative by rounding as 0, and the others unchanged.

    Raises:
        UserError: f is not finite at an eigenvalue, or has no real value.
    """
    if not l.numel():  # an empty batch has no smallest eigenvalue
        return l
    nowhere = (
        f"the matrix has no {_name(p)}: smallest eigenvalue {{:.3g}}; pass eps > 0, which is added "
        "to the diagonal"
    )
    negative = (
        f"expected a positive semi-definite matrix for its {_name(p)}, got the eigenvalue {{:.3g}}:"
        " pass a larger eps, or torch.linalg.matrix_power for a whole power"
    )
    large = f"the {_name(p)} of the matrix overflows: largest eigenvalue {{:.3g}}"
    least, rounding = l.min(), 8 * l.shape[-1] * precision * l.abs().amax(-1)
    refusals = [Refusal((l[..., 0] < -rounding).any(), UserError, negative, least)]
    if p is None or p < 0:
        refusals.insert(0, Refusal((l <= 0).any(), UserError, nowhere, least))
    refusals.append(Refusal(~value(l.clamp_min(0), p).isfinite().all(), UserError, large, l.max()))
    return refuse(l, *refusals).clamp_min(0)


class _Spectral(torch.autograd.Function):
    @staticmethod
    def forward(P: Tensor, p: Exponent, eps: float) -> tuple[Tensor, ...]:
        l, U, _ = eigh(P, strict=True)
        l = l + eps
        l = _in_domain(l, p, torch.finfo(P.dtype).eps)
        F = (U * value(l, p).unsqueeze(-2)) @ U.mT
        return like(F, P), (l <= 0).any(), l, U

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        P, ctx.p, _ = inputs
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(P, *output[1:])
        ctx.save_for_forward(P, *output[1:])

    @staticmethod
    def backward(ctx: Any, g: Tensor | None, *_: Any) -> tuple[Tensor | None, None, None]:
        return None if g is None else _slope(ctx, g, builds_graph()), None, None

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> tuple[Any, Any]:
        return _SpectralForward.apply(*in_front(info, in_dims, args)), (0, None, 0, 0)


class _SpectralForward(_Spectral):
    # Note [Compiled functions] of lyapunov.py

    @staticmethod
    def jvp(ctx: Any, dP: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        return _slope(ctx, dP, True), None, None, None


def _slope(ctx: Any, C: Tensor, with_graph: bool) -> Tensor:
    """Return the derivative in the direction C, which is also the gradient for dl/dF = C."""
    P, is_singular, l, U = ctx.saved_tensors
    p: Exponent = ctx.p
    which = "" if p is not None and 0 < p < 1 else " second"
    refused = (
        f"the power {p} has an infinite{which} derivative at a singular matrix: pass eps > 0, "
        "which is added to the diagonal"
    )
    has_kink = p is not None and 0 < p < 2 and p != 1
    if has_kink and not which:
        C = refuse(C, Refusal(is_singular, UserError, refused))
    if not with_graph or (has_kink and is_singular):
        X = Slope.forward(P, C.to(l), p, l, U).to(C)
        return first_only(X, refused, P, C) if with_graph else X
    X = Slope.apply(P.to(l), C.to(l), p, l, U)
    return X.to(C)


def _function(P: Tensor, p: Exponent, eps: float) -> Tensor:
    require_floating(P, "matrices")
    require_square(P)
    require_nonnegative(eps, "eps")
    function = _Spectral if torch.compiler.is_compiling() else _SpectralForward
    F: Tensor = function.apply(P, p, float(eps))[0]
    return F


def matrix_log(P: Tensor, eps: float = 0.0) -> Tensor:
    """Return the logarithm log(P + eps I) of symmetric positive definite P.

    It is U diag(log l) U^T for P + eps I = U diag(l) U^T. Only the symmetric part of P is used.
    First and second derivatives hold at equal eigenvalues too, by reverse and forward mode and
    torch.func. A third derivative is refused.

    Args:
        P: (..., d, d), floating; the arithmetic is float64.
        eps: added to the diagonal.

    Returns:
        (..., d, d) in P's dtype.

    Raises:
        UserError: P + eps I has an eigenvalue that is not positive; P is not square or not of a
            real floating dtype; eps is negative or not finite; a third derivative is computed.
        DecompositionError: a matrix holds NaN or Inf, or could not be decomposed.

    Source: Higham 2008, "Functions of Matrices", chapters 3 and 11.

    Example:
        >>> F = oc.matrix_log(torch.diag(torch.tensor([1.0, torch.e])))
        >>> torch.allclose(F, torch.diag(torch.tensor([0.0, 1.0])), atol=1e-6)
        True
    """
    return _function(P, None, eps)


def matrix_power(P: Tensor, p: float, eps: float = 0.0) -> Tensor:
    """Return the power (P + eps I)^p of symmetric positive semi-definite P, for any real p.

    It is U diag(l^p) U^T for P + eps I = U diag(l) U^T. Only the symmetric part of P is used, and
    eigenvalues that are negative by rounding count as zero. First and second derivatives hold at
    equal eigenvalues too, by reverse and forward mode and torch.func. A third derivative is
    refused. ``matrix_sqrt`` and ``matrix_inv_sqrt`` have derivatives of any order.

    Args:
        P: (..., d, d), floating; the arithmetic is float64. At a singular matrix, negative powers
            are refused, and so are the derivatives that are infinite: the first for 0 < p < 1, and
            the second for 1 < p < 2.
        p: exponent, a finite number.
        eps: added to the diagonal.

    Returns:
        (..., d, d) in P's dtype.

    Raises:
        UserError: p is not a finite number, or eps is negative or not finite; P is not square or
            not of a real floating dtype; P + eps I has a negative eigenvalue, or one of zero for
            p < 0; the power overflows; a derivative is infinite, or a third one.
        DecompositionError: a matrix holds NaN or Inf, or could not be decomposed.

    Source: Higham 2008, "Functions of Matrices", chapters 3 and 7.

    Example:
        >>> F = oc.matrix_power(torch.diag(torch.tensor([8.0, 27.0])), 1 / 3)
        >>> torch.allclose(F, torch.diag(torch.tensor([2.0, 3.0])))
        True
    """
    if not isinstance(p, Real) or not math.isfinite(p):
        raise UserError(f"the exponent must be a finite number, got {p!r}")
    return _function(P, float(p), eps)
