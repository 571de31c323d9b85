"""The coupled Newton-Schulz iteration for the matrix square root and its inverse.

Note [The iteration]
    With A = P / tr P, Y_0 = A and Z_0 = I,
        T_k = (3 I - Z_k Y_k) / 2,   Y_{k+1} = Y_k T_k,   Z_{k+1} = T_k Z_k
    converges to A^(1/2) and A^(-1/2): tr P bounds the largest eigenvalue, so the iteration starts
    inside its region of convergence. It is quadratic only near 1: an eigenvalue l of A grows by
    9/4 a step while it is small, so five steps leave those below about (4/9)^5 = 0.02 short of
    their root. That is what regularises the method, and what makes it inexact.
    The backward walks the same steps in reverse, with two products for each one of the forward:
        dT = Y^T dY' + dZ' Z^T,   dY = dY' T^T - Z^T dT / 2,   dZ = T^T dZ' - dT Y^T / 2.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from orthocond.errors import UserError, require_floating

ITERATIONS = 5  # the number of iSQRT-COV and IterNorm


def _trace(P: Tensor) -> Tensor:
    return P.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None]  # (..., 1, 1)


def require_square(P: Tensor) -> None:
    """Raise a UserError where P is not a batch of square matrices of at least 1 x 1."""
    if P.dim() < 2 or P.shape[-1] != P.shape[-2] or P.shape[-1] == 0:
        raise UserError(f"expected square matrices (..., d, d), got shape {tuple(P.shape)}")


def iterate(P: Tensor, iterations: int = ITERATIONS) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
    """Return both roots of square matrices P (..., d, d), and the factors for their gradient.

    This is ``newton_schulz`` without its checks and without a graph. The factors are the scale
    tr P (..., 1, 1) and all Y_k and Z_k (..., d, d); ``iterate_backward`` takes them.
    """
    trace = _trace(P)
    scale = torch.where(trace > 0, trace, 1)  # P = 0 has the root 0, and no 0 / 0
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
    # Through the scales sqrt(t) and 1 / sqrt(t) of the results, and below of A = P / t.
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
    @staticmethod
    def forward(ctx: Any, P: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
        sqrt, inv_sqrt, factors = iterate(P, iterations)
        ctx.save_for_backward(*factors)
        return sqrt, inv_sqrt

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g_sqrt: Tensor, g_inv: Tensor) -> tuple[Tensor, None]:
        return iterate_backward(ctx.saved_tensors, g_sqrt, g_inv), None


def newton_schulz(P: Tensor, iterations: int = ITERATIONS) -> tuple[Tensor, Tensor]:
    """Approximate P^(1/2) and P^(-1/2) by the trace-scaled coupled iteration.

    The result is that of a fixed number of steps, and the gradient is the exact one of those
    steps: neither is that of the true roots unless the condition number of P is small. There is no
    second derivative.

    Args:
        P: (..., d, d), symmetric positive semi-definite, floating; the arithmetic is in its dtype.
        iterations: number of steps, at least 1.

    Returns:
        The square root and the inverse square root, both (..., d, d). P = 0 has the root 0 and a
        finite, meaningless inverse; NaN, Inf and a negative trace give what they give.

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
