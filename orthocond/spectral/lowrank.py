r"""Square root of a covariance, from the features themselves and on their support.

Note [The smaller side]
    With centred Y = X J^(1/2), J = (I - 1 1^T / N) / N, the covariance is P = Y Y^T. Below full
    rank (N - 1 < d) most of its eigenvalues are zero by construction. With the thin singular value
    decomposition Y = U diag(s) V^T over the support, P^(1/2) = U diag(s) U^T. It comes from the
    eigendecomposition of the smaller of Y^T Y (N x N) and Y Y^T (d x d); the other side's vectors
    are Y times the first's over s, so a direction with s_i = t s_1 is accurate to eps / t^2.

Note [Backward on the support]
    With g = sym(dl/dQ), A = U^T g U, r = sqrt(s^2 + eps) and r_0 = sqrt(eps), which is the root on
    the null space,
        dl/dY = 2 (U (A o s_j / (r_i + r_j)) + (I - U U^T) g U diag(s_j / (r_j + r_0))) V^T.
    The second term couples support and null space; it is not zero, since a change of Y turns the
    support. Null to null comes with Y V = 0. At eps = 0 this is the limit of the ridge form as eps
    goes to 0, and below full rank that limit is the definition: the root itself is not
    differentiable where a zero singular value could grow. No factor exceeds 2, so nothing is
    amplified and the products may be taken in the features' own precision.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from orthocond.errors import DecompositionError, UserError, require_floating
from orthocond.spectral.eigh import Outcome, eigh


def by_positions(d: int, n: int) -> bool:
    """Whether Y^T Y (n x n) is decomposed, and not Y Y^T (d x d).

    The two cost the same at n = d, at 96 and at 256 channels (benchmarks/scaling.py).
    """
    return n < d


def _svd(Y: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Thin SVD of Y (..., d, n), k = min(d, n), by its smaller Gram matrix, and the outcome.

    Off the support, below the rounding of a Gram product, the columns of U (..., d, k) are zero,
    s (..., k) is 1, by which one may divide, and V^T (..., k, n) is finite.
    """
    d, n = Y.shape[-2:]
    narrow = by_positions(d, n)
    l, W, outcome = eigh(Y.mT @ Y if narrow else Y @ Y.mT, Y.dtype)
    support = l > 4 * max(d, n) * torch.finfo(l.dtype).eps * l[..., -1:]
    s = torch.where(support, l, 1).sqrt()
    other = W * (support / s).unsqueeze(-2)
    if narrow:
        return Y @ other, s, W.mT, outcome
    return W * support.unsqueeze(-2), s, other.mT @ Y, outcome


class _CovarianceRoot(torch.autograd.Function):
    # Autocast would take float32 products in half precision, so both passes switch it off.

    @staticmethod
    def forward(ctx: Any, X: Tensor, eps: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        with torch.autocast(X.device.type, enabled=False):
            work = torch.promote_types(X.dtype, torch.float32)
            largest = X.abs().amax((-2, -1)).to(work)  # (...), NaN where X holds one
            finite = largest.isfinite()
            # Features of size 1 have squares that neither overflow nor vanish.
            scale = torch.where(finite & (largest > 0), largest, 1).to(dtype)
            Y = torch.where(finite[..., None, None], X, 0).to(dtype)
            Y = (Y - Y.mean(-1, keepdim=True)).div_(scale[..., None, None] * X.shape[-1] ** 0.5)
            U, s, Vt, outcome = _svd(Y)
            outcome = torch.where(finite, outcome, int(Outcome.FAILED)).to(torch.int8)
            U, s, r0 = U.to(work), s * scale.unsqueeze(-1), eps**0.5
            r = torch.hypot(s, s.new_tensor(r0))
            half = U * (r - r0).sqrt().to(work).unsqueeze(-2)  # (..., d, k)
            Q = half @ half.mT
            if eps:
                ridge = r0 * (outcome != Outcome.FAILED).to(work)
                Q.diagonal(dim1=-2, dim2=-1).add_(ridge.unsqueeze(-1))
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward(U, s, r, Vt.to(work))
            ctx.r0, ctx.dtype = r0, X.dtype
        ctx.mark_non_differentiable(outcome)
        return Q.to(X.dtype), outcome

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor, _: Tensor) -> tuple[Tensor, None, None]:
        U, s, r, Vt = ctx.saved_tensors
        with torch.autocast(g.device.type, enabled=False):
            g = g.to(U.dtype)
            gU = (g + g.mT) @ U  # (..., d, k): 2 g U of the note, as all below
            A = U.mT @ gU
            inner = s.unsqueeze(-2) / (r.unsqueeze(-1) + r.unsqueeze(-2))  # (..., k, k)
            outer = (s / (r + ctx.r0)).unsqueeze(-2)  # (..., 1, k)
            left = U @ (A * (inner - outer).to(U.dtype)) + gU * outer.to(U.dtype)
            # The rows of V^T have mean zero, so there is nothing left to centre.
            dX = left @ (Vt / Vt.shape[-1] ** 0.5)  # (..., d, n)
        return dX.to(ctx.dtype), None, None


