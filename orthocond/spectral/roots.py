"""Matrix square root and inverse square root of symmetric matrices, differentiable."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from orthocond.errors import UserError, require_floating, require_nonnegative
from orthocond.host import CPU, Refusal, double, refuse
from orthocond.spectral import minimax
from orthocond.spectral.backward_rules import Backward, Power
from orthocond.spectral.lyapunov import builds_graph, first_only, in_front
from orthocond.spectral.newton_schulz import ITERATIONS, require_square
from orthocond.spectral.root_solvers import (
    Method,
    Solver,
    is_smooth,
    method_of,
    root_backward,
    root_forward,
    root_slope,
    used_quintics,
)

FIRST_ONLY = (
    "the root by {} has a first derivative only: use solver 'eigh' or 'minimax' with backward "
    "'exact' for a second one"
)


SINGULAR = (
    "the square root has an infinite derivative at a singular matrix: pass eps > 0, which is added "
    "to the diagonal"
)


def _settings(
    ctx: Any, C: Tensor, is_singular: Tensor, steps: Tensor
) -> tuple[Tensor, Power, Method]:
    """Return the direction C, the power and the method, or raise if there is no derivative."""
    power, method, strict = ctx.settings
    if strict and method.solver == "minimax":
        method = method._replace(quintics=used_quintics(steps))
    if strict and method.solver == "eigh" and power == "sqrt":  # the other power was refused
        C = refuse(C, Refusal(is_singular, UserError, SINGULAR))
    return C, power, method


class _Root(torch.autograd.Function):
    # The outputs after the outcome: whether a matrix is singular, on the device; the number of
    # quintics, on the host; and the factors.

    @staticmethod
    def forward(
        P: Tensor, power: Power, eps: float, method: Method, strict: bool
    ) -> tuple[Tensor, ...]:
        value, outcome, factors, used = root_forward(P, power, eps, method, strict)
        is_singular = torch.zeros((), dtype=torch.bool, device=CPU)
        if strict:
            is_singular = (factors[0] <= 0).any()
        steps = torch.full((), len(used.quintics), device=CPU)
        return value, outcome, is_singular, steps, *factors

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        P, power, _, method, strict = inputs
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(P, *output[2:])
        ctx.save_for_forward(P, *output[2:])
        ctx.settings = power, method, strict

    @staticmethod
    def backward(ctx: Any, g: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
        if g is None:
            return None, None, None, None, None
        P, is_singular, steps, *factors = ctx.saved_tensors
        g, power, method = _settings(ctx, g, is_singular, steps)
        if builds_graph() and is_smooth(method):
            gP = root_slope(double(P), double(g), power, tuple(factors), method).to(g)
        else:
            gP = root_backward(tuple(factors), g, power, method)
            if builds_graph():
                gP = first_only(gP, FIRST_ONLY.format(_name(method)), P, g)
        return gP, None, None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> tuple[Any, Any]:
        outputs = _RootForward.apply(*in_front(info, in_dims, args))
        return outputs, (0, 0, None, None, *[0] * (len(outputs) - 4))


class _RootForward(_Root):
    # Note [Compiled functions] of lyapunov.py

    @staticmethod
    def jvp(ctx: Any, dP: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        P, is_singular, steps, *factors = ctx.saved_tensors
        dP, power, method = _settings(ctx, dP, is_singular, steps)
        if is_smooth(method):
            dF = root_slope(double(P), double(dP), power, tuple(factors), method).to(dP)
        elif method.solver == "eigh":  # the rules are self-adjoint too
            dF = root_backward(tuple(factors), dP, power, method)
            dF = first_only(dF, FIRST_ONLY.format(_name(method)), P, dP)
        else:
            raise UserError("newton-schulz has no forward mode: use solver 'eigh' or 'minimax'")
        return dF, *[None] * (3 + len(factors))


def _name(method: Method) -> str:
    rule = f" with backward {method.backward!r}" if method.solver == "eigh" else ""
    return f"solver {method.solver!r}{rule}"


def _apply(P: Tensor, power: Power, eps: float, method: Method, strict: bool) -> tuple[Tensor, ...]:
    function = _Root if torch.compiler.is_compiling() else _RootForward
    outputs: tuple[Tensor, ...] = function.apply(P, power, eps, method, strict)
    return outputs


def root(
    P: Tensor,
    power: Power,
    rule: Backward = "exact",
    eps: float = 0.0,
    solver: Solver = "eigh",
    steps: int = ITERATIONS,
    condition: float | None = None,
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
        steps: as in ``matrix_sqrt``.
        condition: the worst condition number of P + eps I that ``minimax`` is exact for. None is
            ``minimax.default_condition(eps)``.

    Returns:
        The root (..., d, d) in P's dtype, and the int8 outcome (...) of ``Outcome``. The root and
        gradient of a matrix that FAILED (NaN or Inf, no convergence, no inverse root) are zero. If
        a matrix is INEXACT (``minimax``, with a larger condition number than declared), both are
        finite, and the inverse root is too small in the directions of the smallest eigenvalues.

    Example:
        >>> F, outcome = root(torch.diag(torch.tensor([3.0, 0.0])), "inv_sqrt", eps=1.0)
        >>> F.diagonal().tolist(), outcome.item()
        ([0.5, 1.0], 0)
    """
    if solver == "minimax" and condition is None:
        condition = minimax.default_condition(eps)
    method = method_of(solver, rule, steps, condition)
    require_floating(P, "matrices")
    return root_by(P, power, eps, method)


