"""Coupled Newton-Schulz iteration for the matrix square root and its inverse.

Note [The iteration]
    With A = P / tr P, Y_0 = A and Z_0 = I,
        T_k = (3 I - Z_k Y_k) / 2,   Y_{k+1} = Y_k T_k,   Z_{k+1} = T_k Z_k
    Y_k converges to A^(1/2) and Z_k to A^(-1/2). tr P bounds the largest eigenvalue, so the
    iteration starts inside its region of convergence. Convergence is quadratic only for
    eigenvalues near 1. A small eigenvalue of A grows by 9/4 a step, so after five steps eigenvalues
    below about (4/9)^5 = 0.02 have not reached their root. This regularises the method and makes
    it inexact.
    The backward pass goes through the steps in reverse order. It needs two products for each
    product of the forward pass:
        dT = Y^T dY' + dZ' Z^T,   dY = dY' T^T - Z^T dT / 2,   dZ = T^T dZ' - dT Y^T / 2.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from orthocond.errors import UserError, require_floating
from orthocond.host import full_precision

ITERATIONS = 5  # as in iSQRT-COV and IterNorm


def _trace(P: Tensor) -> Tensor:
    return P.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None]  # (..., 1, 1)


def require_square(P: Tensor) -> None:
    """Raise a UserError if P is not a batch of square matrices of at least 1 x 1."""
    if P.dim() < 2 or P.shape[-1] != P.shape[-2] or P.shape[-1] == 0:
        raise UserError(f"expected square matrices (..., d, d), got shape {tuple(P.shape)}")


def iterate(P: Tensor, iterations: int = ITERATIONS) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
    """Return both roots of square matrices P (..., d, d), and the factors for their gradient.

    This function does the arithmetic of ``newton_schulz``, without its checks and without an
    autograd graph. The factors are the scale tr P (..., 1, 1) and all Y_k and Z_k (..., d, d).
    Pass them to ``iterate_backward``.
    """
    trace = _trace(P)
    scale = torch.where(trace > 0, trace, 1)  # avoids 0 / 0 for P = 0, whose root is 0
    identity = torch.eye(P.shape[-1], dtype=P.dtype, device=P.device)
    Y, Z = P / scale, identity.expand_as(P)
    steps = [Y, Z]
    for _ in range(iterations):
        T = (3 * identity - Z @ Y) / 2
        Y, Z = Y @ T, T @ Z
        steps += [Y, Z]
    return Y * scale.sqrt(), Z * scale.rsqrt(), (scale, *steps)


def iterate_backward(factors: tuple[Tensor, ...], g_sqrt: Tensor, g_inv: Tensor) -> Tensor:
    """Return dl/dP (..., d, d) from the factors of ``iterate`` and the roots' gradients."""
    scale, *steps = factors
    Y, Z = steps[-2:]
    identity = torch.eye(Y.shape[-1], dtype=Y.dtype, device=Y.device)
    # Gradient of t = tr P through sqrt(t) and 1 / sqrt(t). The term from A = P / t is added below.
    g_scale = ((g_sqrt * Y).sum((-2, -1), keepdim=True) * scale.rsqrt()) / 2
    g_scale -= ((g_inv * Z).sum((-2, -1), keepdim=True) * scale**-1.5) / 2
    gY, gZ = g_sqrt * scale.sqrt(), g_inv * scale.rsqrt()
    for k in range(len(steps) - 4, -1, -2):
        Y, Z = steps[k], steps[k + 1]
        T = (3 * identity - Z @ Y) / 2
        gT = Y.mT @ gY + gZ @ Z.mT
        gY, gZ = gY @ T.mT - Z.mT @ gT / 2, T.mT @ gZ - gT @ Y.mT / 2
    g_scale -= (gY * steps[0]).sum((-2, -1), keepdim=True) / scale
    return gY / scale + g_scale * identity


class _NewtonSchulz(torch.autograd.Function):
    # Autocast would compute float32 products in half precision, so both passes disable it.

    @staticmethod
    def forward(ctx: Any, P: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
        with full_precision(P):
            sqrt, inv_sqrt, factors = iterate(P, iterations)
        ctx.save_for_backward(*factors)
        return sqrt, inv_sqrt

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g_sqrt: Tensor, g_inv: Tensor) -> tuple[Tensor, None]:
        with full_precision(g_sqrt):
            return iterate_backward(ctx.saved_tensors, g_sqrt, g_inv), None


def newton_schulz(P: Tensor, iterations: int = ITERATIONS) -> tuple[Tensor, Tensor]:
    """Approximate P^(1/2) and P^(-1/2) by the trace-scaled coupled iteration.

    The number of steps is fixed, and the gradient is the exact gradient of these steps. Value and
    gradient are close to those of the true roots only if the condition number of P is small. There
    is no second derivative.

    Args:
        P: (..., d, d), symmetric positive semi-definite, floating; the arithmetic is in its dtype.
        iterations: number of steps, at least 1.

    Returns:
        The square root and the inverse square root, both (..., d, d). For P = 0 the root is 0 and
        the inverse is finite but meaningless. P with NaN, Inf or a negative trace is not checked,
        and its result is undefined.

    Raises:
        UserError: P is not square or not of a real floating dtype, or iterations < 1.

    Example:
        >>> Q, S = newton_schulz(torch.diag(torch.tensor([4.0, 4.0])))
        >>> [round(x, 4) for x in (Q[0, 0].item(), S[0, 0].item())]
        [2.0, 0.5]
    """
    require_floating(P, "matrices")
    require_square(P)
    if iterations < 1:
        raise UserError(f"the iteration needs at least 1 step, got {iterations}")
    sqrt, inv_sqrt = _NewtonSchulz.apply(P, iterations)
    return sqrt, inv_sqrt
