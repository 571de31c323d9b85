"""Solvers of the matrix roots, each with its forward and its backward pass, without autograd."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from orthocond.errors import DecompositionError, UserError, require_whole, unknown
from orthocond.host import Refusal, double, like, refuse
from orthocond.spectral import minimax, newton_schulz
from orthocond.spectral.backward_rules import Backward, Power, divided_differences
from orthocond.spectral.eigh import Outcome, eigh
from orthocond.spectral.lyapunov import known_inverse, known_sqrt, lyapunov, solve, symmetric
from orthocond.spectral.newton_schulz import ITERATIONS, require_square

Solver = Literal["eigh", "newton-schulz", "minimax"]

TRIED = tuple(map(minimax.schedule, (1e6, minimax.WORST)))  # the steps that a function tries
NO_INVERSE = (
    "the matrix has no inverse square root: smallest eigenvalue {:.3g}; pass eps > 0, which is "
    "added to the diagonal"
)


class Method(NamedTuple):
    """Solver of a root with its settings."""

    solver: Solver = "eigh"
    backward: Backward = "exact"
    steps: int = ITERATIONS  # of newton-schulz
    quintics: tuple[minimax.Quintic, ...] = ()  # steps of minimax; (): try some numbers in turn


class Root(NamedTuple):
    """Root of a matrix, with its outcome and what its gradient needs."""

    value: Tensor  # (..., d, d), in P's dtype
    outcome: Tensor  # (...), int8 values of Outcome
    factors: tuple[Tensor, ...]  # intermediate results of the solver, for root_backward
    method: Method  # the settings that were used, for root_backward


def _by_eigh(P: Tensor, power: Power, eps: float, method: Method, strict: bool) -> Root:
    """Return the root by eigendecomposition; its factors are the eigenvalues and eigenvectors."""
    l, U, outcome = eigh(P, strict=strict)
    l = l + eps
    if strict and power == "inv_sqrt" and l.numel():
        l = refuse(l, Refusal((l <= 0).any(), UserError, NO_INVERSE, l.min()))
    # Rounding can make zero eigenvalues of P negative. In a layer, eigenvalues of P below -eps / 2
    # count as -eps / 2, which bounds the amplification.
    l = l.clamp_min(0 if power == "sqrt" or strict else eps / 2)
    failed = outcome == int(Outcome.FAILED)
    if power == "inv_sqrt":
        failed = failed | (l <= 0).any(-1)
    # Zero eigenvectors make both the value and the gradient of a failed matrix zero.
    U = torch.where(failed[..., None, None], 0, U)
    l = torch.where(failed[..., None], 1, l)
    outcome = torch.where(failed, int(Outcome.FAILED), outcome).to(torch.int8)
    f = l.sqrt() if power == "sqrt" else l.rsqrt()
    return Root(like((U * f.unsqueeze(-2)) @ U.mT, P), outcome, (l, U), method)


def _with_ridge(P: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Return sym(P) + eps I in float64, and whether it is finite and its trace is not negative.

    A matrix for which this is False is replaced by the identity.
    """
    require_square(P)
    A = double(P)
    identity = torch.eye(A.shape[-1], dtype=A.dtype, device=A.device)
    A = A + eps * identity
    A = (A + A.mT) / 2
    keep = A.isfinite().flatten(-2).all(-1) & (A.diagonal(dim1=-2, dim2=-1).sum(-1) >= 0)
    return torch.where(keep[..., None, None], A, identity), keep


def _by_newton_schulz(P: Tensor, power: Power, eps: float, method: Method, strict: bool) -> Root:
    """Return the root by Newton-Schulz; its factors are a success mask and those of ``iterate``.

    A matrix fails if it or its root is not finite, or if its trace is negative.
    """
    A, keep = _with_ridge(P, eps)
    sqrt, inverse, factors = newton_schulz.iterate(A, method.steps)
    F = sqrt if power == "sqrt" else inverse
    keep = keep & F.isfinite().flatten(-2).all(-1)
    outcome = (~keep).to(torch.int8) * int(Outcome.FAILED)
    if strict:
        line = (
            f"the iteration failed on {{}} of {keep.numel()} matrices: they hold NaN or Inf or "
            "have a negative trace; check the features before the covariance"
        )
        F = refuse(F, Refusal(~keep.all(), DecompositionError, line, (~keep).sum()))
    keep = keep[..., None, None]
    return Root(like(F.masked_fill(~keep, 0), P), outcome, (keep, *factors), method)


