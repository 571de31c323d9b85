"""Inputs with known spectra, and the exact results for them, in float64.

Note [The reference]
    Every method gets the same float32 features. The reference is the result for these rounded
    features, not for the spectrum that they were drawn with. It is computed in float64 from the
    singular values s of the centred features. The eigenvalues of the covariance are s^2, so a
    condition number k of the covariance is only k^(1/2) for s: the reference has an error of
    about 1e-16 k^(1/2), 1e-10 for k = 1e12. tests/benchmarks checks it against mpmath.
"""

from __future__ import annotations

from typing import NamedTuple

import scipy.linalg
import torch
from torch import Tensor

SIDE = 16  # of the images that the features are arranged in
SAMPLES = 4  # covariances of an error case of pooling


class Spectrum(NamedTuple):
    """How the eigenvalues, the mean and the ridge of a case are chosen."""

    condition: float = 1e4  # the eigenvalues go from 1 down to 1 / condition at equal ratios
    kind: str = "spread"  # or: tied, exactly tied, rank-deficient, large mean
    eps: float = 0.0  # added to the diagonal of the covariance by every method


SPECIAL = {
    "tied": Spectrum(1e2, "tied"),
    "exactly tied": Spectrum(64, "exactly tied"),
    "rank-deficient": Spectrum(1e2, "rank-deficient", 1e-5),
    "mean / std = 100": Spectrum(1e2, "large mean"),
}
"""Cases with another spectrum or mean.

The eigenvalues are: one half 1 and the other half 1e-2, up to the rounding of the features; one
half 1 and the other 1/64, from orthogonal rows of the numbers 1, -1, 1/8 and -1/8, which float32
holds exactly; one half 0, with eps = 1e-5 where the root is inverted; spread, with a mean of 100
standard deviations.
"""


def eigenvalues(d: int, spectrum: Spectrum) -> Tensor:
    """Return the d eigenvalues of the covariance, from the largest to the smallest."""
    l = torch.logspace(0, 1, d, base=1 / spectrum.condition, dtype=torch.float64)
    if spectrum.kind in ("tied", "exactly tied"):
        l = torch.tensor([1.0] * (d - d // 2) + [1 / spectrum.condition] * (d // 2)).double()
    if spectrum.kind == "rank-deficient":
        l[d - d // 2 :] = 0
    return l


def features(d: int, n: int, spectrum: Spectrum, seed: int = 0) -> Tensor:
    """Return float32 features (d, n) whose covariance has the eigenvalues of the spectrum."""
    generator = torch.Generator().manual_seed(seed)
    s = eigenvalues(d, spectrum).sqrt()
    if spectrum.kind == "exactly tied":  # n is a power of 2; row 0 of the matrix is constant
        rows = torch.from_numpy(scipy.linalg.hadamard(n))[1 : d + 1]
        return (s[:, None] * rows).float()
    U = torch.linalg.qr(torch.randn(d, d, dtype=torch.float64, generator=generator)).Q
    V = torch.randn(n, d, dtype=torch.float64, generator=generator)
    V = torch.linalg.qr(V - V.mean(0)).Q  # its columns are centred
    X = n**0.5 * (U * s) @ V.mT
    if spectrum.kind == "large mean":
        X = X + 100 * X.std(1, keepdim=True)
    return X.float()


def decomposed(X: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return U (d, d), s (d,) and V^T (d, n) of the centred features over sqrt(n), in float64."""
    d, n = X.shape
    Y = X.double()
    Y = (Y - Y.mean(1, keepdim=True)) / n**0.5
    U, s, Vt = torch.linalg.svd(Y, full_matrices=n < d)
    if n < d:
        s, Vt = torch.cat([s, s.new_zeros(d - n)]), torch.cat([Vt, Vt.new_zeros(d - n, n)])
    return U, torch.where(s > 1e-10 * s[0], s, 0), Vt


def whitened(X: Tensor, G: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Return (P + eps I)^(-1/2) (X - mean) for the covariance P of X (d, n), and its gradient.

    Args:
        X: features (d, n).
        G: gradient of the loss with respect to the result (d, n).
        eps: added to the eigenvalues of P; larger than 0 if P is singular.
    """
    n = X.shape[1]
    U, s, Vt = decomposed(X)
    r = (s.square() + eps).sqrt()
    value = n**0.5 * (U * (s / r)) @ Vt
    A = U.mT @ G.double()  # (d, n)
    M = n**0.5 * (A @ Vt.mT) * s  # U^T (dl/dF) U
    D = -1 / (r[:, None] * r * (r[:, None] + r))
    dX = U @ (A / r[:, None] + 2 / n**0.5 * (D * (M + M.mT) / 2 * s) @ Vt)
    return value, dX - dX.mean(1, keepdim=True)


def pooled(X: Tensor, G: Tensor) -> tuple[Tensor, Tensor]:
    """Return P^(1/2) for the covariance P of X (d, n), and the gradient for dl/dP^(1/2) = G.

    If P is singular, the gradient is the limit of that of (P + eps I)^(1/2) for eps to 0.
    """
    U, s, Vt = decomposed(X)
    sums = s[:, None] + s
    D = torch.where(sums > 0, 1 / sums, 0)
    g = U.mT @ ((G + G.mT) / 2).double() @ U
    return (U * s) @ U.mT, 2 / X.shape[1] ** 0.5 * U @ (D * g * s) @ Vt


class Gradient(NamedTuple):
    """A matrix to orthogonalise, with its polar factor and the rows of V^T on its support."""

    value: Tensor  # (m, n), float32
    factor: Tensor  # (m, n), float64: U V^T over the support
    support: Tensor  # (r, n), float64: the right singular vectors of the support


def gradient(m: int, n: int, condition: float, rank: int | None = None) -> Gradient:
    """Return a wide matrix with singular values from 1 to 1 / condition, or fewer of them."""
    generator = torch.Generator().manual_seed(0)
    r = rank or m
    U = torch.linalg.qr(torch.randn(m, m, dtype=torch.float64, generator=generator)).Q[:, :r]
    V = torch.linalg.qr(torch.randn(n, r, dtype=torch.float64, generator=generator)).Q
    s = torch.logspace(0, 1, r, base=1 / condition, dtype=torch.float64)
    G = ((U * s) @ V.mT).float()
    if rank is None:  # Note [The reference]
        U, _, Vt = torch.linalg.svd(G.double(), full_matrices=False)
        return Gradient(G, U @ Vt, Vt)
    return Gradient(G, U @ V.mT, V.mT)
