r"""Logarithm and powers of a covariance, computed from the features, with failures recorded.

Note [Powers on the support]
    With f(l) = l^p or log l, Y = U diag(s) V^T and g = sym(dl/dF) as in lowrank.py, the
    gradient of F = f(Y Y^T + eps I) is, with A = U^T g U and l = s^2 + eps,
        dl/dY = 2 (U (A o f[li, lj] sj) + (I - U U^T) g U diag(f[lj, eps] sj)) V^T
    with the divided differences f[a, b]. For eps = 0 and p > 0 this is the limit of the ridge form:
    f[lj, 0] sj = sj^(2p - 1), and the null-to-null term is missing because its factor Y V is 0. It
    is finite for every p > 0. How F changes near features of rank r < min(d, N - 1), where a zero
    singular value can grow to t and F by t^(2p), depends on p:
        p > 1/2   F is differentiable there, and the limit is its gradient;
        p = 1/2   F has a kink, as t, and no derivative exceeds a bound nearby;
        p < 1/2   F has an infinite slope out of the support. The limit leaves it out.
    A sample of the last kind is recorded as INEXACT. The logarithm has no limit.

Note [Second derivatives of powers]
    The gradient has differentiable forms, by the maps of spectral/powers.py. With h = l^(p - 1) and
    a constant c > 0 that raises the eigenvalue of K for the vector 1, which Y maps to 0,
        F = f(Y Y^T + eps I)                                  if this matrix has full rank,
        F = Y h(K) Y^T,   K = Y^T Y + c 1 1^T / N             if N <= d, at rank N - 1.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from orthocond.host import double, like
from orthocond.spectral.covariance.derivatives import scaled
from orthocond.spectral.covariance.lowrank import (
    by_positions,
    gradient_on_support,
    tangent_on_support,
    thin_svd,
)
from orthocond.spectral.eigh import Outcome, eigh
from orthocond.spectral.lyapunov import builds_graph, first_only, in_front, symmetric
from orthocond.spectral.powers import (
    Exponent,
    Slope,
    first_difference,
    first_differences,
    matrix_power,
    value,
)

KINK = (
    "the power {:g} of a covariance has no second derivative below rank min(d, N - 1) (dead or "
    "repeated features): pass eps > 0"
)


def _prepared(X: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return Y / c (..., d, n) in float64, its scale c (...) and whether X is finite (...).

    eps / c^2 is at most 1.
    """
    Y, scale, finite = scaled(X, torch.float64)
    c = scale.clamp_min(eps**0.5)
    return Y * (scale / c)[..., None, None], c, finite


def _ridge(eps: float, c: Tensor) -> Tensor:
    """Return eps / c^2 (..., 1)."""
    return (eps**0.5 / c).square().unsqueeze(-1)


def _of_gradient(c: Tensor, p: Exponent) -> Tensor:
    """Return the factor (..., 1, 1) by which the scale c of the features changes the gradient."""
    return (1 / c if p is None else c ** (2 * p - 1))[..., None, None]


def _on_support(s: Tensor, c: Tensor, p: Exponent, eps: float) -> tuple[Tensor, Tensor]:
    """Return inner (..., k, k) and outer (..., 1, k) of Note [Powers on the support]."""
    ridge = _ridge(eps, c)
    l = s.square() + ridge
    inner = first_differences(l, p) * s.unsqueeze(-2)
    if p is None and eps == 0:  # all directions are on the support
        return inner * _of_gradient(c, p), torch.zeros_like(s).unsqueeze(-2)
    outer = (first_difference(l, ridge, p) * s).unsqueeze(-2)
    return inner * _of_gradient(c, p), outer * _of_gradient(c, p)


def _evaluated(U: Tensor, s: Tensor, c: Tensor, p: Exponent, eps: float) -> Tensor:
    """Return F (..., d, d) from the singular values s (..., k) of Y / c on the support."""
    ridge = _ridge(eps, c)
    base = value(ridge, p) if eps else torch.zeros_like(ridge)
    F = (U * (value(s.square() + ridge, p) - base).unsqueeze(-2)) @ U.mT
    if p is not None:
        F = F + torch.diag_embed(base.expand(U.shape[:-1]))
        return F * (c ** (2 * p))[..., None, None]
    return F + torch.diag_embed((base + 2 * c.log().unsqueeze(-1)).expand(U.shape[:-1]))


