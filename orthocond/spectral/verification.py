"""Checks of an eigendecomposition or SVD, and of eigenvalues or singular values alone.

Note [Check by a few vectors]
    There are reports of drivers that return vectors that are not orthonormal, or that belong to
    other eigenvalues, without an error. The full residuals U^T U - I and P U - U L cost a third of
    the decomposition. Multiplied by three vectors w of length about 1,
        U^T (U w) - w   and   P (U w) - U (L w),
    they cost a third at d = 64, a tenth at 128 and a few percent above (benchmarks/eigh.py), the
    time of a dozen small operations. They are computed as rows, w^T U^T, which is faster than
    columns, and by two products, which are faster than one with all six rows. Rounding makes each
    entry a few eps, or a few eps times the largest eigenvalue. ``SLACK`` (d + 8) eps is the limit.

    The vectors are the same for all matrices of a size, so the check is reproducible and leaves
    the global random numbers alone. Nothing that computes a decomposition knows them. Their entries
    are +-[1/2, 1] / sqrt(d), uniform. No entry is small, so an error in single rows or columns
    (scaled, swapped or repeated vectors, exchanged eigenvalues) is seen at half its size or more,
    with certainty. Of an error e v^T in any other direction v, |v| = 1, a vector w sees
    e |v^T w|. The density of v^T w sqrt(d) is at most sqrt(2), so this is below t e / sqrt(d) with
    a probability of at most 3 t for one vector, and of (3 t)^3 for all three. An error of a
    million times the limit, 6e-8 for d = 64, is missed with probability 1e-13 at t = 1e-5 or so.
    An error near the limit is no worse than rounding.

    The products are in float64, because TF32 and autocast reduce the precision of others.

Note [Check by moments]
    Eigenvalues without vectors leave no residual. But sum l = tr P and sum l^2 = |P|_F^2, up to
    the limit above times |P|_F and |P|_F^2. For the singular values of A the same holds with
    sum s^2 = |A|_F^2 and sum s^4 = |A A^T|_F^2. A single wrong value changes the first sum by its
    own error, as do values that are all too large or too small. Unnoticed are errors of several
    values that leave both sums as they are. The order of the values is checked, too.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

VECTORS = 3
SLACK = 4  # above the largest rounding seen, 5 eps for d from 1 to 512


@lru_cache(maxsize=64)
def vectors(d: int, device: torch.device) -> Tensor:
    """Return the rows (1, 3, d) of Note [Check by a few vectors], in float64.

    They are drawn on the CPU, whatever torch's default device is.
    """
    generator = torch.Generator("cpu").manual_seed(d)
    with torch.inference_mode(False):
        shape = (2, 1, VECTORS, d)
        drawn = torch.rand(shape, generator=generator, dtype=torch.float64, device="cpu")
        size, sign = drawn
        w = (1 + size) / 2 * torch.where(sign < 0.5, -1.0, 1.0) / d**0.5
        return w.to(device)


def _limit(d: int, dtype: torch.dtype) -> float:
    return SLACK * (d + 8) * torch.finfo(dtype).eps


def _scale(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the largest |value| (b,) of values (b, d), at least dtype's least normal number.

    Below that, rounding is absolute.
    """
    return torch.linalg.vector_norm(values, torch.inf, 1).clamp_min(torch.finfo(dtype).tiny)


def _largest(residuals: Tensor) -> Tensor:
    """Return the largest |entry| (b,) of residuals (b, k, n). For NaN it is not below any limit."""
    return torch.linalg.vector_norm(residuals, torch.inf, (1, 2))


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
    b, d, dtype = len(P), P.shape[-1], P.dtype
    if dtype != torch.float64:
        P, values, U = P.double(), values.double(), U.double()
    w = vectors(d, P.device)
    rows = w.expand(b, -1, -1)  # (b, 3, d)
    x = torch.bmm(rows, U.mT)  # (U w)^T
    y = torch.bmm(w * values.unsqueeze(1), U.mT)  # (U L w)^T
    apart = _largest(torch.baddbmm(rows, x, U, beta=-1))
    residual = _largest(torch.baddbmm(y, x, P, beta=-1))
    return torch.maximum(apart, residual / _scale(values, dtype)) < _limit(d, dtype)


