r"""Square root of a covariance, from the features themselves and on their support.

Note [The smaller side]
    With centred Y = X J^(1/2), J = (I - 1 1^T / N) / N, the covariance is P = Y Y^T. Where N < d
    its rank is at most N - 1, and P^(1/2) = Y (Y^T Y)^(-1/2) Y^T: an N x N eigendecomposition
    replaces a d x d one, and no eigenvalue that is zero by construction is ever computed.

Note [Backward on the support]
    Y = U diag(s) V^T on the support, g = sym(dl/dQ), A = U^T g U, r = sqrt(s^2 + eps) and
    r_0 = sqrt(eps) the root on the null space. Then
        dl/dY = 2 (U (A o 1/(r_i + r_j)) + (I - U U^T) g U diag(1/(r + r_0))) U^T Y.
    The second term couples support and null space; it is not zero, since a change of Y turns the
    support. Null to null is multiplied by Y, which is zero there. At eps = 0 this is the limit of
    the ridge form as eps goes to 0, and below full rank that limit is the definition: the root
    itself is not differentiable where a zero eigenvalue could grow.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from orthocond.spectral.eigh import DecompositionError, Outcome, eigh


def _support(l: Tensor, size: int) -> Tensor:
    """Which eigenvalues (..., k), ascending, are more than the rounding of a Gram product."""
    return l > 4 * size * torch.finfo(l.dtype).eps * l[..., -1:]


class _CovarianceRoot(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, X: Tensor, eps: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        d, n = X.shape[-2:]
        finite = X.isfinite().flatten(-2).all(-1)[..., None, None]  # (..., 1, 1)
        Y = torch.where(finite, X, 0).to(dtype)
        Y = (Y - Y.mean(-1, keepdim=True)) / n**0.5  # (..., d, n)
        gram = n < d
        l, W, outcome = eigh(Y.mT @ Y if gram else Y @ Y.mT, dtype)
        outcome = torch.where(finite[..., 0, 0], outcome, int(Outcome.FAILED)).to(torch.int8)
        keep = _support(l, max(d, n))
        s = torch.where(keep, l, 0).sqrt()  # (..., k), zero off the support
        if gram:
            U = (Y @ W) * torch.where(keep, 1 / s, 0).unsqueeze(-2)  # (..., d, k)
            T = s.unsqueeze(-1) * W.mT  # U^T Y, (..., k, n)
        else:
            U = W * keep.unsqueeze(-2)
            T = U.mT @ Y
        r, r0 = (s.square() + eps).sqrt(), eps**0.5
        Q = (U * (r - r0).unsqueeze(-2)) @ U.mT
        Q.diagonal(dim1=-2, dim2=-1).add_(r0)
        Q = torch.where((outcome == Outcome.FAILED)[..., None, None], 0, Q)
        ctx.save_for_backward(U, T, r, keep)
        ctx.r0, ctx.dtype = r0, X.dtype
        ctx.mark_non_differentiable(outcome)
        return Q.to(X.dtype), outcome

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        g = gradients[0]
        U, T, r, keep = ctx.saved_tensors
        g = ((g + g.mT) / 2).to(U.dtype)
        gU = g @ U  # (..., d, k)
        A = U.mT @ gU
        # Off the support columns of U are zero; their divisions are masked, not evaluated.
        sums = r.unsqueeze(-1) + r.unsqueeze(-2)
        inner = A / torch.where(sums > 0, sums, 1)
        outer = torch.where(keep, 1 / (r + ctx.r0), 0).unsqueeze(-2)
        dY = 2 * (U @ inner + (gU - U @ A) * outer) @ T  # (..., d, n)
        dX = (dY - dY.mean(-1, keepdim=True)) / dY.shape[-1] ** 0.5
        return dX.to(ctx.dtype), None, None


def covariance_root(
    X: Tensor, eps: float = 0.0, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor]:
    """``covariance_sqrt`` for layers: nothing is raised, and every outcome is recorded.

    Returns:
        The root (..., d, d) in X's dtype, and the int8 outcome (...) of ``Outcome``. A sample that
        FAILED (NaN or Inf, no driver converged) has a zero root and passes a zero gradient.

    Example:
        >>> Q, outcome = covariance_root(torch.full((2, 3, 4), torch.nan))
        >>> Q.count_nonzero().item(), outcome.tolist()
        (0, [2, 2])
    """
    if X.dim() < 2 or 0 in X.shape[-2:]:
        raise ValueError(f"expected features (..., d, N) of at least 1 x 1, got {tuple(X.shape)}")
    if not eps >= 0:
        raise ValueError(f"eps must be 0 or more, got {eps}")
    root, outcome = _CovarianceRoot.apply(X, eps, dtype)
    return root, outcome


def covariance_sqrt(X: Tensor, eps: float = 0.0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Square root of the covariance of features, (X J X^T + eps I)^(1/2) (eqs. 2 and 44).

    The eigendecomposition is that of the smaller of the two Gram matrices, N x N or d x d. Singular
    covariances (N - 1 < d, dead channels, repeated columns, equal columns) are well defined: the
    root lives on the support, and the gradient is the limit of the ridge form as eps goes to 0,
    finite everywhere. Below full rank that limit is the definition.

    Args:
        X: (..., d, N), floating: N samples of d features each.
        eps: added to the covariance's diagonal.
        dtype: of the spectral part. With float64 the value and gradient are accurate to X's own
            precision; float32 is good to about 1e-3 where the spectrum is well spread, and loses
            directions below 1e-3 of the largest singular value.

    Returns:
        (..., d, d) in X's dtype. Zero for N = 1 and for equal columns (at eps = 0).

    Raises:
        ValueError: X has less than two dimensions or is empty, or eps is negative.
        DecompositionError: X holds NaN or Inf, or could not be decomposed.

    Example:
        >>> Q = oc.covariance_sqrt(torch.tensor([[1.0, -1.0], [0.0, 0.0]]))
        >>> Q.tolist()
        [[1.0, 0.0], [0.0, 0.0]]
    """
    root, outcome = covariance_root(X, eps, dtype)
    failed = int((outcome == Outcome.FAILED).sum())
    if failed:
        raise DecompositionError(
            f"{failed} of {outcome.numel()} covariances could not be decomposed: the features hold "
            "NaN or Inf, or no driver converged"
        )
    return root
