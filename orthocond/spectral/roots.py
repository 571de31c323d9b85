"""Matrix square root and inverse square root of symmetric matrices, with their backward rules.

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

from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from orthocond.errors import DecompositionError, UserError, require_floating, unknown
from orthocond.spectral.eigh import Eigh, Outcome, eigh
from orthocond.spectral.newton_schulz import iterate, iterate_backward, require_square

Solver = Literal["eigh", "newton-schulz"]
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


class Root(NamedTuple):
    """Root of a matrix, with its outcome and the factors that its gradient needs."""

    value: Tensor  # (..., d, d), in P's dtype
    outcome: Tensor  # (...), int8 values of Outcome
    factors: tuple[Tensor, ...]  # intermediate results of the solver, for root_backward


def _by_eigh(P: Tensor, power: Power, eps: float, strict: bool) -> Root:
    """Return the root by eigendecomposition; its factors are the eigenvalues and eigenvectors."""
    l, U, outcome = eigh(P)
    if strict:
        Eigh(l, U, outcome).require()
    l = l + eps
    if strict and power == "inv_sqrt" and (l <= 0).any():
        raise UserError(
            f"the matrix has no inverse square root: smallest eigenvalue {l.min():.3g}; "
            "pass eps > 0, which is added to the diagonal"
        )
    # Rounding can make zero eigenvalues of P negative. In a layer, eigenvalues of P below -eps / 2
    # count as -eps / 2, which bounds the amplification.
    l = l.clamp_min(0 if power == "sqrt" or strict else eps / 2)
    failed = outcome == Outcome.FAILED
    if power == "inv_sqrt":
        failed = failed | (l <= 0).any(-1)
    # Zero eigenvectors make both the value and the gradient of a failed matrix zero.
    U = torch.where(failed[..., None, None], 0, U)
    l = torch.where(failed[..., None], 1, l)
    outcome = torch.where(failed, int(Outcome.FAILED), outcome).to(torch.int8)
    f = l.sqrt() if power == "sqrt" else l.rsqrt()
    return Root(((U * f.unsqueeze(-2)) @ U.mT).to(P.dtype), outcome, (l, U))


def _by_iteration(P: Tensor, power: Power, eps: float, strict: bool) -> Root:
    """Return the root by Newton-Schulz; its factors are a success mask and those of ``iterate``.

    A matrix fails if it or its root is not finite, or if its trace is negative.
    """
    require_square(P)
    which = 0 if power == "sqrt" else 1
    identity = torch.eye(P.shape[-1], dtype=torch.float64, device=P.device)
    A = P.double() + eps * identity
    A = (A + A.mT) / 2
    *roots, factors = iterate(A)
    positive = A.diagonal(dim1=-2, dim2=-1).sum(-1) >= 0
    worked = roots[which].isfinite().flatten(-2).all(-1) & positive
    outcome = torch.where(worked, int(Outcome.OK), int(Outcome.FAILED)).to(torch.int8)
    failed = int((~worked).sum())
    if strict and failed:
        raise DecompositionError(
            f"the iteration failed on {failed} of {worked.numel()} matrices: they hold "
            "NaN or Inf or have a negative trace; check the features before the covariance"
        )
    keep = worked[..., None, None]
    if failed:
        # A failed matrix must not reach the factors: 0 * NaN is NaN.
        *roots, factors = iterate(torch.where(keep, A, identity))
        roots[which] = roots[which] * keep
    return Root(roots[which].to(P.dtype), outcome, (keep, *factors))


def root_forward(P: Tensor, power: Power, eps: float, solver: Solver, strict: bool = False) -> Root:
    """Return the root of P (..., d, d) with its factors, without an autograd graph.

    ``strict`` raises on failure, as ``matrix_sqrt`` does; without it, failures are recorded, as in
    ``root``. A caller with its own backward passes the factors to ``root_backward``.
    """
    solve = _by_eigh if solver == "eigh" else _by_iteration
    with torch.no_grad():
        return solve(P, power, eps, strict)


def root_backward(
    factors: tuple[Tensor, ...], g: Tensor, power: Power, rule: Backward, solver: Solver
) -> Tensor:
    """Return dl/dP (..., d, d) from the factors of ``root_forward`` and g = dl/dF (..., d, d).

    The gradient has g's dtype. It is zero for a matrix that failed.
    """
    if solver == "eigh":
        l, U = factors
        S = U.mT @ ((g + g.mT) / 2).to(U.dtype) @ U
        D = divided_differences(l, power, rule)
        return (U @ (D * S) @ U.mT).to(g.dtype)
    keep, *steps = factors
    gF = g.double() * keep
    none = torch.zeros_like(gF)
    gA = iterate_backward(tuple(steps), *((gF, none) if power == "sqrt" else (none, gF)))
    return torch.where(keep, (gA + gA.mT) / 2, 0).to(g.dtype)


class _Root(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, P: Tensor, power: Power, rule: Backward, eps: float, solver: Solver, strict: bool
    ) -> tuple[Tensor, Tensor]:
        value, outcome, factors = root_forward(P, power, eps, solver, strict)
        ctx.save_for_backward(*factors)
        ctx.settings = power, rule, solver
        ctx.mark_non_differentiable(outcome)
        return value, outcome

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        return root_backward(ctx.saved_tensors, g, *ctx.settings), *[None] * 5


def check_rules(solver: str, backward: str) -> None:
    """Raise a UserError for an unknown solver or backward rule, or an unsupported combination."""
    if solver not in get_args(Solver):
        raise unknown("solver", solver, get_args(Solver))
    if backward not in get_args(Backward):
        raise unknown("backward", backward, get_args(Backward))
    if solver == "newton-schulz" and backward != "exact":
        raise UserError(
            f"solver 'newton-schulz' has its own backward: use backward='exact', not {backward!r}"
        )


def root(
    P: Tensor, power: Power, rule: Backward = "exact", eps: float = 0.0, solver: Solver = "eigh"
) -> tuple[Tensor, Tensor]:
    """Return (P + eps I)^(1/2) or ^(-1/2) and record failures instead of raising, for layers.

    Rounding can give a covariance negative eigenvalues. For the inverse root, eigenvalues of P
    below -eps / 2 count as -eps / 2. For the square root, those below -eps count as -eps.

    Args:
        P: (..., d, d), symmetric positive semi-definite up to rounding; differentiable.
        power: ``sqrt`` or ``inv_sqrt``.
        rule: the backward rule, as ``backward`` in ``matrix_sqrt``.
        eps: added to the diagonal.
        solver: as in ``matrix_sqrt``.

    Returns:
        The root (..., d, d) in P's dtype, and the int8 outcome (...) of ``Outcome``. The root and
        gradient of a matrix that FAILED (NaN or Inf, no convergence, no inverse root) are zero.

    Example:
        >>> F, outcome = root(torch.diag(torch.tensor([3.0, 0.0])), "inv_sqrt", eps=1.0)
        >>> F.diagonal().tolist(), outcome.item()
        ([0.5, 1.0], 0)
    """
    check_rules(solver, rule)
    require_floating(P, "matrices")
    F, outcome = _Root.apply(P, power, rule, eps, solver, False)
    return F, outcome


def _strict(P: Tensor, power: Power, solver: Solver, backward: Backward, eps: float) -> Tensor:
    check_rules(solver, backward)
    require_floating(P, "matrices")
    require_square(P)
    if not 0 <= eps < float("inf"):
        raise UserError(f"eps must be 0 or more and finite, got {eps}")
    return _Root.apply(P, power, backward, eps, solver, True)[0]


def matrix_sqrt(
    P: Tensor, solver: Solver = "eigh", backward: Backward = "exact", eps: float = 0.0
) -> Tensor:
    """Return the square root (P + eps I)^(1/2) of symmetric positive semi-definite P (eq. 4).

    Only the symmetric part of P is used. Negative eigenvalues of P + eps I count as zero.
    The gradient is symmetric, and infinite at a zero eigenvalue like the derivative of sqrt(x) at
    0: pass eps > 0 for singular matrices. There is no second derivative.

    Args:
        P: (..., d, d), floating; the arithmetic is float64.
        solver: ``eigh``, or ``newton-schulz``: five steps of the coupled iteration, inexact on
            ill-conditioned matrices.
        backward: ``exact`` uses divided differences and is safe at equal eigenvalues. ``pade``,
            ``taylor`` and ``raw`` are for comparison: eqs. 5 to 7 with 1 / (li - lj) approximated,
            or unchanged for ``raw``. ``newton-schulz`` allows only ``exact``: the exact gradient
            of the iteration.
        eps: added to the diagonal.

    Returns:
        (..., d, d) in P's dtype.

    Raises:
        UserError: the solver or backward rule is unknown, the two can't be combined, P is not
            square or not of a real floating dtype, or eps is negative or not finite.
        DecompositionError: a matrix holds NaN or Inf, or could not be decomposed.

    Example:
        >>> oc.matrix_sqrt(torch.diag(torch.tensor([4.0, 9.0]))).diagonal().tolist()
        [2.0, 3.0]
    """
    return _strict(P, "sqrt", solver, backward, eps)


def matrix_inv_sqrt(
    P: Tensor, solver: Solver = "eigh", backward: Backward = "exact", eps: float = 0.0
) -> Tensor:
    """Return the inverse square root (P + eps I)^(-1/2) of symmetric positive definite P (eq. 4).

    The arguments, the result and the errors are the same as in ``matrix_sqrt``. The solver ``eigh``
    also raises a UserError if P + eps I has an eigenvalue that is not positive. ``newton-schulz``
    does not detect this: after five steps a zero eigenvalue still has a finite inverse.

    Example:
        >>> oc.matrix_inv_sqrt(torch.diag(torch.tensor([4.0, 16.0]))).diagonal().tolist()
        [0.5, 0.25]
    """
    return _strict(P, "inv_sqrt", solver, backward, eps)