class _CovarianceFunction(torch.autograd.Function):
    # Autocast does not change float64 products.

    @staticmethod
    def forward(X: Tensor, p: Exponent, eps: float, narrow: bool) -> tuple[Tensor, ...]:
        Y, c, finite = _prepared(X, eps)
        U, s, Vt, rank, outcome = thin_svd(Y, narrow)
        F = like(_evaluated(U, s, c, p, eps), X)
        is_short = (rank < min(X.shape[-2], X.shape[-1] - 1)) & (eps == 0)
        failed = ~finite | (outcome == int(Outcome.FAILED)) | ~F.isfinite().flatten(-2).all(-1)
        if p is None:
            failed = failed | ((rank < X.shape[-2]) & (eps == 0))
        elif p < 0.5:
            outcome = outcome.masked_fill(is_short, int(Outcome.INEXACT))
        outcome = outcome.masked_fill(failed, int(Outcome.FAILED))
        is_kink = (is_short & ~failed).any() & (p is not None and p < 2 and p != 1)
        F, U = (t.masked_fill(failed[..., None, None], 0) for t in (F, U))
        return F, outcome, is_kink, failed, U, s, Vt, c.masked_fill(failed, 1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        X, ctx.p, ctx.eps, _ = inputs
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(X, *output[2:])
        ctx.save_for_forward(X, *output[2:])

    @staticmethod
    def backward(ctx: Any, g: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
        if g is None:
            return None, None, None, None
        X, is_kink, failed, U, s, Vt, c = ctx.saved_tensors
        if builds_graph() and not is_kink:
            dX = _smooth_gradient(X, ctx.p, ctx.eps, failed, g)
        else:
            dX = gradient_on_support(U, Vt, *_on_support(s, c, ctx.p, ctx.eps), g)
            dX = first_only(dX, KINK.format(ctx.p), X, g) if builds_graph() else dX
        return dX.to(X), None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> tuple[Any, Any]:
        outputs = _CovarianceFunctionForward.apply(*in_front(info, in_dims, args))
        return outputs, (0, 0, None, 0, 0, 0, 0, 0)


class _CovarianceFunctionForward(_CovarianceFunction):
    # Note [Compiled functions] of lyapunov.py

    @staticmethod
    def jvp(ctx: Any, dX: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        X, is_kink, failed, U, s, Vt, c = ctx.saved_tensors
        if is_kink:
            dF = tangent_on_support(U, Vt, *_on_support(s, c, ctx.p, ctx.eps), dX)
            dF = first_only(dF, KINK.format(ctx.p), X, dX)
        else:
            dF = _smooth_tangent(X, ctx.p, ctx.eps, failed, dX)
        return dF.to(X), *[None] * 7


def _slope(P: Tensor, C: Tensor, p: Exponent, ridge: Tensor | float, failed: Tensor) -> Tensor:
    """Return the derivative of f at P + ridge I in the direction C, differentiable; 0 if failed."""
    l, U, _ = eigh(P)
    l = torch.where(failed.unsqueeze(-1), 1, l.clamp_min(0) + ridge)
    X: Tensor = Slope.apply(P, C, p, l, U.masked_fill(failed[..., None, None], 0))
    return X


def _by_positions(X: Tensor, p: Exponent, eps: float) -> bool:
    """Return whether Note [Second derivatives of powers] needs the form with h."""
    return X.shape[-1] <= X.shape[-2] and eps == 0 and p is not None and p < 2 and p != 1


def _gram(Y: Tensor, failed: Tensor) -> Tensor:
    """Return K of Note [Second derivatives of powers], and the identity for what failed."""
    K = Y.mT @ Y
    c = K.detach().diagonal(dim1=-2, dim2=-1).mean(-1)
    K = K + (torch.where(c > 0, c, 1) / Y.shape[-1])[..., None, None]
    identity = torch.eye(Y.shape[-1], dtype=Y.dtype, device=Y.device)
    return torch.where(failed[..., None, None], identity, K)


def _smooth_gradient(X: Tensor, p: Exponent, eps: float, failed: Tensor, g: Tensor) -> Tensor:
    """Return dl/dX for dl/dF = g, differentiable once in X, and in g."""
    Y, c, _ = _prepared(X, eps)
    g = symmetric(double(g)).masked_fill(failed[..., None, None], 0)
    if _by_positions(X, p, eps):
        assert p is not None
        K = _gram(Y, failed)
        gY = g @ Y @ matrix_power(K, p - 1) + Y @ _slope(K, Y.mT @ g @ Y, p - 1, 0.0, failed)
    else:
        gY = _slope(Y @ Y.mT, g, p, _ridge(eps, c), failed) @ Y
    gY = 2 * gY * _of_gradient(c, p)
    return (gY - gY.mean(-1, keepdim=True)) / X.shape[-1] ** 0.5


def _smooth_tangent(X: Tensor, p: Exponent, eps: float, failed: Tensor, dX: Tensor) -> Tensor:
    """Return dF for dX, differentiable in both. It is the adjoint of ``_smooth_gradient``."""
    Y, c, _ = _prepared(X, eps)
    dX = double(dX).masked_fill(failed[..., None, None], 0)
    dY = (dX - dX.mean(-1, keepdim=True)) / X.shape[-1] ** 0.5
    if _by_positions(X, p, eps):
        assert p is not None
        K = _gram(Y, failed)
        dF = 2 * symmetric(dY @ matrix_power(K, p - 1) @ Y.mT)
        dF = dF + Y @ _slope(K, 2 * symmetric(dY.mT @ Y), p - 1, 0.0, failed) @ Y.mT
    else:
        dF = _slope(Y @ Y.mT, 2 * symmetric(dY @ Y.mT), p, _ridge(eps, c), failed)
    return dF * _of_gradient(c, p)


def covariance_function(
    X: Tensor, p: Exponent, eps: float = 0.0, by_channels: bool = False
) -> tuple[Tensor, Tensor]:
    """Return the power p or the logarithm of a covariance and record failures, for layers.

    The function is (X J X^T + eps I)^p or log(X J X^T + eps I). Its gradient is exact, at equal
    eigenvalues too. It is differentiable twice, by reverse and forward mode and torch.func, except
    for a power below 2, other than 1, of a covariance of rank below min(d, N - 1) without eps. See
    Note [Powers on the support] for the first gradient there.

    Args:
        X: features (..., d, N), of a real floating dtype; the arithmetic is float64.
        p: positive exponent, or None for the logarithm.
        eps: added to the diagonal of the covariance.
        by_channels: True to decompose the matrix of size d x d even if N < d.

    Returns:
        F (..., d, d) in X's dtype, and the outcome (...), int8 values of ``Outcome``. A sample
        FAILED if it holds NaN or Inf, if no driver converged, if F overflows, or, for the logarithm
        without eps, if the covariance is singular. Its F and its gradient are zero. It is INEXACT
        if p < 1/2 and eps = 0 and the rank is below min(d, N - 1).

    Raises:
        UserError: a second derivative is computed that does not exist.

    Source: Li, Xie, Wang and Zuo 2017 (arXiv 1703.08050) for powers; Arsigny, Fillard, Pennec and
    Ayache 2007 for the logarithm; Higham 2008, "Functions of Matrices", chapter 3.

    Example:
        >>> X = torch.tensor([[2.0, -2.0, 0.0, 0.0], [0.0, 0.0, 1.0, -1.0]])
        >>> F, outcome = covariance_function(X, 2.0)
        >>> F.tolist(), outcome.item()
        ([[4.0, 0.0], [0.0, 0.25]], 0)
    """
    function = _CovarianceFunction if torch.compiler.is_compiling() else _CovarianceFunctionForward
    narrow = by_positions(*X.shape[-2:]) and not by_channels
    F, outcome, *_ = function.apply(X, p, float(eps), narrow)
    return F, outcome
