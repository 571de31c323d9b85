"""The polar factor: the nearest (semi-)orthogonal matrix.

Note [Gram side]
    G = U S V^T has the polar factor R = U V^T = (G G^T)^(-1/2) G (eqs. 16, 17). The
    eigendecomposition of the smaller Gram matrix, in float64, is faster than an SVD where G is
    long, but it squares the condition number k: R is off by eps64 k^2. The answer checks itself:
    T = (G G^T)^(-1/2) is positive definite by construction, and where R = T G has orthonormal
    rows, G = T^-1 R is the polar decomposition, which is unique. What G's dtype can see of
    E = R R^T - I is squared by the Newton-Schulz step R <- R - E R / 2. Where E is above
    GRAM_LIMIT, the rank is short or the decomposition fails, the SVD is taken instead.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from orthocond.errors import DecompositionError, UserError, require_floating, unknown

Method = Literal["auto", "gram", "svd"]

GRAM_LIMIT = 1e-4
"""Largest entry of R R^T - I before the repair, reached at condition numbers of about 1e6."""


def rank_tolerance(G: Tensor) -> float:
    """Singular values at or below this fraction of the largest one count as zero.

    max(m, n) times the machine epsilon of G's dtype, as in torch.linalg.matrix_rank; that of
    float32 for half precision, whose own would leave nothing.
    """
    return max(G.shape[-2:]) * torch.finfo(torch.promote_types(G.dtype, torch.float32)).eps


def _from_svd(G: Tensor, tolerance: float) -> Tensor:
    try:
        U, s, Vh = torch.linalg.svd(G, full_matrices=False)
    except torch.linalg.LinAlgError as error:
        raise DecompositionError(f"the SVD of a gradient did not converge: {error}") from error
    support = s > tolerance * s[..., :1]
    return (U * support.unsqueeze(-2)) @ Vh


def _from_gram(G: Tensor, tolerance: float, precision: float) -> tuple[Tensor, bool]:
    """Polar factor of a wide G by its Gram matrix, and whether that holds (Note [Gram side])."""
    try:
        l, U = torch.linalg.eigh(G @ G.mT)
    except torch.linalg.LinAlgError:
        return G, False
    if not (l[..., 0] > tolerance**2 * l[..., -1]).all():
        return G, False
    R = (U * l.rsqrt().unsqueeze(-2)) @ U.mT @ G
    E = R @ R.mT
    E.diagonal(dim1=-2, dim2=-1).sub_(1)
    error = float(E.abs().amax())
    if error > precision:
        R = R - E @ R / 2
    return R, error < GRAM_LIMIT


def polar_factor(G: Tensor, method: Method = "auto") -> Tensor:
    """Nearest (semi-)orthogonal matrix to G in the Frobenius norm, U V^T (eqs. 14 to 17).

    Where G is rank-deficient the nearest matrix is not unique; the answer is the partial isometry
    U V^T over the singular values above ``rank_tolerance(G)`` of the largest: the null space stays
    at zero. It is not differentiable, and its result is detached.

    Args:
        G: (..., m, n), any floating dtype; the arithmetic is float64.
        method: ``gram`` by the smaller Gram matrix, ``svd``, or ``auto``: gram, and svd where a
            matrix of the batch is rank-deficient or too ill-conditioned for it (above about 1e6).

    Returns:
        (..., m, n) in G's dtype, orthogonal to 1e-5 or better in float32 at full rank. Zero for
        G = 0.

    Raises:
        UserError: unknown method, or G is not a matrix of a real floating dtype.
        DecompositionError: G holds NaN or Inf, or, with ``gram``, is too ill-conditioned for it.

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
        return G.detach().clone()
    tall = G.shape[-2] > G.shape[-1]
    A = G.detach().double()
    A = A.mT if tall else A
    largest = A.abs().amax((-2, -1), keepdim=True)  # (..., 1, 1), NaN where A holds one
    if not largest.isfinite().all():
        raise DecompositionError("the matrix holds NaN or Inf and has no polar factor")
    A = A / largest.clamp_min(torch.finfo(A.dtype).tiny)  # squares neither over- nor underflow
    tolerance = rank_tolerance(G)
    R, accurate = A, False
    if method != "svd":
        R, accurate = _from_gram(A, tolerance, torch.finfo(G.dtype).eps)
    if not accurate:
        if method == "gram":
            raise DecompositionError(
                "method 'gram' takes full rank and condition numbers up to about 1e6; "
                "use 'svd' or 'auto'"
            )
        R = _from_svd(A, tolerance)
    return (R.mT if tall else R).to(G.dtype)
