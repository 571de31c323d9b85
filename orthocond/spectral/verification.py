"""Check of an eigendecomposition or SVD, by products with a few fixed vectors.

Note [Check by a few vectors]
    There are reports of drivers that return vectors that are not orthonormal, or that belong to
    other eigenvalues, without an error. The full residuals U^T U - I and P U - U L cost a third of
    the decomposition. Multiplied by four vectors w of length about 1,
        U^T (U w) - w   and   P (U w) - U (L w),
    they cost a few percent (benchmarks/eigh.py). Rounding makes each entry a few eps, or a few eps
    times the largest eigenvalue. ``SLACK`` (d + 8) eps is the limit.

    The vectors are the same for all matrices of a size, so the check is reproducible and leaves
    the global random numbers alone. Nothing that computes a decomposition knows them. Their entries
    are +-[1/2, 1] / sqrt(d), uniform. No entry is small, so an error in single rows or columns
    (scaled, swapped or repeated vectors, exchanged eigenvalues) is seen at half its size or more,
    with certainty. Of an error e v^T in any other direction v, |v| = 1, a vector w sees
    e |v^T w|. The density of v^T w sqrt(d) is at most sqrt(2), so this is below t e / sqrt(d) with
    a probability of at most 3 t for one vector, and of (3 t)^4 for all four: 1e-10 for an error a
    thousand times the limit. An error near the limit is no worse than rounding.

    The products are in float64, because TF32 and autocast reduce the precision of others.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

VECTORS = 4
SLACK = 4  # above the largest rounding seen, 5 eps for d from 1 to 512


@lru_cache(maxsize=64)
def vectors(d: int, device: torch.device) -> Tensor:
    """Return the vectors (d, 4) of Note [Check by a few vectors], in float64."""
    generator = torch.Generator().manual_seed(d)
    with torch.inference_mode(False):
        shape = (2, d, VECTORS)
        size, sign = torch.rand(shape, generator=generator, dtype=torch.float64)
        w = (1 + size) / 2 * torch.where(sign < 0.5, -1.0, 1.0) / d**0.5
        return w.to(device)


def _limit(d: int, dtype: torch.dtype) -> float:
    return SLACK * (d + 8) * torch.finfo(dtype).eps


def _largest(E: Tensor) -> Tensor:
    """Return the largest absolute entry (b,) of each matrix in E (b, m, n), NaN if it holds NaN."""
    return torch.linalg.vector_norm(E, torch.inf, (1, 2))


def _scale(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the largest |value| (b,), not below the normal range, where rounding is absolute."""
    return torch.linalg.vector_norm(values, torch.inf, 1).clamp_min(torch.finfo(dtype).tiny)


def is_eigh(P: Tensor, values: Tensor, U: Tensor) -> Tensor:
    """Return whether P = U diag(values) U^T with orthonormal U, for each matrix (b,).

    Args:
        P: (b, d, d), symmetric, float32 or float64. The limit is that of its precision.
        values: (b, d).
        U: (b, d, d).

    Example:
        >>> P = torch.tensor([[[2.0, 1.0], [1.0, 2.0]]])
        >>> values, U = torch.linalg.eigh(P)
        >>> is_eigh(P, values, U).tolist(), is_eigh(P, values.flip(-1), U).tolist()
        ([True], [False])
    """
    d, dtype = P.shape[-1], P.dtype
    w = vectors(d, P.device)
    P, values, U = P.double(), values.double(), U.double()
    x = U @ w  # (b, d, 4)
    apart = U.mT @ x - w
    residual = P @ x - U @ (values.unsqueeze(-1) * w)
    limit = _limit(d, dtype)
    # Strictly below, so that an infinite eigenvalue does not pass.
    return (_largest(apart) < limit) & (_largest(residual) < limit * _scale(values, dtype))


def is_svd(G: Tensor, U: Tensor, s: Tensor, Vh: Tensor) -> Tensor:
    """Return whether G = U diag(s) V^T with orthonormal U and V, for each matrix (b,).

    Args:
        G: (b, m, n), float32 or float64.
        U: (b, m, k), k = min(m, n).
        s: (b, k).
        Vh: (b, k, n).
    """
    k, largest, dtype = s.shape[-1], max(G.shape[-2:]), G.dtype
    w = vectors(k, G.device)
    G, U, s, Vh = G.double(), U.double(), s.double(), Vh.double()
    if G.shape[-2] < G.shape[-1]:  # the residual says more on the side where U or V is square
        G, U, Vh = G.mT, Vh.mT, U.mT
    x, y = Vh.mT @ w, U @ w
    apart = torch.maximum(_largest(Vh @ x - w), _largest(U.mT @ y - w))
    residual = _largest(G @ x - U @ (s.unsqueeze(-1) * w))
    limit = _limit(largest, dtype)
    return (apart < limit) & (residual < limit * _scale(s, dtype))
