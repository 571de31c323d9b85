"""The polar factor: the nearest (semi-)orthogonal matrix.

Note [Gram side]
    G = U S V^T has the polar factor U V^T = G (G^T G)^(-1/2) (eqs. 16, 17). The eigendecomposition
    of the smaller Gram matrix, in float64, is faster than an SVD of G, but it squares the condition
    number: eigenvalues below d eps64 l_max are noise. One Newton-Schulz step,
    R <- R (3 I - R^T R) / 2, which squares the distance from orthogonality, repairs what is left
    of that. Where the condition number of G is above GRAM_LIMIT the SVD is taken instead.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from orthocond.spectral.eigh import DecompositionError, eigh

Method = Literal["auto", "gram", "svd"]

GRAM_LIMIT = 1e6
"""Largest condition number for which the Gram side leaves an orthogonality error below 1e-7."""


def rank_tolerance(G: Tensor) -> float:
    """Singular values at or below this fraction of the largest one count as zero.

    max(m, n) times the machine epsilon of G's own dtype, as in torch.linalg.matrix_rank.
    """
    return max(G.shape[-2:]) * torch.finfo(G.dtype).eps


def _from_svd(G: Tensor, tolerance: float) -> Tensor:
    try:
        U, s, Vh = torch.linalg.svd(G, full_matrices=False)
    except torch.linalg.LinAlgError as error:
        raise DecompositionError(f"the SVD of a gradient did not converge: {error}") from error
    support = s > tolerance * s[..., :1]
    return (U * support.unsqueeze(-2)) @ Vh


def _from_gram(G: Tensor) -> tuple[Tensor, bool]:
    """Polar factor of a wide G by its Gram matrix, and whether that is accurate enough."""
    l, U, _ = eigh(G @ G.mT).require()
    accurate = bool((l[..., 0] * GRAM_LIMIT**2 > l[..., -1]).all())
    if not accurate:
        return G, False
    R = (U * l.rsqrt().unsqueeze(-2)) @ (U.mT @ G)
    return 1.5 * R - 0.5 * (R @ R.mT) @ R, True


def polar_factor(G: Tensor, method: Method = "auto") -> Tensor:
    """Nearest (semi-)orthogonal matrix to G in the Frobenius norm, U V^T (eqs. 14 to 17).

    Where G is rank-deficient the nearest matrix is not unique; the answer is the partial isometry
    U V^T over the singular values above ``rank_tolerance(G)`` of the largest: the null space stays
    at zero. It is not differentiable, and its result is detached.

    Args:
        G: (..., m, n), any floating dtype; the arithmetic is float64.
        method: ``gram`` by the smaller Gram matrix, ``svd``, or ``auto``: gram, and svd where a
            matrix of the batch has a condition number above 1e6.

    Returns:
        (..., m, n) in G's dtype, orthogonal to 1e-5 or better in float32 at full rank. Zero for
        G = 0.

    Raises:
        ValueError: unknown method, or G is not a matrix.
        DecompositionError: G holds NaN or Inf, or, with ``gram``, is too ill-conditioned for it.

    Example:
        >>> polar_factor(torch.tensor([[3.0, 0.0, 0.0], [0.0, 0.5, 0.0]])).tolist()
        [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    """
    if method not in get_args(Method):
        raise ValueError(f"unknown method {method!r}: allowed are {', '.join(get_args(Method))}")
    if G.dim() < 2:
        raise ValueError(f"expected matrices (..., m, n), got shape {tuple(G.shape)}")
    if not G.isfinite().all():
        raise DecompositionError("the matrix holds NaN or Inf and has no polar factor")
    if G.numel() == 0:
        return G.detach().clone()
    tall = G.shape[-2] > G.shape[-1]
    A = G.detach().double()
    A = A.mT if tall else A
    largest = A.abs().amax(
        (-2, -1), keepdim=True
    )  # (..., 1, 1): squares neither over- nor underflow
    A = A / torch.where(largest > 0, largest, 1)
    R, accurate = (A, False) if method == "svd" else _from_gram(A)
    if not accurate:
        if method == "gram":
            raise DecompositionError(
                f"method 'gram' takes condition numbers up to {GRAM_LIMIT:.0e}; use 'svd' or 'auto'"
            )
        R = _from_svd(A, rank_tolerance(G))
    return (R.mT if tall else R).to(G.dtype)