def root_by(P: Tensor, power: Power, eps: float, method: Method) -> tuple[Tensor, Tensor]:
    """Return the result of ``root`` by settings that were checked before."""
    F, outcome, *_ = _apply(P, power, eps, method, False)
    return F, outcome


def _strict(P: Tensor, power: Power, eps: float, method: Method) -> Tensor:
    require_floating(P, "matrices")
    require_square(P)
    require_nonnegative(eps, "eps")
    return _apply(P, power, eps, method, True)[0]


def matrix_sqrt(
    P: Tensor,
    solver: Solver = "eigh",
    backward: Backward = "exact",
    eps: float = 0.0,
    steps: int = ITERATIONS,
) -> Tensor:
    """Return the square root (P + eps I)^(1/2) of symmetric positive semi-definite P (eq. 4).

    Only the symmetric part of P is used. Negative eigenvalues of P + eps I count as zero.
    The derivative is infinite at a zero eigenvalue, like that of sqrt(x) at 0, and refused there:
    pass eps > 0 for singular matrices. With ``exact`` (not for ``newton-schulz``) the function is
    differentiable to any order, at equal eigenvalues too, by reverse and forward mode and
    torch.func. The other rules have a first derivative only. The gradient is symmetric.

    Args:
        P: (..., d, d), floating; the arithmetic is float64.
        solver: ``eigh``; ``minimax``, matrix products only, as accurate as ``eigh`` for condition
            numbers of P + eps I up to 1e12; or ``newton-schulz``, a few steps of the coupled
            iteration, inexact on ill-conditioned matrices.
        backward: ``exact`` uses divided differences and is safe at equal eigenvalues. ``pade``,
            ``taylor`` and ``raw`` are for comparison: eqs. 5 to 7 with 1 / (li - lj) approximated,
            or unchanged for ``raw``. The other solvers allow only ``exact``: the exact gradient
            of the root for ``minimax``, and of the iteration for ``newton-schulz``.
        eps: added to the diagonal.
        steps: number of steps of ``newton-schulz``.

    Returns:
        (..., d, d) in P's dtype.

    Raises:
        UserError: the solver or backward rule is unknown, the two can't be combined, P is not
            square or not of a real floating dtype, eps is negative or not finite, or steps is not
            a whole number from 1. When a derivative is computed: P + eps I is singular, or the
            settings have a first derivative only.
        DecompositionError: a matrix holds NaN or Inf, or could not be decomposed; with ``minimax``,
            a matrix is singular, indefinite or has a condition number above 1e12.

    Example:
        >>> oc.matrix_sqrt(torch.diag(torch.tensor([4.0, 9.0]))).diagonal().tolist()
        [2.0, 3.0]
    """
    return _strict(P, "sqrt", eps, method_of(solver, backward, steps))


def matrix_inv_sqrt(
    P: Tensor,
    solver: Solver = "eigh",
    backward: Backward = "exact",
    eps: float = 0.0,
    steps: int = ITERATIONS,
) -> Tensor:
    """Return the inverse square root (P + eps I)^(-1/2) of symmetric positive definite P (eq. 4).

    The arguments, the result and the errors are the same as in ``matrix_sqrt``. The solver ``eigh``
    also raises a UserError if P + eps I has an eigenvalue that is not positive. ``newton-schulz``
    does not detect this: after five steps a zero eigenvalue still has a finite inverse.

    Example:
        >>> oc.matrix_inv_sqrt(torch.diag(torch.tensor([4.0, 16.0]))).diagonal().tolist()
        [0.5, 0.25]
    """
    return _strict(P, "inv_sqrt", eps, method_of(solver, backward, steps))
