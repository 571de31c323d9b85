"""Matrix square root and inverse square root of symmetric matrices, with their backward rules.

Note [Backward rules]
    For F = U f(L) U^T the gradient is dl/dP = U (D o (U^T sym(dl/dF) U)) U^T with the divided
    differences D_ij = (f(li) - f(lj)) / (li - lj) and D_ii = f'(li). Written out for the roots,
    ``exact`` has no li - lj in it:
        sqrt      D_ij = 1 / (sqrt li + sqrt lj)
        inverse   D_ij = -1 / (sqrt li sqrt lj (sqrt li + sqrt lj))
    Equations 5 to 7 of the paper, symmetrised, are the same with D_ij = K_ij (f(li) - f(lj)).
    ``raw`` takes K_ij = 1 / (li - lj). The paper's reference [46] writes
    K_ij = (1/li) / (1 - x) with x = lj / li < 1 and replaces 1 / (1 - x) by
    sum_{k<=100} x^k (``taylor``) or by its [50/50] Pade approximant (``pade``).

Note [Pade coefficients]
    The [50/50] Pade approximant of 1 + x + x^2 + ... is 1 / (1 - x) itself: the linear system for
    its coefficients has rank one. Its least-norm solution is q_k = -1/50 and p_k = 1 - k/50, which
    is P/Q = 1 / (1 - x) with a common factor. In floating point Q(1) is rounding, so Q is bounded
    below by the machine epsilon, which caps the value at ties. So ``pade`` is ``raw`` up to
    rounding, and neither is a remedy at equal eigenvalues; ``exact`` is.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from torch import Tensor

from orthocond.spectral.eigh import eigh

Backward = Literal["exact", "pade", "taylor", "raw"]
Power = Literal["sqrt", "inv_sqrt"]

DEGREE = 100  # of the Taylor polynomial; the Pade approximant is [DEGREE/2, DEGREE/2]


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
    """K_ij = 1 / (li - lj) off the diagonal, by the rule (eq. 7).

    Args:
        l: eigenvalues (..., d), positive.
        rule: ``raw``, ``taylor`` or ``pade``.

    Returns:
        (..., d, d), antisymmetric with a zero diagonal; infinite at ties for ``raw``.
    """
    li, lj = l.unsqueeze(-1), l.unsqueeze(-2)  # (..., d, 1), (..., 1, d)
    diagonal = torch.eye(l.shape[-1], dtype=torch.bool, device=l.device)
    if rule == "raw":
        return torch.where(diagonal, 0, 1 / (li - lj))
    larger, smaller = torch.maximum(li, lj), torch.minimum(li, lj)
    series = _taylor if rule == "taylor" else _pade
    # Ties get the cap with the sign of the order in which they stand; f(li) - f(lj) is 0 there.
    sign = torch.where(li >= lj, 1.0, -1.0).to(l.dtype)
    return torch.where(diagonal, 0, sign * series(smaller / larger) / larger)


def divided_differences(l: Tensor, power: Power, rule: Backward = "exact") -> Tensor:
    """The matrix D of Note [Backward rules], from eigenvalues (..., d) to (..., d, d)."""
    s = l.sqrt()
    si, sj = s.unsqueeze(-1), s.unsqueeze(-2)
    exact = 1 / (si + sj) if power == "sqrt" else -1 / (si * sj * (si + sj))
    if rule == "exact":
        return exact
    f = s if power == "sqrt" else 1 / s
    D = reciprocal_gaps(l, rule) * (f.unsqueeze(-1) - f.unsqueeze(-2))
    diagonal = torch.eye(l.shape[-1], dtype=torch.bool, device=l.device)
    return torch.where(diagonal, exact, D)


class _Root(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, P: Tensor, power: Power, rule: Backward, eps: float) -> Tensor:
        l, U, _ = eigh(P).require()
        l = l + eps
        if power == "sqrt":
            l = l.clamp_min(0)  # rounding makes zero eigenvalues negative
        elif (l <= 0).any():
            raise ValueError(
                f"the matrix has no inverse square root: smallest eigenvalue {l.min():.3g}; "
                "pass eps > 0, which is added to the diagonal"
            )
        f = l.sqrt() if power == "sqrt" else l.rsqrt()
        ctx.save_for_backward(l, U)
        ctx.power, ctx.rule = power, rule
        return ((U * f.unsqueeze(-2)) @ U.mT).to(P.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (g,) = gradients
        l, U = ctx.saved_tensors
        S = U.mT @ ((g + g.mT) / 2).to(U.dtype) @ U
        D = divided_differences(l, ctx.power, ctx.rule)
        return (U @ (D * S) @ U.mT).to(g.dtype), None, None, None


def _check(rule: str) -> None:
    if rule not in get_args(Backward):
        raise ValueError(f"unknown backward {rule!r}: allowed are {', '.join(get_args(Backward))}")


def matrix_sqrt(P: Tensor, backward: Backward = "exact", eps: float = 0.0) -> Tensor:
    """Square root of symmetric positive semi-definite matrices, (P + eps I)^(1/2) (eq. 4).

    Negative eigenvalues of P + eps I count as zero. The gradient is that of the symmetric part; at
    a zero eigenvalue it is infinite, as the square root's is: pass eps > 0 for singular matrices.

    Args:
        P: (..., d, d), floating; the arithmetic is float64.
        backward: ``exact`` (divided differences; ties are harmless), or, for comparison, ``pade``,
            ``taylor`` or ``raw``: eqs. 5 to 7 with 1 / (li - lj) approximated or taken as it is.
        eps: added to the diagonal.

    Returns:
        (..., d, d) in P's dtype.

    Raises:
        ValueError: unknown backward rule, or P is not square.
        DecompositionError: a matrix holds NaN or Inf, or could not be decomposed.

    Example:
        >>> matrix_sqrt(torch.diag(torch.tensor([4.0, 9.0]))).diagonal().tolist()
        [2.0, 3.0]
    """
    _check(backward)
    return _Root.apply(P, "sqrt", backward, eps)


def matrix_inv_sqrt(P: Tensor, backward: Backward = "exact", eps: float = 0.0) -> Tensor:
    """Inverse square root of symmetric positive definite matrices, (P + eps I)^(-1/2) (eq. 4).

    Arguments, result and errors are those of ``matrix_sqrt``; a ValueError also where P + eps I has
    an eigenvalue that is not positive.

    Example:
        >>> matrix_inv_sqrt(torch.diag(torch.tensor([4.0, 16.0]))).diagonal().tolist()
        [0.5, 0.25]
    """
    _check(backward)
    return _Root.apply(P, "inv_sqrt", backward, eps)