def _check(X: Tensor, eps: float, dtype: torch.dtype) -> None:
    require_floating(X, "features")
    if X.dim() < 2 or 0 in X.shape[-2:]:
        raise UserError(f"expected features (..., d, N) of at least 1 x 1, got {tuple(X.shape)}")
    if not 0 <= eps < float("inf"):
        raise UserError(f"eps must be 0 or more and finite, got {eps}")
    if dtype not in (torch.float32, torch.float64):
        raise UserError(f"dtype of the spectral part: torch.float64 or torch.float32, got {dtype}")


def covariance_root(
    X: Tensor, eps: float = 0.0, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor]:
    """``covariance_sqrt`` for layers: no decomposition raises, and every outcome is recorded.

    Args:
        X: (..., d, N), and eps and dtype: as in ``covariance_sqrt``.

    Returns:
        The root (..., d, d) in X's dtype, and the int8 outcome (...) of ``Outcome``. A sample that
        FAILED (NaN or Inf, no driver converged) has a zero root and passes a zero gradient.

    Raises:
        UserError: as ``covariance_sqrt``.

    Example:
        >>> Q, outcome = covariance_root(torch.full((2, 3, 4), torch.nan))
        >>> Q.count_nonzero().item(), outcome.tolist()
        (0, [2, 2])
    """
    _check(X, eps, dtype)
    root, outcome = _CovarianceRoot.apply(X, float(eps), dtype)
    return root, outcome


def covariance_sqrt(X: Tensor, eps: float = 0.0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Square root of the covariance of features, (X J X^T + eps I)^(1/2) (eqs. 2 and 44).

    The eigendecomposition is that of the smaller of the two Gram matrices, N x N or d x d. Singular
    covariances (N - 1 < d, dead channels, repeated columns, equal columns) are well defined: the
    root lives on the support, and the gradient is the limit of the ridge form as eps goes to 0,
    finite everywhere. Below full rank that limit is the definition. There is no second derivative.

    Args:
        X: (..., d, N), floating: N samples of d features each.
        eps: added to the covariance's diagonal.
        dtype: of the decomposition; the products after it are in X's dtype, at least float32. Of
            float32 features, float64 gives value and gradient to 1e-6, relative in norm, whatever
            the spectrum. float32 gives 5e-6 where no singular value is below a tenth of the
            largest; those below about 7e-4 sqrt(max(d, N)) of it count as zero.

    Returns:
        (..., d, d) in X's dtype. Zero for N = 1 and for equal columns (at eps = 0).

    Raises:
        UserError: X has less than two dimensions, is empty or not of a real floating dtype; eps is
            negative or not finite; dtype is neither float64 nor float32.
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