def is_svd(G: Tensor, U: Tensor, s: Tensor, Vh: Tensor) -> Tensor:
    """Return whether G = U diag(s) V^T with orthonormal U and V, for each matrix (b,).

    Args:
        G: (b, m, n), float32 or float64.
        U: (b, m, k), k = min(m, n).
        s: (b, k).
        Vh: (b, k, n).
    """
    largest, dtype = max(G.shape[-2:]), G.dtype
    G, U, s, Vh = G.double(), U.double(), s.double(), Vh.double()
    if G.shape[-2] < G.shape[-1]:  # the residual says more on the side where U or V is square
        G, U, Vh = G.mT, Vh.mT, U.mT
    w, limit = vectors(s.shape[-1], G.device), _limit(largest, dtype)
    x, y = w @ Vh, w @ U.mT  # (b, 3, n), (b, 3, m)
    residual = x @ G.mT - (w * s.unsqueeze(1)) @ U.mT
    apart = torch.cat([x @ Vh.mT - w, y @ U - w], 1)
    return (_largest(apart) < limit) & (_largest(residual) < limit * _scale(s, dtype))


def _scaled(A: Tensor) -> tuple[Tensor, Tensor]:
    """Return A (b, m, n) in float64 with largest entry 1, and the scale (b, 1, 1)."""
    largest = torch.linalg.vector_norm(A, torch.inf, (1, 2), keepdim=True)
    scale = largest.clamp_min(torch.finfo(A.dtype).tiny).double()
    return A.double() / scale, scale


def _have_moments(l: Tensor, first: Tensor, second: Tensor, limit: float) -> Tensor:
    """Return whether sum l and sum l^2 of values (b, k) are these moments (b,); NaN is not."""
    norm = second.sqrt().clamp_min(1)  # below 1 only if rounding is absolute, or for zeros
    apart = (l.sum(1) - first).abs() / norm, (l.square().sum(1) - second).abs() / norm.square()
    return (apart[0] <= limit) & (apart[1] <= limit)


def are_eigenvalues(P: Tensor, values: Tensor) -> Tensor:
    """Return whether values can be the eigenvalues of P, for each matrix (b,).

    Args:
        P: (b, d, d), float32 or float64; its lower triangle is read. The limit is that of its
            precision.
        values: (b, d), ascending.

    Example:
        >>> P = torch.tensor([[[2.0, 1.0], [1.0, 2.0]]])
        >>> are_eigenvalues(P, torch.tensor([[1.0, 3.0]])).tolist()
        [True]
    """
    A, scale = _scaled(P.tril())
    l = values.double() / scale.squeeze(-1)
    diagonal = A.diagonal(dim1=1, dim2=2)
    square = 2 * A.square().sum((1, 2)) - diagonal.square().sum(1)
    limit = _limit(P.shape[-1], P.dtype)
    return _have_moments(l, diagonal.sum(1), square, limit) & (l.diff() >= 0).all(1)


def are_singular_values(A: Tensor, values: Tensor) -> Tensor:
    """Return whether values can be the singular values of A, for each matrix (b,).

    Args:
        A: (b, m, n), float32 or float64. The limit is that of its precision.
        values: (b, k), descending, k = min(m, n).
    """
    B, scale = _scaled(A)
    s = values.double() / scale.squeeze(-1)
    gram = B @ B.mT if B.shape[1] <= B.shape[2] else B.mT @ B
    limit = _limit(max(A.shape[1:]), A.dtype)
    moments = gram.diagonal(dim1=1, dim2=2).sum(1), gram.square().sum((1, 2))
    descending = (s.diff() <= 0).all(1) & (s >= 0).all(1)
    return _have_moments(s.square(), *moments, limit) & descending
