"""Affine map that whitens a feature map, and its gradient, as one autograd node.

Note [Gradient]
    With F = (P + eps I)^(-1/2), A = diag(gamma) F, centred X and G = dl/dY:
        Y = A X + beta,   M = G X^T,   s = G 1,
        dl/dgamma = row sums of F o M,   dl/dbeta = s,   dl/dF = diag(gamma) M,
        dl/dX = A^T (G - s 1^T / n) + (2 / n) (dl/dP) X.
    n and P come from the samples of all processes; in dl/dX, M and s do too. ``root_backward``
    computes dl/dP from dl/dF, with matrices of size d x d only. X = x - mu is computed as in
    Note [Shifted moments] of ``layers/moments.py``.

Note [Second derivatives]
    Under ``create_graph=True`` the backward computes the same formulas from x, gamma and G by
    differentiable operations, so that autograd continues from them. F and dl/dP come from the
    factors of the forward pass, with the derivatives of ``spectral/lyapunov.py``.

Note [Checkpointing]
    One autograd node saves all tensors that the backward pass needs. torch.utils.checkpoint frees
    and recomputes only saved tensors. It reruns the forward of the block once for each autograd
    engine call that asks for them, so the backward must not call the engine itself.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from orthocond.distributed import reduced
from orthocond.errors import UserError
from orthocond.host import double, double_sum, full_precision, is_batched
from orthocond.layers.inference.evaluation import in_transform
from orthocond.layers.moments import by_group, centred
from orthocond.spectral.lyapunov import builds_graph, first_only
from orthocond.spectral.root_solvers import (
    Method,
    is_smooth,
    known_root,
    root_backward,
    root_slope,
)

FIRST_ONLY = (
    "the whitening has a first derivative only with this solver or backward rule: use solver "
    "'eigh' or 'minimax' with backward 'exact' for a second one"
)


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
    # Autocast would compute float32 products in half precision, so both passes disable it.

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, by: Whitening) -> Tensor:
        with full_precision(x):
            y = _mapped(x, weight, bias, by)
        ctx.through_batch = by.n is not None and ctx.needs_input_grad[0]
        of_batch = (by.n, *by.factors) if ctx.through_batch else ()
        ctx.save_for_backward(x, weight, by.mean, by.root, *of_batch)
        ctx.method, ctx.is_reduced = by.method, by.is_reduced
        return y

    @staticmethod
    def backward(ctx: Any, G: Tensor) -> tuple[Tensor | None, ...]:
        with full_precision(G):
            if is_batched(G):  # it takes no operation in place
                return *_differentiable_gradients(ctx, G), None
            return *(_with_graph if builds_graph() else _gradients)(ctx, G), None


def _mapped(x: Tensor, weight: Tensor, bias: Tensor, by: Whitening) -> Tensor:
    """Return gamma F (x - mean) + beta, without an autograd graph."""
    groups, d, _ = by.root.shape
    shift = by.mean.to(x)
    r = (by.mean - double(shift)).view(groups, d, 1)  # rounding error of the shift
    A = double(weight).view(groups, d, 1) * by.root
    b = double(bias).view(groups, d, 1) - A @ r
    A, b = A.to(x), b.to(x)
    y = torch.empty_like(x)
    for part, chunk in centred(x, shift):
        for j, (X, Y) in enumerate(by_group(groups, chunk, y[part])):
            Y.copy_(b[j]).baddbmm_(A[j].expand(len(X), d, d), X)
    return y


def _with_graph(ctx: Any, G: Tensor) -> tuple[Tensor | None, ...]:
    """Return what ``_gradients`` does, with a graph or a refusal of its derivative."""
    if not ctx.through_batch or is_smooth(ctx.method):
        return _differentiable_gradients(ctx, G)
    x, weight, *_ = ctx.saved_tensors
    return tuple(
        None if g is None else first_only(g, FIRST_ONLY, x, weight, G) for g in _gradients(ctx, G)
    )


@torch.no_grad()
def _gradients(ctx: Any, G: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
    """Return dl/dx (None if it is not needed), dl/dgamma and dl/dbeta for dl/dy = G."""
    x, weight, mean, F, *of_batch = ctx.saved_tensors
    groups, d, _ = F.shape
    shift = mean.to(x)
    r = (mean - double(shift)).view(groups, d, 1)  # rounding error of the shift
    M, s = torch.zeros_like(F), torch.zeros_like(r)
    for part, chunk in centred(x, shift):
        for j, (X, g) in enumerate(by_group(groups, chunk, G[part])):
            M[j] += double_sum(torch.bmm(g, X.mT), 0)
            s[j] += double(g.sum((0, 2)))[:, None]
    M -= s @ r.mT
    g_weight = (F * M).sum(-1).flatten().to(weight)
    g_bias = s.flatten().to(weight)
    if not ctx.needs_input_grad[0]:
        return None, g_weight, g_bias
    gamma = double(weight).view(groups, d, 1)
    At = (gamma * F).mT
    out = torch.empty_like(x)
    if not of_batch:
        for j, (g, o) in enumerate(by_group(groups, G, out)):
            o.baddbmm_(At[j].to(x).expand(len(x), d, d), g, beta=0)  # o = At g
        return out, g_weight, g_bias
    n, *factors = of_batch
    if ctx.is_reduced:
        M, s = reduced(M, s)
    S = 2 / n * root_backward(tuple(factors), gamma * M, "inv_sqrt", ctx.method)
    b = -(At @ s / n + S @ r)
    At, S, b = At.to(x), S.to(x), b.to(x)
    for part, chunk in centred(x, shift):
        for j, (X, g, o) in enumerate(by_group(groups, chunk, G[part], out[part])):
            o.copy_(b[j]).baddbmm_(S[j].expand(len(X), d, d), X)
            o.baddbmm_(At[j].expand(len(X), d, d), g)
    return out, g_weight, g_bias


def _differentiable_gradients(ctx: Any, G: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return dl/dx, dl/dgamma and dl/dbeta as functions of x, gamma and G.

    See Note [Second derivatives]. Groups of channels are the first dimension of all products.
    """
    x, weight, mean, F, *of_batch = ctx.saved_tensors
    n, *factors = of_batch or (None,)
    by = Whitening(mean, F, n, tuple(factors), ctx.method, ctx.is_reduced)
    groups, d, _ = by.root.shape
    shift = by.mean.to(x)
    X, G = (  # (groups, B, d, H W)
        t.reshape(len(x), groups, d, -1).transpose(0, 1) for t in (x - shift[:, None, None], G)
    )
    s = double_sum(G, (1, 3))[..., None]  # (groups, d, 1)
    M = double_sum(G @ X.mT, 1)  # (groups, d, d)
    F, r = by.root, (by.mean - double(shift)).view(groups, d, 1)
    if by.n is not None and by.method is not None:
        total = double_sum(X, (1, 3))
        square = double_sum(X @ X.mT, 1)
        if by.is_reduced:
            total, square = reduced(total, square)
        r = (total / by.n)[..., None]  # mean minus shift
        P = square / by.n - r @ r.mT
        if is_smooth(by.method):
            F = known_root(P, "inv_sqrt", by.factors, by.method)
    M = M - s @ r.mT
    gamma = double(weight).view(groups, d, 1)
    g_weight = (F * M).sum(-1).reshape(-1).to(weight)
    g_bias = s.reshape(-1).to(weight)
    At = (gamma * F).mT
    g_x = At.to(x)[:, None] @ G  # (groups, B, d, H W)
    if by.n is not None and by.method is not None:
        if by.is_reduced:
            M, s = reduced(M, s)
        if is_smooth(by.method):
            S = root_slope(P, gamma * M, "inv_sqrt", by.factors, by.method)
        else:
            S = root_backward(by.factors, gamma * M, "inv_sqrt", by.method)
        S = 2 / by.n * S
        b = -(At @ s / by.n + S @ r)
        g_x = g_x + S.to(x)[:, None] @ X + b.to(x)[:, None]
    return g_x.transpose(0, 1).reshape(x.shape), g_weight, g_bias


def whiten(x: Tensor, weight: Tensor, bias: Tensor, by: Whitening) -> Tensor:
    """Return gamma F (x - mean) + beta, differentiable in x, weight and bias.

    Args:
        x: (B, C, H, W), float32 or float64, contiguous or channels_last.
        weight: gamma (C,).
        bias: beta (C,).
        by: the statistics. If they are those of x, the gradient goes through them.

    Raises:
        UserError: it is called inside of a transform of torch.func.
    """
    if not torch.compiler.is_compiling() and in_transform():
        raise UserError(
            "whitening by the statistics of the batch works with torch.autograd, and not inside of "
            "torch.func or torch.vmap: call eval(), or use torch.autograd.grad"
        )
    y: Tensor = _Whiten.apply(x, weight, bias, by)
    return y
