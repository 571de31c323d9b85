"""Polar factor of a matrix: the nearest (semi-)orthogonal matrix.

Note [Gram side]
    G = U S V^T has the polar factor R = U V^T = (G G^T)^(-1/2) G (eqs. 16, 17). If G has many
    more columns than rows, an eigendecomposition of the smaller Gram matrix in float64 is faster
    than an SVD. But it squares the condition number k, and R gets an error of eps64 k^2. This
    error can be measured: T = (G G^T)^(-1/2) is positive definite by construction, so if R = T G
    has orthonormal rows, G = T^-1 R is the polar decomposition, which is unique. If
    E = R R^T - I exceeds the precision of G's dtype, one Newton-Schulz step R <- R - E R / 2
    squares the error. The SVD is used instead if E is above GRAM_LIMIT, G is rank-deficient or
    the eigendecomposition fails. Both decompositions are verified, because E alone does not see
    an error below GRAM_LIMIT that rotates R.

Note [Derivative of the polar factor]
    Let G be wide and of full rank, G = H R with H = (G G^T)^(1/2) = G R^T. Then R R^T = I, and
        dR = Z R + H^(-1) dG (I - R^T R),   H Z + Z H = dG R^T - R dG^T.
    Z is the skew part of dR R^T, and the other term is orthogonal to the rows of R. This map from
    dG to dR is self-adjoint, so the gradient dl/dG is its value at dl/dR. It divides by sums
    of singular values and by single ones, never by their differences. Its own derivatives follow
    from Note [Derivatives by Lyapunov equations] of lyapunov.py.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.autograd import forward_ad

from orthocond.errors import DecompositionError, UserError, require_floating, unknown
from orthocond.host import CPU, Refusal, double, like, refuse
from orthocond.spectral.eigh import Outcome, eigh, lower_eigh
from orthocond.spectral.lyapunov import (
    builds_graph,
    in_front,
    known_inverse,
    lyapunov,
    solve,
    symmetric,
)
from orthocond.spectral.spectra import svd

Method = Literal["auto", "gram", "svd"]

NO_DERIVATIVE = (
    "polar_factor has no derivative at a rank-deficient matrix, where the factor jumps: "
    "differentiate matrices of full rank only, or detach the input"
)

GRAM_LIMIT = 1e-4
"""Limit for the entries of R R^T - I before the Newton-Schulz step.

