"""Minimax iteration for the square root and its inverse, by matrix products only.

Note [The minimax iteration]
    Let s^2 = |P^2|_F, so that the eigenvalues of P / s are at most 1. With Y = P / s and Z = I,
        M = Z Y,   T = a I + b M + c M^2,   Y <- Y T,   Z <- T Z
    maps the square root x of each eigenvalue of M to a x + b x^3 + c x^5. Y then converges to
    (P / s)^(1/2) and Z to (P / s)^(-1/2). Each step has coefficients of its own: those of the odd
    quintic that is nearest to 1, in the maximum norm, on the interval [l, u] in which the x still
    lie. The next interval is [1 - E, 1 + E], with the error E of this quintic. A declared worst
    condition number k bounds the first interval: s <= d^(1/4) |P|_2, so l^2 = 1 / (8 k) and u = 1
    for all d up to 4096. Nine steps are enough for k = 1e6. More steps change nothing: the
    coefficients converge to (15, -10, 3) / 8, and x = 1 is a stable fixed point of that step. The
    first step computes P^2 in any case. (Amsel et al. 2025, Polar Express; Grishina et al. 2025,
    CANS.)

Note [Lyapunov by the sign function]
    The derivative dQ of the root in a direction dP solves Q dQ + dQ Q = dP. The solution X for the
    right side C is half the upper right block of the matrix sign of [[Q, C], [0, -Q]]. The same
    odd quintics compute this sign, because the eigenvalues of Q / sqrt(s) are in the same interval.
    One step, written for the blocks B (from Q / sqrt(s)) and C, is
        T = a I + b B^2 + c B^4,   D = B C - C B,   E = b D + c (B^2 D + D B^2),
        C <- B E + C T,   B <- B T.
    B and C are symmetric, and so D is antisymmetric: C B = (B C)^T and D B^2 = -(B^2 D)^T. The map
    from C to X is self-adjoint, so the gradient is dl/dP = X for C = sym(dl/dQ). For S = Q^(-1),
    dS = -S dQ S, so C = -S sym(dl/dS) S. Equal eigenvalues are harmless.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from orthocond.errors import UserError
from orthocond.host import is_exporting

WORST = 1e12  # largest condition number; above it, rounding in float64 hides the convergence
ASSUMED = 1e4  # largest eigenvalue of a covariance for which a layer's default condition is enough
SCALE = 8.0  # bound of s / |P|_2 = d^(1/4) in the note, for matrices up to 4096 x 4096
TOLERANCE = 1e-10  # largest residual |Z Y - I|_F / sqrt(d) of a converged iteration

Quintic = tuple[float, float, float]

LIMIT: Quintic = (15 / 8, -10 / 8, 3 / 8)  # nearest quintic to 1 as the interval shrinks to {1}


def _quintic(l: float, u: float) -> Quintic:
    """Return the odd quintic (a, b, c) nearest to 1 on [l, u], by the exchange of Remez.

    The error of the best quintic has its largest size at four points with alternating signs: l,
    the two positive zeros of the derivative, and u.
    """
    if u - l < 1e-3 * u:  # the linear system below would be singular
        centre = (l + u) / 2
        a, b, c = LIMIT
        return a / centre, b / centre**3, c / centre**5
    inner, error = np.array([3 * l + u, l + 3 * u]) / 4, np.inf
    for _ in range(100):
        x = np.array([l, *inner, u])
        system = np.stack([x, x**3, x**5, [1, -1, 1, -1]], axis=1)
        a, b, c, new = np.linalg.solve(system, np.ones(4)).tolist()
        if abs(new - error) <= 1e-15:
            break
        error = new
        root = (9 * b * b - 20 * a * c) ** 0.5
        inner = np.sqrt(np.array([-3 * b - root, -3 * b + root]) / (10 * c))
    return a, b, c


@lru_cache(maxsize=256)
def schedule(condition: float) -> tuple[Quintic, ...]:
    """Return the coefficients of each step for matrices up to a condition number.

    Raises:
        UserError: the condition number is not between 1 and 1e12.

    Example:
        >>> [len(schedule(condition)) for condition in (1e2, 1e4, 1e6)]
        [5, 7, 9]
    """
    if not 1 <= condition <= WORST:
        raise UserError(
            f"condition is {condition}: allowed are condition numbers from 1 to {WORST:.0e}; "
            "a larger eps bounds the condition number by 1 + largest eigenvalue / eps"
        )
    l, u = (SCALE * condition) ** -0.5, 1.0
    steps: list[Quintic] = []
    while 1 - l > 2.0**-50 or not steps:
        a, b, c = _quintic(l, u)
        steps.append((a, b, c))
        l = a * l + b * l**3 + c * l**5
        u = 2 - l
    return tuple(steps)


def default_condition(eps: float) -> float:
    """Return the worst condition number that a layer declares for a covariance plus eps I.

    It is enough for a largest eigenvalue of the covariance up to 1e4, and at most 1e12.

    Example:
        >>> default_condition(1e-2), default_condition(0.0)
        (1000000.0, 1000000000000.0)
    """
    return min(max(ASSUMED / eps, 1.0), WORST) if eps else WORST


def _polynomial(M: Tensor, M2: Tensor, quintic: Quintic) -> Tensor:
    """Return T = a I + b M + c M^2 for M and M^2 (n, d, d)."""
    a, b, c = quintic
    return _plus_identity(b * M + c * M2, a)


def _plus_identity(A: Tensor, a: float) -> Tensor:
    """Return A + a I, in A itself unless the graph is exported, where ONNX needs pure functions."""
    if is_exporting():
        return A + a * torch.eye(A.shape[-1], dtype=A.dtype, device=A.device)
    A.diagonal(dim1=-2, dim2=-1).add_(a)
    return A


def _symmetric(A: Tensor) -> Tensor:
    return (A + A.mT) / 2


def _norm(A: Tensor) -> Tensor:
    """Return the Frobenius norms (n, 1, 1) of A (n, d, d), and 1 for A = 0."""
    norm = A.square().sum((-2, -1), keepdim=True).sqrt()
    return norm.masked_fill(norm == 0, 1)


def iterate(A: Tensor, steps: tuple[Quintic, ...]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the roots of the scaled matrices, the scale and the residual, without a graph.

    Args:
        A: (n, d, d), finite and symmetric, float64.
        steps: the coefficients of ``schedule``.

    Returns:
        (A / s)^(1/2) and (A / s)^(-1/2), both (n, d, d) and symmetric, the scale s (n, 1, 1), and
        the residual (n,), which is above ``TOLERANCE`` or NaN if the condition number of A is too
        large for the steps or A is not positive definite.
    """
    largest = A.abs().amax((-2, -1), keepdim=True)
    s = largest.masked_fill(largest == 0, 1)  # a first scale, so that squares do not overflow
    s = s * _norm(A / s)
    Y = A / s
    Y2 = Y @ Y
    better = _norm(Y2).sqrt()
    s, Y, Y2 = s * better, Y / better, Y2 / better.square()
    Z = T = _polynomial(Y, Y2, steps[0])
    Y = Y @ T
    M = Z @ Y
    for quintic in steps[1:]:
        T = _polynomial(M, M @ M, quintic)
        Y, Z = Y @ T, T @ Z
        M = Z @ Y  # for the next step, and for the residual after the last one
    M = _plus_identity(M, -1.0)
    residual = (M.square().sum((-2, -1)) / A.shape[-1]).sqrt()
    return _symmetric(Y), _symmetric(Z), s, residual


def lyapunov(B: Tensor, C: Tensor, steps: tuple[Quintic, ...]) -> Tensor:
    """Return the solution X of B X + X B = C, by the steps of ``iterate`` that gave B.

    Args:
        B: (n, d, d), the root of a scaled matrix as ``iterate`` returns it.
        C: (n, d, d), symmetric.
        steps: the coefficients of ``schedule``.
    """
    for quintic in steps:
        _, b, c = quintic
        B2 = B @ B
        T = _polynomial(B2, B2 @ B2, quintic)
        D = B @ C
        D = D - D.mT
        E = B2 @ D
        E = b * D + c * (E - E.mT)
        C = _symmetric(torch.baddbmm(B @ E, C, T))
        B = B @ T
    return C / 2
