"""Derivatives of any order of the square root of a covariance.

Note [Further derivatives]
    The rank does not change near features of rank min(d, N - 1). There, and everywhere for
    eps > 0, the root is a composition of maps that lyapunov.py differentiates to any order. With
    r_0 = sqrt(eps), and a constant c > 0 that raises the eigenvalue of K for the vector 1, which
    Y maps to 0,
        N > d:   Q = (Y Y^T + eps I)^(1/2)
        N <= d:  Q = r_0 I + Y H Y^T,   H = (R + r_0 I)^(-1),   R = (K + eps I)^(1/2),
                 K = Y^T Y + c 1 1^T / N.
    The gradient is, with g = sym(dl/dQ),
        N > d:   dl/dY = 2 lyap(Q, g) Y
        N <= d:  dl/dY = 2 g Y H - 2 Y lyap(R, H Y^T g Y H).
"""

from __future__ import annotations

import torch
from torch import Tensor

from orthocond.host import has_float64, with_dtype
from orthocond.spectral.eigh import Outcome, eigh
from orthocond.spectral.lyapunov import (
    known_inverse,
    known_sqrt,
    lyapunov,
    symmetric,
)


def scaled(X: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Return Y / c (..., d, n), its scale c (...) and whether X (..., d, n) is finite (...).

    The largest feature is scaled to 1, so that squares neither overflow nor underflow. Y = 0 where
    X is not finite. The scale has the precision of X, at least float32.
    """
    X = with_dtype(X, dtype) if not has_float64(X.device) else X
    largest = X.detach().abs().amax((-2, -1)).to(torch.promote_types(X.dtype, torch.float32))
    finite = largest.isfinite()  # NaN if the sample holds NaN
    scale = torch.where(finite & (largest > 0), largest, 1).to(dtype)
    Y = torch.where(finite[..., None, None], X, 0).to(dtype)
    Y = (Y - Y.mean(-1, keepdim=True)) / (scale[..., None, None] * X.shape[-1] ** 0.5)
    return Y, scale, finite


def _ridge(eps: float, scale: Tensor) -> Tensor:
    """Return eps / c^2 (..., 1, 1), without 0 / 0 or overflow for features of any scale."""
    largest = min(1e50, torch.finfo(scale.dtype).max ** 0.4)
    return (eps**0.5 / scale).clamp_max(largest).square()[..., None, None]


def _known_sqrt(P: Tensor, eps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return (P + eps I)^(1/2), differentiable in P to any order, and its factors q and U."""
    l, U, outcome = eigh(P, dtype=None)
    q = (l.clamp_min(0) + eps.squeeze(-1)).sqrt()
    # Samples of zeros are those with NaN or Inf, or constant: any value gives them a gradient of 0.
    q = torch.where(q > 0, q, 1)
    U = U.masked_fill((outcome == int(Outcome.FAILED))[..., None, None], 0)
    return known_sqrt(P, (U * q.unsqueeze(-2)) @ U.mT, (), q, U), q, U


def _smaller_gram(Y: Tensor, eps: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return R, H and the factors of R, by Note [Further derivatives] for N <= d."""
    K = Y.mT @ Y
    c = K.detach().diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
    R, q, W = _known_sqrt(K + torch.where(c > 0, c, 1) / Y.shape[-1], eps)
    h = q + eps.squeeze(-1).sqrt()
    return R, known_inverse(R, (W / h.unsqueeze(-2)) @ W.mT), q, W


def smooth_gradient(X: Tensor, eps: float, dtype: torch.dtype, g: Tensor) -> Tensor:
    """Return dl/dX for dl/dQ = g, differentiable in X and g (Note [Further derivatives])."""
    Y, scale, _ = scaled(X, dtype)
    d, n = Y.shape[-2:]
    ridge = _ridge(eps, scale)
    g = symmetric(g.to(Y))
    if n <= d:
        R, H, *factors = _smaller_gram(Y, ridge)
        YH = Y @ H
        gY = 2 * (g @ YH - Y @ lyapunov(R, YH.mT @ g @ YH, (), *factors))
    else:
        Q, *factors = _known_sqrt(Y @ Y.mT, ridge)
        gY = 2 * lyapunov(Q, g, (), *factors) @ Y
    return (gY - gY.mean(-1, keepdim=True)) / n**0.5


def smooth_tangent(X: Tensor, eps: float, dtype: torch.dtype, dX: Tensor) -> Tensor:
    """Return dQ for dX, differentiable in both. It is the adjoint of ``smooth_gradient``."""
    Y, scale, finite = scaled(X, dtype)
    n = Y.shape[-1]
    ridge = _ridge(eps, scale)
    dY = torch.where(finite[..., None, None], dX.to(Y), 0)
    dY = (dY - dY.mean(-1, keepdim=True)) / n**0.5
    if n <= Y.shape[-2]:
        R, H, *factors = _smaller_gram(Y, ridge)
        YH = Y @ H
        dR = lyapunov(R, 2 * symmetric(dY.mT @ Y), (), *factors)
        return 2 * symmetric(dY @ YH.mT) - YH @ dR @ YH.mT
    Q, *factors = _known_sqrt(Y @ Y.mT, ridge)
    return lyapunov(Q, 2 * symmetric(dY @ Y.mT), (), *factors)
