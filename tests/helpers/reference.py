"""Plain float64 definitions, for tests, benchmarks and the book to compare with.

Written as in the textbook, from numpy, scipy and autograd, and sharing nothing with the library.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import scipy.linalg
import torch
from torch import Tensor


def spectrum(values: Sequence[float] | Tensor, seed: int = 0) -> Tensor:
    """A symmetric float64 matrix with these eigenvalues and random eigenvectors."""
    values = torch.as_tensor(values, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    d = len(values)
    Q = torch.linalg.qr(torch.randn(d, d, dtype=torch.float64, generator=generator)).Q
    return (Q * values) @ Q.mT


def by_condition(d: int, kappa: float, scale: float = 1.0, seed: int = 0) -> Tensor:
    """A positive definite float64 matrix of this condition number and largest eigenvalue."""
    return scale * spectrum(torch.logspace(0, -float(np.log10(kappa)), d), seed)


def covariance(X: Tensor) -> Tensor:
    """X J X^T of X (..., d, N), J = (I - 11^T / N) / N (eq. 2)."""
    N = X.shape[-1]
    J = (torch.eye(N, dtype=torch.float64) - 1 / N) / N
    return X.double() @ J @ X.double().mT


def derivative(f: Callable[[Tensor], Tensor], x: Tensor, direction: Tensor, h: float) -> Tensor:
    """Central difference of f at x along a direction."""
    return (f(x + h * direction) - f(x - h * direction)) / (2 * h)


def whiten(x: Tensor, eps: float, g: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
    """(P + eps I)^(-1/2) (x - mu) over images and pixels, and its gradient for dl/dy = g.

    With R = (P + eps I)^(1/2) and F = R^-1, dF = -F dR F and R dR + dR R = dP: the adjoint solves
    a Sylvester equation, in which no eigenvalue appears.

    Args:
        x: (B, C, H, W), any dtype; the arithmetic is float64.
        g: of x's shape.
    """
    B, C, H, W = x.shape

    def rows(t: Tensor) -> np.ndarray:
        return t.detach().double().transpose(0, 1).reshape(C, -1).numpy()

    def images(a: np.ndarray) -> Tensor:
        return torch.from_numpy(a).view(C, B, H, W).transpose(0, 1)

    X = rows(x)
    n = X.shape[1]
    X = X - X.mean(1, keepdims=True)
    R = scipy.linalg.sqrtm(X @ X.T / n + eps * np.eye(C)).real
    F = np.linalg.inv(R)
    if g is None:
        return images(F @ X), None
    G = rows(g)
    dF = G @ X.T
    dR = -F @ (dF + dF.T) / 2 @ F
    dP = scipy.linalg.solve_sylvester(R, R, dR)
    dX = F @ G + 2 / n * dP @ X
    return images(F @ X), images(dX - dX.mean(1, keepdims=True))


def covariance_sqrt(X: Tensor, eps: float, g: Tensor) -> tuple[Tensor, Tensor]:
    """Q = (X J X^T + eps I)^(1/2) of X (d, N), and its gradient for dl/dQ = g.

    Q dQ + dQ Q = dP: the adjoint solves a Sylvester equation, in which no eigenvalue appears.
    """
    Y = X.detach().double().numpy()
    Y = Y - Y.mean(1, keepdims=True)
    d, n = Y.shape
    Q = scipy.linalg.sqrtm(Y @ Y.T / n + eps * np.eye(d)).real
    symmetric = ((g + g.mT) / 2).double().numpy()
    dP = scipy.linalg.solve_sylvester(Q, Q, symmetric)
    return torch.from_numpy(Q), torch.from_numpy(2 / n * dP @ Y)


def dense_convolution(L: Tensor, height: int, width: int) -> np.ndarray:
    """The matrix (C H W, C H W) of a convolution with zero padding, entry by entry."""
    c, k = L.shape[0], L.shape[-1]
    D = np.zeros((c, height, width, c, height, width))
    for i in range(height):
        for j in range(width):
            for a in range(k):
                for b in range(k):
                    y, x = i + a - k // 2, j + b - k // 2
                    if 0 <= y < height and 0 <= x < width:
                        D[:, i, j, :, y, x] = L[:, :, a, b].numpy()
    return D.reshape(c * height * width, -1)
