"""Affine map that whitens a feature map, and its gradient, as one autograd node.

Note [Gradient]
    With F = (P + eps I)^(-1/2), A = diag(gamma) F, centred X and G = dl/dY:
        Y = A X + beta,   M = G X^T,   s = G 1,
        dl/dgamma = row sums of F o M,   dl/dbeta = s,   dl/dF = diag(gamma) M,
        dl/dX = A^T (G - s 1^T / n) + (2 / n) (dl/dP) X.
    n and P come from the samples of all processes; in dl/dX, M and s do too. ``root_backward``
    computes dl/dP from dl/dF, with matrices of size d x d only. X = x - mu is computed as in
    Note [Shifted moments] of ``layers/moments.py``.

Note [Checkpointing]
    One autograd node saves all tensors that the backward pass needs. torch.utils.checkpoint frees
    and recomputes only saved tensors. It reruns the forward of the block once for each autograd
    engine call that asks for them, so the backward must not call the engine itself.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from orthocond.distributed import reduced
from orthocond.layers.moments import by_group, centred
from orthocond.spectral.root_solvers import Method, root_backward


class Whitening(NamedTuple):
    """Statistics that whiten x, in float64. Autograd does not track tensors inside a tuple."""

    mean: Tensor  # (C,)
    root: Tensor  # (groups, d, d): F, all NaN for a matrix that failed
    n: Tensor | None = None  # (), number of samples; None if mean and F are constants
    factors: tuple[Tensor, ...] = ()  # factors of F, for root_backward
    method: Method | None = None  # solver of F, for root_backward
    is_reduced: bool = False  # True if the samples of all processes are included


class _Whiten(torch.autograd.Function):
    # Note [Checkpointing]: save_for_backward saves every tensor; none is an attribute of ctx.

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, by: Whitening) -> Tensor:
        groups, d, _ = by.root.shape
        shift = by.mean.to(x.dtype)
        r = (by.mean - shift).view(groups, d, 1)  # rounding error of the shift
        A = weight.double().view(groups, d, 1) * by.root
        b = bias.double().view(groups, d, 1) - A @ r
        A, b = A.to(x.dtype), b.to(x.dtype)
        y = torch.empty_like(x)
        for part, chunk in centred(x, shift):
            for j, (X, Y) in enumerate(by_group(groups, chunk, y[part])):
                Y.copy_(b[j]).baddbmm_(A[j].expand(len(X), d, d), X)
        through_batch = by.n is not None and ctx.needs_input_grad[0]
        of_batch = (by.n, *by.factors) if through_batch else ()
        ctx.save_for_backward(x, weight, by.mean, by.root, *of_batch)
        ctx.method, ctx.is_reduced = by.method, by.is_reduced
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, G: Tensor) -> tuple[Tensor | None, Tensor, Tensor, None]:
        x, weight, mean, F, *of_batch = ctx.saved_tensors
        groups, d, _ = F.shape
        shift = mean.to(x.dtype)
        r = (mean - shift).view(groups, d, 1)  # rounding error of the shift
        M, s = torch.zeros_like(F), torch.zeros_like(r)
        for part, chunk in centred(x, shift):
            for j, (X, g) in enumerate(by_group(groups, chunk, G[part])):
                M[j] += torch.bmm(g, X.mT).sum(0, dtype=torch.float64)
                s[j] += g.sum((0, 2))[:, None]
        M -= s @ r.mT
        g_weight = (F * M).sum(-1).flatten().to(weight.dtype)
        g_bias = s.flatten().to(weight.dtype)
        if not ctx.needs_input_grad[0]:
            return None, g_weight, g_bias, None
        gamma = weight.double().view(groups, d, 1)
        At = (gamma * F).mT
        out = torch.empty_like(x)
        if not of_batch:
            for j, (g, o) in enumerate(by_group(groups, G, out)):
                o.baddbmm_(At[j].to(x.dtype).expand(len(x), d, d), g, beta=0)  # o = At g
            return out, g_weight, g_bias, None
        n, *factors = of_batch
        if ctx.is_reduced:
            M, s = reduced(M, s)
        S = 2 / n * root_backward(tuple(factors), gamma * M, "inv_sqrt", ctx.method)
        b = -(At @ s / n + S @ r)
        At, S, b = At.to(x.dtype), S.to(x.dtype), b.to(x.dtype)
        for part, chunk in centred(x, shift):
            for j, (X, g, o) in enumerate(by_group(groups, chunk, G[part], out[part])):
                o.copy_(b[j]).baddbmm_(S[j].expand(len(X), d, d), X)
                o.baddbmm_(At[j].expand(len(X), d, d), g)
        return out, g_weight, g_bias, None


def whiten(x: Tensor, weight: Tensor, bias: Tensor, by: Whitening) -> Tensor:
    """Return gamma F (x - mean) + beta, differentiable in x, weight and bias.

    Args:
        x: (B, C, H, W), float32 or float64, contiguous or channels_last.
        weight: gamma (C,).
        bias: beta (C,).
        by: the statistics. If they are those of x, the gradient goes through them.
    """
    return _Whiten.apply(x, weight, bias, by)
