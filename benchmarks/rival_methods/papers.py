"""Methods without a package, written from the formulas of their papers.

- IterNorm: Huang et al. 2019, "Iterative Normalization: Beyond Standardization towards Efficient
  Whitening", equations 4 and 5.
- iSQRT-COV: Li et al. 2018, "Towards Faster Training of Global Covariance Pooling Networks by
  Iterative Matrix Square Root Normalization", equations 2 to 5.
- MPA-Lya: Song et al. 2022, "Fast Differentiable Matrix Square Root", the Pade forward and the
  Lyapunov backward, as the released code combines them.
- CANS: Grishina et al. 2025, "Accelerating Newton-Schulz Iteration for Orthogonalization via
  Chebyshev-type Polynomials", cubic polynomials and Gelfand's bound of the norm.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import mpmath
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

PADE_DEGREE = 5
LYAPUNOV_STEPS = 8  # as in the paper and the released code


def _trace(P: Tensor) -> Tensor:
    return P.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None]


def _identity(P: Tensor) -> Tensor:
    return torch.eye(P.shape[-1], dtype=P.dtype, device=P.device)


def iternorm(P: Tensor, steps: int) -> Tensor:
    """Return P^(-1/2) (..., d, d) by IterNorm's Newton iteration, with autograd through it."""
    trace = _trace(P)
    N, identity = P / trace, _identity(P)
    F = (3 * identity - N) / 2  # the first step from F = I
    for _ in range(steps - 1):
        F = (3 * F - F @ F @ F @ N) / 2
    return F * trace.rsqrt()


def isqrt(P: Tensor, steps: int) -> Tensor:
    """Return P^(1/2) (..., d, d) by iSQRT-COV, which leaves out products of the ends."""
    trace, identity = _trace(P), _identity(P)
    A = P / trace
    Z = T = (3 * identity - A) / 2
    Y = A @ T
    for _ in range(steps - 2):
        T = (3 * identity - Z @ Y) / 2
        Y, Z = Y @ T, T @ Z
    Y = Y @ (3 * identity - Z @ Y) / 2
    return Y * trace.sqrt()


@lru_cache
def pade_coefficients() -> tuple[list[float], list[float]]:
    """Return the numerator and denominator of the [5/5] approximant of (1 - z)^(1/2)."""
    with mpmath.workdps(32):
        series = mpmath.taylor(lambda z: mpmath.sqrt(1 - z), 0, 2 * PADE_DEGREE)
        p, q = mpmath.pade(series, PADE_DEGREE, PADE_DEGREE)
        return [float(x) for x in p], [float(x) for x in q]


def _pade(A: Tensor) -> tuple[Tensor, Tensor]:
    """Return p(I - A) and q(I - A), whose quotient is about A^(1/2)."""
    identity = _identity(A)
    Z, power = identity - A, identity
    p, q = (c[0] * identity for c in pade_coefficients())
    for a, b in zip(*(c[1:] for c in pade_coefficients()), strict=True):
        power = power @ Z
        p, q = p + a * power, q + b * power
    return p, q


def _lyapunov(B: Tensor, C: Tensor) -> Tensor:
    """Return X of B X + X B = C, by Newton-Schulz steps for the sign of a block matrix."""
    norm = torch.linalg.matrix_norm(B, keepdim=True)
    B, C, identity = B / norm, C / norm, _identity(B)
    for _ in range(LYAPUNOV_STEPS):
        B2 = B @ B
        N = 3 * identity - B2
        C = (C @ N - B2 @ C + B @ C @ B) / 2
        B = B @ N / 2
    return C / 2


class MpaLyaRoot(torch.autograd.Function):
    """P^(1/2) (..., d, d) by MPA-Lya."""

    @staticmethod
    def forward(ctx: Any, P: Tensor) -> Tensor:
        """Return the root by the Pade approximant of P over its Frobenius norm."""
        norm = torch.linalg.matrix_norm(P, keepdim=True)
        p, q = _pade(P / norm)
        Q = torch.inverse(q) @ p * norm.sqrt()
        ctx.save_for_backward(Q)
        return Q

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> Tensor:
        """Return dl/dP, which solves Q X + X Q = dl/dQ."""
        (Q,) = ctx.saved_tensors
        return _lyapunov(Q, (g + g.mT) / 2)


class MpaLyaInverse(torch.autograd.Function):
    """P^(-1/2) (..., d, d) by MPA-Lya."""

    @staticmethod
    def forward(ctx: Any, P: Tensor) -> Tensor:
        """Return the inverse root by the inverse of the approximant."""
        norm = torch.linalg.matrix_norm(P, keepdim=True)
        p, q = _pade(P / norm)
        S = torch.inverse(p) @ q * norm.rsqrt()
        ctx.save_for_backward(S)
        return S

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> Tensor:
        """Return dl/dP, which solves S X + X S = -S^2 (dl/dS) S^2."""
        (S,) = ctx.saved_tensors
        S2 = S @ S
        return _lyapunov(S, -S2 @ ((g + g.mT) / 2) @ S2)


@lru_cache
def cans_cubics(least: float) -> list[tuple[float, float]]:
    """Return (a, b) of each cubic a x - b x^3 from the interval [least, 1], until all is 1.

    Each cubic is the one nearest to 1 on its interval [l, u]. Its error is equal at l, at u and,
    with the other sign, at its maximum.
    """
    l, u, found = least, 1.0, []
    while 1 - l > 1e-7:
        mean = (l * l + l * u + u * u) / 3  # the square of the place of the maximum
        b = 2 / (2 * mean**1.5 + l * u * (l + u))
        found.append((3 * mean * b, b))
        u = 2 * b * mean**1.5
        l = 2 - u
    return found


def cans(G: Tensor, least: float) -> Tensor:
    """Return the polar factor of wide matrices G (..., m, n) whose singular values / |G|_2 >= l."""
    A = G @ G.mT
    bound = torch.linalg.matrix_norm(A @ A, keepdim=True) ** 0.25  # Gelfand: |(G G^T)^2|_F^(1/4)
    X, A = G / bound, A / bound.square()
    for k, (a, b) in enumerate(cans_cubics(least)):
        X = a * X - b * (A if k == 0 else X @ X.mT) @ X
    return X