def _by_minimax(P: Tensor, power: Power, eps: float, method: Method, strict: bool) -> Root:
    """Return the root by the minimax iteration, without a branch on the data unless ``strict``.

    Its factors are a success mask, the scale, the scaled root and, for the inverse root, the scaled
    inverse root. A matrix fails as in Newton-Schulz. It is INEXACT if the residual is too large:
    P + eps I is then singular, indefinite or worse conditioned than declared.
    """
    A, keep = _with_ridge(P, eps)
    d, batch = A.shape[-1], A.shape[:-2]
    tried = (method.quintics,) if method.quintics else tried_quintics()
    for quintics in tried:
        sqrt, inverse, s, residual = minimax.iterate(A.reshape(-1, d, d), quintics)
        missed = ~(residual <= minimax.TOLERANCE).view(batch)  # NaN is a miss
        if quintics is tried[-1] or not (missed & keep).any():
            break
    F = sqrt * s.sqrt() if power == "sqrt" else inverse * s.rsqrt()
    F = F.view(A.shape)
    keep = keep & F.isfinite().flatten(-2).all(-1)
    if strict:
        bad = missed | ~keep
        line = (
            f"the iteration failed on {{}} of {keep.numel()} matrices: they hold NaN or Inf, are "
            f"singular or indefinite, or have a condition number above {minimax.WORST:.0e}; pass "
            "eps > 0, which is added to the diagonal, or use 'eigh'"
        )
        F = refuse(F, Refusal(bad.any(), DecompositionError, line, bad.sum()))
    outcome = missed.to(torch.int8) * int(Outcome.INEXACT)
    outcome = outcome.masked_fill(~keep, int(Outcome.FAILED))
    keep = keep[..., None, None]
    s, sqrt, inverse = s.view(*batch, 1, 1), sqrt.view(A.shape), inverse.view(A.shape)
    factors = (keep, s, sqrt) if power == "sqrt" else (keep, s, sqrt, inverse)
    value = like(F.masked_fill(~keep, 0), P)
    return Root(value, outcome, factors, method._replace(quintics=quintics))


SOLVERS = {"eigh": _by_eigh, "newton-schulz": _by_newton_schulz, "minimax": _by_minimax}


def root_forward(P: Tensor, power: Power, eps: float, method: Method, strict: bool = False) -> Root:
    """Return the root of P (..., d, d) with its factors, without an autograd graph.

    ``strict`` raises on failure, as ``matrix_sqrt`` does; without it, failures are recorded, as in
    ``root``. A caller with its own backward passes factors and method to ``root_backward``.
    """
    with torch.no_grad():
        return SOLVERS[method.solver](P, power, eps, method, strict)


def root_backward(factors: tuple[Tensor, ...], g: Tensor, power: Power, method: Method) -> Tensor:
    """Return dl/dP (..., d, d) from a Root's factors and method, and g = dl/dF (..., d, d).

    The gradient has g's dtype. It is zero for a matrix that failed.
    """
    if method.solver == "eigh":
        l, U = factors
        S = U.mT @ symmetric(g).to(U) @ U
        D = divided_differences(l, power, method.backward)
        return (U @ (D * S) @ U.mT).to(g)
    keep, *others = factors
    gF = double(g) * keep
    if method.solver == "newton-schulz":
        none = torch.zeros_like(gF)
        both = (gF, none) if power == "sqrt" else (none, gF)
        gA = newton_schulz.iterate_backward(tuple(others), *both)
        return torch.where(keep, (gA + gA.mT) / 2, 0).to(g)
    s, Q, *inverse = others
    C = symmetric(gF)
    C = -(inverse[0] @ C @ inverse[0]) / s if inverse else C  # dS = -S dQ S, S = inverse / sqrt(s)
    return solve(C, method.quintics, (Q, s)).masked_fill(~keep, 0).to(g)


def tried_quintics() -> tuple[tuple[minimax.Quintic, ...], ...]:
    """Return the schedules that a function tries in turn, each until no residual is too large.

    Inside of a trace, where nothing can branch on a residual, it is the longest alone. More steps
    than needed change nothing.
    """
    return TRIED[-1:] if torch.compiler.is_compiling() else TRIED


