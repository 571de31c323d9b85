"""Derivative of a matrix root in the eigenbasis: the exact rule and those of the paper.

Note [Backward rules]
    For F = U f(L) U^T the gradient is dl/dP = U (D o (U^T sym(dl/dF) U)) U^T with the divided
    differences D_ij = (f(li) - f(lj)) / (li - lj) and D_ii = f'(li). For the roots the rule
    ``exact`` uses closed forms without the difference li - lj:
        sqrt      D_ij = 1 / (sqrt li + sqrt lj)
        inverse   D_ij = -1 / (sqrt li sqrt lj (sqrt li + sqrt lj))
    Equations 5 to 7 of the paper, symmetrised, have the same form with
    D_ij = K_ij (f(li) - f(lj)). The rule ``raw`` uses K_ij = 1 / (li - lj). The paper's reference
    [46] writes K_ij = (1/li) / (1 - x) with x = lj / li < 1. It replaces 1 / (1 - x) by
    sum_{k<=100} x^k (``taylor``) or by the [50/50] Pade approximant (``pade``).

Note [Pade coefficients]
    The [50/50] Pade approximant of 1 + x + x^2 + ... is 1 / (1 - x) itself: the linear system for
    its coefficients has rank one. Its least-norm solution is q_k = -1/50 and p_k = 1 - k/50, so
    P/Q is 1 / (1 - x) with a common factor. In floating point Q(1) is rounding noise, so Q is
    bounded below by the machine epsilon, which caps the value at ties. So ``pade`` equals ``raw``
    up to rounding, and neither helps at equal eigenvalues. ``exact`` does.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Backward = Literal["exact", "pade", "taylor", "raw"]
Power = Literal["sqrt", "inv_sqrt"]

DEGREE = 100  # degree of the Taylor polynomial; the Pade approximant is [DEGREE/2, DEGREE/2]


def _horner(coefficients: list[float], x: Tensor) -> Tensor:
    value = torch.zeros_like(x)
    for c in reversed(coefficients):
        value = value * x + c
    return value


def _taylor(x: Tensor) -> Tensor:
    return _horner([1.0] * (DEGREE + 1), x)


def _pade(x: Tensor) -> Tensor:
    n = DEGREE // 2
    numerator = _horner([1 - k / n for k in range(n + 1)], x)
    denominator = _horner([1.0] + [-1 / n] * n, x)
    return numerator / denominator.clamp_min(torch.finfo(x.dtype).eps)


def reciprocal_gaps(l: Tensor, rule: Backward) -> Tensor:
    """Return K_ij = 1 / (li - lj) off the diagonal, computed by the given rule (eq. 7).

    Args:
        l: eigenvalues (..., d), positive.
        rule: ``raw``, ``taylor`` or ``pade``.

    Returns:
        (..., d, d) with a zero diagonal. It is antisymmetric except at ties (li = lj). There
        ``raw`` is infinite, and the other rules have the positive cap of their series.
    """
    li, lj = l.unsqueeze(-1), l.unsqueeze(-2)  # (..., d, 1), (..., 1, d)
    diagonal = torch.eye(l.shape[-1], dtype=torch.bool, device=l.device)
    if rule == "raw":
        return torch.where(diagonal, 0, 1 / (li - lj))
    larger, smaller = torch.maximum(li, lj), torch.minimum(li, lj)
    series = _taylor if rule == "taylor" else _pade
    # At ties both K_ij and K_ji get the positive cap, which is harmless: f(li) - f(lj) is 0.
    sign = torch.where(li >= lj, 1.0, -1.0).to(l.dtype)
    return torch.where(diagonal, 0, sign * series(smaller / larger) / larger)


def divided_differences(l: Tensor, power: Power, rule: Backward = "exact") -> Tensor:
    """Return the matrix D (..., d, d) of Note [Backward rules] for eigenvalues l (..., d)."""
    s = l.sqrt()
    si, sj = s.unsqueeze(-1), s.unsqueeze(-2)
    exact = 1 / (si + sj) if power == "sqrt" else -1 / (si * sj * (si + sj))
    if rule == "exact":
        return exact
    f = s if power == "sqrt" else 1 / s
    D = reciprocal_gaps(l, rule) * (f.unsqueeze(-1) - f.unsqueeze(-2))
    diagonal = torch.eye(l.shape[-1], dtype=torch.bool, device=l.device)
    return torch.where(diagonal, exact, D)
