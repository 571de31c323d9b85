"""Derivatives of matrix roots to any order, by Lyapunov equations.

Note [Derivatives by Lyapunov equations]
    For Q = P^(1/2) the derivative in a direction dP solves Q dQ + dQ Q = dP. So dQ = lyap(Q, dP)
    with the map lyap from (Q, C) to the solution X of Q X + X Q = C. This map is linear and
    self-adjoint in C, so the gradient is dl/dP = lyap(Q, sym(dl/dQ)). The derivatives of lyap are
    again solutions of this equation. With Y = lyap(Q, dl/dX),
        dl/dC = Y,   dl/dQ = -sym(Y X^T + X^T Y).
    For S = P^(-1/2) = Q^(-1), dS = -S dQ S. So all derivatives are compositions of three maps, the
    root, the inverse and lyap, whose gradients are compositions of the same maps. No eigenvector is
    differentiated, and equal eigenvalues are harmless.

Note [Known results]
    The solver of the forward pass knows the root, its inverse and how to solve the equation. Here
    these results are inputs that no gradient reaches, and the functions only add the derivative.
    The factors are (q, U) for Q = U diag(q) U^T with q > 0, or, with the quintics of the minimax
    iteration, (B, s) for Q = s^(1/2) B.

Note [Compiled functions]
    torch.compile refuses an autograd function that defines ``jvp``, and does not compile second
    derivatives. So the functions of the other modules have ``jvp`` in a subclass that is used only
    outside of a trace, and their backward does not build a graph inside of one.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from orthocond.errors import UserError
from orthocond.host import full_precision
from orthocond.spectral import minimax

Quintics = tuple[minimax.Quintic, ...]


def builds_graph() -> bool:
    """Return whether the backward pass that runs now must be differentiable itself.

    It is True under ``create_graph=True`` and under torch.func.grad. See Note [Compiled functions].
    """
    return torch.is_grad_enabled() and not torch.compiler.is_compiling()


def in_front(info: Any, in_dims: Any, args: tuple[Any, ...]) -> list[Any]:
    """Return the arguments of a vmap rule with the dimension of vmap first in every tensor.

    This is a rule by itself for a function that takes any leading batch shape. (A rule that torch
    generates can't differentiate forward if an argument is a tuple.)
    """
    moved = []
    for value, dim in zip(args, in_dims, strict=True):
        if isinstance(value, Tensor):
            batch = info.batch_size
            value = value.expand(batch, *value.shape) if dim is None else value.movedim(dim, 0)
        moved.append(value)
    return moved


def symmetric(A: Tensor) -> Tensor:
    """Return (A + A^T) / 2."""
    return (A + A.mT) / 2


def solve(C: Tensor, quintics: Quintics, factors: tuple[Tensor, ...]) -> Tensor:
    """Return the solution X (..., d, d) of Q X + X Q = C, for the root Q that the factors give.

    Args:
        C: right-hand sides (..., d, d).
        quintics: coefficients of the minimax iteration; empty for an eigendecomposition.
        factors: the scaled matrix and its scale, or the eigenvalues (..., d) and eigenvectors
            (..., d, d) of Q.

    Returns:
        X; 0 for a matrix for which the minimax iteration diverges.
    """
    if quintics:
        B, s = factors
        d = C.shape[-1]
        B3, C3 = B.expand_as(C).reshape(-1, d, d), C.reshape(-1, d, d)
        X = minimax.lyapunov(B3, C3, quintics).view(C.shape) * s.rsqrt()
        # For an indefinite matrix, which is INEXACT, the solution may diverge.
        return X.masked_fill(~X.isfinite().all(-1).all(-1)[..., None, None], 0)
    q, U = factors
    return U @ ((U.mT @ C @ U) / (q.unsqueeze(-1) + q.unsqueeze(-2))) @ U.mT


class _Lyapunov(torch.autograd.Function):
    @staticmethod
    def forward(Q: Tensor, C: Tensor, quintics: Quintics, *factors: Tensor) -> Tensor:
        with full_precision(C):
            return solve(C, quintics, factors)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        Q, _, ctx.quintics, *factors = inputs
        ctx.save_for_backward(Q, output, *factors)
        ctx.save_for_forward(Q, output, *factors)

    @staticmethod
    def backward(ctx: Any, gX: Tensor) -> tuple[Tensor | None, ...]:
        Q, X, *factors = ctx.saved_tensors
        Y = lyapunov(Q, gX, ctx.quintics, *factors)
        with full_precision(gX):
            gQ = -symmetric(Y @ X.mT + X.mT @ Y) if ctx.needs_input_grad[0] else None
        return gQ, Y, *[None] * (1 + len(factors))

    @staticmethod
    def jvp(ctx: Any, dQ: Tensor, dC: Tensor, *_: Any) -> Tensor:
        Q, X, *factors = ctx.saved_tensors
        with full_precision(dC):
            return lyapunov(Q, dC - dQ @ X - X @ dQ, ctx.quintics, *factors)

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> tuple[Tensor, int]:
        return _Lyapunov.apply(*in_front(info, in_dims, args)), 0


def lyapunov(Q: Tensor, C: Tensor, quintics: Quintics, *factors: Tensor) -> Tensor:
    """Return the solution X of Q X + X Q = C, differentiable to any order.

    Args:
        Q: (..., d, d), symmetric; only its gradient is used.
        C: (..., d, d); with quintics, symmetric.
        quintics: steps of the minimax iteration that gave Q, or (): the factors are eigenfactors.
        factors: see Note [Known results].

    Example:
        >>> lyapunov(2 * torch.eye(1), torch.eye(1), (), torch.tensor([2.0]), torch.eye(1))
        tensor([[0.2500]])
    """
    X: Tensor = _Lyapunov.apply(Q, C, quintics, *factors)
    return X


class _Sqrt(torch.autograd.Function):
    @staticmethod
    def forward(P: Tensor, value: Tensor, quintics: Quintics, *factors: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, _, ctx.quintics, *factors = inputs
        ctx.save_for_backward(output, *factors)
        ctx.save_for_forward(output, *factors)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        Q, *factors = ctx.saved_tensors
        gP = lyapunov(Q, symmetric(g), ctx.quintics, *factors)
        return gP, *[None] * (2 + len(factors))

    @staticmethod
    def jvp(ctx: Any, dP: Tensor, *_: Any) -> Tensor:
        Q, *factors = ctx.saved_tensors
        return lyapunov(Q, symmetric(dP), ctx.quintics, *factors)

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> tuple[Tensor, int]:
        return _Sqrt.apply(*in_front(info, in_dims, args)), 0


def known_sqrt(P: Tensor, value: Tensor, quintics: Quintics, *factors: Tensor) -> Tensor:
    """Return the value, differentiable to any order as the square root of P (..., d, d)."""
    Q: Tensor = _Sqrt.apply(P, value, quintics, *factors)
    return Q


class _Inverse(torch.autograd.Function):
    @staticmethod
    def forward(Q: Tensor, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(output)
        ctx.save_for_forward(output)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        (S,) = ctx.saved_tensors
        with full_precision(g):
            return -(S @ symmetric(g) @ S), None

    @staticmethod
    def jvp(ctx: Any, dQ: Tensor, _: Any) -> Tensor:
        (S,) = ctx.saved_tensors
        with full_precision(dQ):
            return -(S @ dQ @ S)

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> tuple[Tensor, int]:
        return _Inverse.apply(*in_front(info, in_dims, args)), 0


def known_inverse(Q: Tensor, value: Tensor) -> Tensor:
    """Return the value, differentiable to any order as the inverse of symmetric Q (..., d, d)."""
    S: Tensor = _Inverse.apply(Q, value)
    return S


class _FirstOnly(torch.autograd.Function):
    @staticmethod
    def forward(value: Tensor, why: str, *inputs: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.why = inputs[1]

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        raise UserError(ctx.why)

    @staticmethod
    def jvp(ctx: Any, *_: Any) -> Any:
        raise UserError(ctx.why)

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> tuple[Tensor, int]:
        return _FirstOnly.apply(*in_front(info, in_dims, args)), 0


def first_only(value: Tensor, why: str, *inputs: Tensor) -> Tensor:
    """Return a derivative's value, and refuse its own derivative with the line ``why``.

    Args:
        value: derivative, without a graph.
        why: message of the UserError.
        inputs: the tensors that the value depends on.
    """
    result: Tensor = _FirstOnly.apply(value.detach(), why, *inputs)
    return result