def used_quintics(steps: Tensor) -> tuple[minimax.Quintic, ...]:
    """Return the schedule with this number of steps () among those that a function tries."""
    tried = tried_quintics()
    return tried[0] if len(tried) == 1 else next(q for q in tried if len(q) == int(steps))


def is_smooth(method: Method) -> bool:
    """Return whether the derivative is that of the root, and not a rule or that of an iteration."""
    return method.backward == "exact" and method.solver != "newton-schulz"


def _known(
    P: Tensor, power: Power, factors: tuple[Tensor, ...], method: Method
) -> tuple[Tensor, Tensor | None, tuple[Tensor, ...]]:
    """Return P^(1/2), P^(-1/2) if it is the power, and the factors for ``lyapunov``."""
    if method.solver == "eigh":
        l, U = factors
        q = l.sqrt()
        Q = known_sqrt(P, (U * q.unsqueeze(-2)) @ U.mT, (), q, U)
        if power == "sqrt":
            return Q, None, (q, U)
        return Q, known_inverse(Q, (U / q.unsqueeze(-2)) @ U.mT), (q, U)
    keep, s, B, *inverse = factors
    value = (B * s.sqrt()).masked_fill(~keep, 0)
    Q = known_sqrt(P, value, method.quintics, B, s)
    if power == "sqrt":
        return Q, None, (B, s)
    return Q, known_inverse(Q, (inverse[0] * s.rsqrt()).masked_fill(~keep, 0)), (B, s)


def known_root(P: Tensor, power: Power, factors: tuple[Tensor, ...], method: Method) -> Tensor:
    """Return the root that has these factors, differentiable in P to any order.

    Args:
        P: (..., d, d), float64 and symmetric. Only its gradient is used.
        power: ``sqrt`` or ``inv_sqrt``.
        factors: factors of the root, from ``root_forward``.
        method: settings for which ``is_smooth`` is True.
    """
    Q, S, _ = _known(P, power, factors, method)
    return Q if S is None else S


def root_slope(
    P: Tensor, C: Tensor, power: Power, factors: tuple[Tensor, ...], method: Method
) -> Tensor:
    """Return the derivative of the root in the direction sym(C), differentiable in P and C.

    This map is self-adjoint: for C = dl/dF it is dl/dP, as ``root_backward`` computes it without a
    graph. See Note [Derivatives by Lyapunov equations]. The arguments are those of ``known_root``.
    """
    Q, S, solver = _known(P, power, factors, method)
    C = symmetric(C)
    if method.solver == "minimax":
        C = C.masked_fill(~factors[0], 0)
    return lyapunov(Q, C if S is None else -(S @ C @ S), method.quintics, *solver)


def check_iteration(solver: str, steps: int, condition: float | None) -> None:
    """Raise a UserError for settings of an iteration that the solver does not use."""
    require_whole(steps, "steps")
    if solver != "newton-schulz" and steps != ITERATIONS:
        raise UserError(f"steps are for solver 'newton-schulz': leave them out for {solver!r}")
    if solver != "minimax" and condition is not None:
        raise UserError(f"condition is for solver 'minimax': leave it out for {solver!r}")


def method_of(
    solver: Solver,
    backward: Backward = "exact",
    steps: int = ITERATIONS,
    condition: float | None = None,
) -> Method:
    """Return the Method for these settings, as ``matrix_sqrt`` and the layers take them.

    Args:
        solver: ``eigh``, ``newton-schulz`` or ``minimax``.
        backward: the backward rule.
        steps: number of steps of ``newton-schulz``.
        condition: the worst condition number for ``minimax``. None: try some in turn, which reads
            the residuals.

    Raises:
        UserError: a name is unknown, a number is not allowed, or the settings can't be combined.
    """
    if solver not in SOLVERS:
        raise unknown("solver", solver, SOLVERS)
    if backward not in get_args(Backward):
        raise unknown("backward", backward, get_args(Backward))
    if solver != "eigh" and backward != "exact":
        raise UserError(
            f"solver {solver!r} has its own backward: use backward='exact', not {backward!r}"
        )
    check_iteration(solver, steps, condition)
    if condition is None:
        return Method(solver, backward, steps)
    return Method(solver, backward, steps, minimax.schedule(float(condition)))
