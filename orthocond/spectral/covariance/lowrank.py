r"""Square root of a covariance, computed from the features on the support of the covariance.

Note [The smaller side]
    Let J = (I - 1 1^T / N) / N. With the centred features Y = X J^(1/2) the covariance is
    P = Y Y^T. If N - 1 < d, P is singular by construction and has at least d - N + 1 zero
    eigenvalues. With the thin singular value decomposition Y = U diag(s) V^T over the support,
    P^(1/2) = U diag(s) U^T. The decomposition comes from the eigenvectors of the smaller of the
    two Gram matrices Y^T Y (N x N) and Y Y^T (d x d). The other singular vectors follow from
    U = Y V diag(1/s) or V^T = diag(1/s) U^T Y, so a direction with s_i = t s_1 is accurate to
    eps / t^2.

Note [Backward on the support]
    Let g = sym(dl/dQ), A = U^T g U and r = sqrt(s^2 + eps). On the null space the root is
    r_0 = sqrt(eps). Then
        dl/dY = 2 (U (A o s_j / (r_i + r_j)) + (I - U U^T) g U diag(s_j / (r_j + r_0))) V^T.
    The second term couples the support and the null space. It is not zero, because a change of Y
    rotates the support. A null-to-null term is missing, because its factor Y V is 0. For eps = 0
    this formula is the limit of the ridge form as eps goes to 0. Below full rank this limit is the
    definition of the gradient: the root is not differentiable where a zero singular value can
    grow. No factor exceeds 2, so no error is amplified, and the products can use the precision of
    the features. The first gradient at any rank uses it; for the others see
    covariance/derivatives.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from orthocond.errors import DecompositionError, UserError, require_floating, require_nonnegative
from orthocond.host import Refusal, full_precision, like, refuse
from orthocond.spectral.covariance.derivatives import scaled, smooth_gradient, smooth_tangent
from orthocond.spectral.eigh import Outcome, eigh
from orthocond.spectral.lyapunov import builds_graph, first_only, in_front, symmetric

KINK = (
    "covariance_sqrt has no second derivative below rank min(d, N - 1), where the root has a kink "
    "(dead or repeated features): pass eps > 0"
)


def by_positions(d: int, n: int) -> bool:
    """Return whether to decompose Y^T Y (n x n), and not Y Y^T (d x d).

    Both cost the same at n = d, measured with 96 and 256 channels (benchmarks/scaling.py).
    """
    return n < d


def thin_svd(Y: Tensor, narrow: bool) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the thin SVD of Y (..., d, n) from a Gram matrix, with rank and outcome.

    The Gram matrix is Y^T Y if ``narrow``, else Y Y^T. With its size k, U is (..., d, k), s is
    (..., k) and V^T is (..., k, n). Singular values below the rounding of the Gram product are
    outside the support. There the columns of U are zero, s is 1, so that division by s is safe,
    and V^T is finite.
    """
    d, n = Y.shape[-2:]
    l, W, outcome = eigh(Y.mT @ Y if narrow else Y @ Y.mT, Y.dtype)
    support = l > 4 * max(d, n) * torch.finfo(l.dtype).eps * l[..., -1:]
    s = torch.where(support, l, 1).sqrt()
    other = W * (support / s).unsqueeze(-2)
    rank = support.sum(-1)
    if narrow:
        return Y @ other, s, W.mT, rank, outcome
    return W * support.unsqueeze(-2), s, other.mT @ Y, rank, outcome


def gradient_on_support(U: Tensor, Vt: Tensor, inner: Tensor, outer: Tensor, g: Tensor) -> Tensor:
    """Return dl/dX for dl/dF = g, by Note [Backward on the support].

    ``inner`` (..., k, k) and ``outer`` (..., 1, k) are the factors of A and of g U in the note.
    """
    g = g.to(U)
    gU = (g + g.mT) @ U  # (..., d, k): 2 g U of the note; the terms below include the 2
    A = U.mT @ gU
    left = U @ (A * (inner - outer).to(U.dtype)) + gU * outer.to(U.dtype)
    # The rows of V^T have mean zero, so the gradient needs no centring.
    return left @ (Vt / Vt.shape[-1] ** 0.5)  # (..., d, n)