Condition numbers of about 1e6 reach it.
"""


def rank_tolerance(G: Tensor) -> float:
    """Return the fraction of the largest singular value at or below which others count as zero.

    It is max(m, n) times the machine epsilon of G's dtype, as in torch.linalg.matrix_rank. For
    half precision it uses the epsilon of float32, since its own would make all of them zero.
    """
    return max(G.shape[-2:]) * torch.finfo(torch.promote_types(G.dtype, torch.float32)).eps


def _from_svd(G: Tensor, tolerance: float) -> tuple[Tensor, bool]:
    """Return the polar factor of G, and whether all matrices have full rank."""
    U, s, Vh = svd(G)
    support = s > tolerance * s[..., :1]
    return (U * support.unsqueeze(-2)) @ Vh, bool(support.all())


def _from_gram(G: Tensor, tolerance: float, precision: float) -> tuple[Tensor, bool]:
    """Return the polar factor of a wide G by its Gram matrix, and whether it is accurate.

    Note [Gram side] gives the reasons. ``precision`` is the machine epsilon of G's original dtype.
    """
    l, U, _ = lower_eigh(G @ G.mT)
    if not (l[..., 0] > tolerance**2 * l[..., -1]).all():
        return G, False
    R = (U * l.rsqrt().unsqueeze(-2)) @ U.mT @ G
    E = R @ R.mT
    E.diagonal(dim1=-2, dim2=-1).sub_(1)
    error = float(E.abs().amax())
    if error > precision:
        R = R - E @ R / 2
    return R, error < GRAM_LIMIT


def _factor(G: Tensor, method: Method) -> tuple[Tensor, bool]:
    """Return the polar factor of G, and whether all matrices have full rank."""
    tall = G.shape[-2] > G.shape[-1]
    A = double(G)
    A = A.mT if tall else A
    largest = A.abs().amax((-2, -1), keepdim=True)  # (..., 1, 1), NaN if A holds NaN
    if not largest.isfinite().all():
        raise DecompositionError("the matrix holds NaN or Inf and has no polar factor")
    A = A / largest.clamp_min(torch.finfo(A.dtype).tiny)  # so squares can't over- or underflow
    tolerance = rank_tolerance(G)
    R, accurate, is_full = A, False, True
    if method != "svd":
        R, accurate = _from_gram(A, tolerance, torch.finfo(G.dtype).eps)
    if not accurate:
        if method == "gram":
            raise DecompositionError(
                "method 'gram' needs full rank and a condition number up to about 1e6: "
                "use 'svd' or 'auto'"
            )
        R, is_full = _from_svd(A, tolerance)
    return like(R.mT if tall else R, G), is_full


def _slope(G: Tensor, R: Tensor, C: Tensor) -> Tensor:
    """Return the derivative of the polar factor R of G in the direction C, differentiable in all.

    See Note [Derivative of the polar factor]. All are (..., m, n).
    """
    if G.shape[-2] > G.shape[-1]:
        return _slope(G.mT, R.mT, C.mT).mT
    H = symmetric(G @ R.mT)
    h, U, outcome = eigh(H)
    failed = outcome == int(Outcome.FAILED)
    h = h.masked_fill(failed.unsqueeze(-1), torch.nan)  # a derivative that is lost is no number
    inverse, M = (U / h.unsqueeze(-2)) @ U.mT, C @ R.mT
    if builds_graph():
        inverse, Z = known_inverse(H, inverse), lyapunov(H, M - M.mT, (), h, U)
    else:
        Z = solve(M - M.mT, (), (h, U))
    return Z @ R + inverse @ (C - M @ R)


@torch.library.custom_op("orthocond::polar_factor", mutates_args=())
def _operator(G: Tensor, method: str) -> tuple[Tensor, Tensor]:
    """Return the polar factor and whether all ranks are full: branches that no graph can have."""
    R, is_full = _factor(G, method)  # type: ignore[arg-type]
    return R.contiguous(), torch.tensor(is_full, device=CPU)


@_operator.register_fake
def _(G: Tensor, method: str) -> tuple[Tensor, Tensor]:
    return G.new_empty(G.shape), torch.empty((), dtype=torch.bool, device=CPU)


class _Polar(torch.autograd.Function):
    @staticmethod
    def forward(G: Tensor, method: Method) -> tuple[Tensor, Tensor]:
        if torch.compiler.is_compiling():
            R, is_full = _operator(G, method)
            return R, is_full
        R, full = _factor(G, method)
        return R, torch.tensor(full, device=CPU)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(inputs[0], *output)
        ctx.save_for_forward(inputs[0], *output)

    @staticmethod
    def _slope(ctx: Any, C: Tensor) -> Tensor:
        G, R, is_full = ctx.saved_tensors
        C = refuse(C, Refusal(~is_full, UserError, NO_DERIVATIVE))
        return _slope(double(G), double(R), double(C)).to(C)

    @staticmethod
    def backward(ctx: Any, g: Tensor | None, _: Any) -> tuple[Tensor | None, None]:
        return None if g is None else _Polar._slope(ctx, g), None

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> tuple[Any, Any]:
        return _PolarForward.apply(*in_front(info, in_dims, args)), (0, None)


class _PolarForward(_Polar):
    # Note [Compiled functions] of lyapunov.py

    @staticmethod
    def jvp(ctx: Any, dG: Tensor, _: Any) -> tuple[Tensor, None]:
        return _Polar._slope(ctx, dG), None


def _is_differentiated(G: Tensor) -> bool:
    """Return whether a derivative or torch.func.vmap may need the autograd function.

    It costs 80 microseconds, a third of the factor of a small matrix.
    """
    if (torch.is_grad_enabled() and G.requires_grad) or torch._C._are_functorch_transforms_active():
        return True
    return forward_ad.unpack_dual(G).tangent is not None


def polar_factor(G: Tensor, method: Method = "auto") -> Tensor:
    """Return the (semi-)orthogonal matrix nearest to G in the Frobenius norm (eqs. 14 to 17).

    It is U V^T for G = U S V^T. If G is rank-deficient, the nearest matrix is not unique. The
    result is then the partial isometry U V^T over the singular values above ``rank_tolerance(G)``
    times the largest one, so it maps the null space of G to zero.

    At full rank the function is differentiable to any order, at equal singular values too, also by
    forward mode and torch.func. The relative error of the gradient is of the order of eps k for
    ``svd`` and at most eps k^2 for ``gram``, with the condition number k and eps of float64. Below
    full rank the factor jumps, and its backward pass is refused.

    Args:
        G: (..., m, n), any floating dtype; the arithmetic is float64.
        method: ``gram`` uses the smaller Gram matrix, and ``svd`` an SVD. ``auto`` uses ``gram``,
            and ``svd`` for batches in which a matrix is rank-deficient or too ill-conditioned for
            ``gram`` (a condition number above about 1e6).

    Returns:
        (..., m, n) in G's dtype. At full rank in float32 it is orthogonal to 1e-5 or better. It is
        zero for G = 0.

    Raises:
        UserError: the method is unknown, or G is not a matrix of a real floating dtype. In the
            backward pass and in forward mode: a matrix is rank-deficient.
        DecompositionError: G holds NaN or Inf; with ``gram``, a matrix is rank-deficient or too
            ill-conditioned; the SVD did not converge.

    Example:
        >>> polar_factor(torch.tensor([[3.0, 0.0, 0.0], [0.0, 0.5, 0.0]])).tolist()
        [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    """
    if method not in get_args(Method):
        raise unknown("method", method, get_args(Method))
    require_floating(G, "matrices")
    if G.dim() < 2:
        raise UserError(f"expected matrices (..., m, n), got shape {tuple(G.shape)}")
    if G.numel() == 0:
        return G.clone()
    if not torch.compiler.is_compiling() and not _is_differentiated(G):
        return _factor(G.detach(), method)[0]
    function = _Polar if torch.compiler.is_compiling() else _PolarForward
    R: Tensor = function.apply(G, method)[0]
    return R