def tangent_on_support(U: Tensor, Vt: Tensor, inner: Tensor, outer: Tensor, dX: Tensor) -> Tensor:
    """Return dF for dX: the adjoint of ``gradient_on_support``."""
    T = dX.to(U) @ (Vt.mT / Vt.shape[-1] ** 0.5)  # (..., d, k)
    Z = U @ (U.mT @ T * (inner - outer).to(U.dtype)) + T * outer.to(U.dtype)
    return 2 * symmetric(Z @ U.mT)


def _of_root(factors: Sequence[Tensor], r0: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return U, V^T, inner and outer for the square root."""
    U, s, r, Vt = factors
    inner = s.unsqueeze(-2) / (r.unsqueeze(-1) + r.unsqueeze(-2))  # (..., k, k)
    outer = (s / (r + r0)).unsqueeze(-2)  # (..., 1, k)
    return U, Vt, inner, outer


def _require_none(failed: Tensor, Q: Tensor) -> Tensor:
    line = (
        f"{{}} of {failed.numel()} covariances could not be decomposed: the features hold NaN or "
        "Inf, or no driver converged"
    )
    return refuse(Q, Refusal(failed.any(), DecompositionError, line, failed.sum()))


class _CovarianceRoot(torch.autograd.Function):
    # Autocast would compute float32 products in half precision, so both passes disable it.

    @staticmethod
    def forward(X: Tensor, eps: float, dtype: torch.dtype, strict: bool) -> tuple[Tensor, ...]:
        with full_precision(X):
            work = torch.promote_types(X.dtype, torch.float32)
            Y, scale, finite = scaled(X, dtype)
            U, s, Vt, rank, outcome = thin_svd(Y, by_positions(*Y.shape[-2:]))
            outcome = torch.where(finite, outcome, int(Outcome.FAILED)).to(torch.int8)
            failed = outcome == int(Outcome.FAILED)
            is_kink = (~failed & (rank < min(X.shape[-2], X.shape[-1] - 1))).any() & (eps == 0)
            U, s, r0 = U.to(work), s * scale.unsqueeze(-1), eps**0.5
            r = torch.hypot(s, s.new_full((), r0))
            half = U * (r - r0).sqrt().to(work).unsqueeze(-2)  # (..., d, k)
            Q = half @ half.mT
            if eps:
                ridge = r0 * (~failed).to(work)
                Q.diagonal(dim1=-2, dim2=-1).add_(ridge.unsqueeze(-1))
            Q = _require_none(failed, Q) if strict else Q
        return like(Q, X), outcome, is_kink, U, s, r, Vt.to(work)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        X, ctx.eps, ctx.dtype, _ = inputs
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(X, *output[2:])
        ctx.save_for_forward(X, *output[2:])

    @staticmethod
    def backward(ctx: Any, g: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
        if g is None:
            return None, None, None, None
        X, is_kink, *factors = ctx.saved_tensors
        with full_precision(g):
            if builds_graph() and not is_kink:
                dX = smooth_gradient(X, ctx.eps, ctx.dtype, g)
            else:
                dX = gradient_on_support(*_of_root(factors, ctx.eps**0.5), g)
                dX = first_only(dX, KINK, X, g) if builds_graph() else dX
        return dX.to(X), None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> tuple[Any, Any]:
        outputs = _CovarianceRootForward.apply(*in_front(info, in_dims, args))
        return outputs, (0, 0, None, 0, 0, 0, 0)


class _CovarianceRootForward(_CovarianceRoot):
    # Note [Compiled functions] of lyapunov.py

    @staticmethod
    def jvp(ctx: Any, dX: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        X, is_kink, *factors = ctx.saved_tensors
        with full_precision(dX):
            if is_kink:
                dQ = tangent_on_support(*_of_root(factors, ctx.eps**0.5), dX)
                dQ = first_only(dQ, KINK, X, dX)
            else:
                dQ = smooth_tangent(X, ctx.eps, ctx.dtype, dX)
        return dQ.to(X), *[None] * 6


def _check(X: Tensor, eps: float, dtype: torch.dtype) -> None:
    require_floating(X, "features")
    if X.dim() < 2 or 0 in X.shape[-2:]:
        raise UserError(f"expected features (..., d, N) of at least 1 x 1, got {tuple(X.shape)}")
    require_nonnegative(eps, "eps")
    if dtype not in (torch.float32, torch.float64):
        raise UserError(
            f"the dtype of the decomposition must be torch.float64 or torch.float32, got {dtype}"
        )


def covariance_root(
    X: Tensor, eps: float = 0.0, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor]:
    """Return the root of ``covariance_sqrt`` and record failures instead of raising, for layers.

    Args:
        X: features (..., d, N), as in ``covariance_sqrt``.
        eps: as in ``covariance_sqrt``.
        dtype: as in ``covariance_sqrt``.

    Returns:
        The root (..., d, d) in X's dtype, and the outcome (...), int8 values of ``Outcome``. A
        sample FAILED if it holds NaN or Inf, or if no driver converged. Its root and its gradient
        are zero.

    Raises:
        UserError: in the cases listed in ``covariance_sqrt``.

    Example:
        >>> Q, outcome = covariance_root(torch.full((2, 3, 4), torch.nan))
        >>> Q.count_nonzero().item(), outcome.tolist()
        (0, [2, 2])
    """
    return _apply(X, eps, dtype, strict=False)


def _apply(X: Tensor, eps: float, dtype: torch.dtype, strict: bool) -> tuple[Tensor, Tensor]:
    _check(X, eps, dtype)
    function = _CovarianceRoot if torch.compiler.is_compiling() else _CovarianceRootForward
    root, outcome, *_ = function.apply(X, float(eps), dtype, strict)
    return root, outcome


def covariance_sqrt(X: Tensor, eps: float = 0.0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return the square root of a covariance, (X J X^T + eps I)^(1/2) (eqs. 2 and 44).

    The smaller of the two Gram matrices, N x N or d x d, is decomposed. Singular covariances
    (N - 1 < d, dead channels, repeated columns, equal columns) have a well-defined result. The root
    is computed on the support. The gradient is the limit of the ridge form as eps goes to 0 and is
    finite everywhere.

    At rank min(d, N - 1), which nearby features share, and for eps > 0, the function is
    differentiable to any order, at equal singular values too, by reverse and forward mode and
    torch.func. Below this rank the root has a kink: the limit is the definition of the gradient,
    and a second derivative is refused.

    Args:
        X: (..., d, N), floating: N samples of d features each.
        eps: added to the diagonal of the covariance.
        dtype: dtype of the decomposition. The products after it use X's dtype, at least float32.
            For float32 features, float64 gives value and gradient with a relative error (in norm)
            of 1e-6 for any spectrum. float32 gives 5e-6 if no singular value is below a tenth of
            the largest; values below about 7e-4 sqrt(max(d, N)) of the largest count as zero.

    Returns:
        The root (..., d, d) in X's dtype. For eps = 0 it is zero if N = 1 or all columns are equal.

    Raises:
        UserError: X has fewer than two dimensions, is empty or is not of a real floating dtype;
            eps is negative or not finite; dtype is neither float64 nor float32; a second derivative
            is computed below rank min(d, N - 1) without eps.
        DecompositionError: X holds NaN or Inf, or a covariance could not be decomposed.

    Example:
        >>> Q = oc.covariance_sqrt(torch.tensor([[1.0, -1.0], [0.0, 0.0]]))
        >>> Q.tolist()
        [[1.0, 0.0], [0.0, 0.0]]
    """
    return _apply(X, eps, dtype, strict=True)[0]
