"""Covariances of features, in float64 and over all processes.

Note [Float64]
    A condition number is only as precise as the covariance. A float32 Gram product has a noise
    floor at 1e-7 of the largest eigenvalue. In a float64 Gram product the floor is at 3e-15 for
    float32 features and at 2e-7 for bfloat16 features. So the features are converted to float64
    chunk by chunk, and each chunk is centred by its own mean before the product. Let chunk k have
    n_k samples, mean m_k and centred square S_k. Then, for any mean, the centred square of all is
        S = sum_k S_k + n_k (m_k - m)(m_k - m)^T,    m = sum_k n_k m_k / sum_k n_k.
"""

from __future__ import annotations

import torch
from torch import Tensor

from orthocond.distributed import reduced
from orthocond.host import double, wide_device

CHUNK = 2**18  # elements converted at a time: 2 MB in float64, which stay in the cache


def batch_covariance(x: Tensor) -> tuple[Tensor, int]:
    """Return the covariance of the channels over the whole batch (eq. 2), and the sample count.

    P = sum (x - mu)(x - mu)^T / n, where the n samples are the B N positions of all processes.
    Under torch.distributed every process must call it; a process without images passes an empty
    batch.

    Args:
        x: features (B, d, N), any floating dtype.

    Returns:
        P (d, d) in float64, and n. P is zero if there are no samples.

    Example:
        >>> P, n = batch_covariance(torch.tensor([[[1.0, 3.0], [5.0, 1.0]]]))
        >>> P.tolist(), n
        ([[1.0, -2.0], [-2.0, 4.0]], 2)
    """
    b, d, positions = x.shape
    images = max(1, CHUNK // max(1, d * positions))
    square = torch.zeros(d, d, dtype=torch.float64, device=wide_device(x.device))
    counts, means = square.new_zeros(0), square.new_zeros(0, d)
    if b * positions:
        chunks = x.split(images)
        counts = square.new_tensor([len(chunk) * positions for chunk in chunks])
        means = square.new_empty(len(chunks), d)
        for chunk, mean in zip(chunks, means, strict=True):
            X = double(chunk.transpose(0, 1).reshape(d, -1))  # (d, b N)
            torch.mean(X, 1, out=mean)
            X = X - mean[:, None]  # not in place: for float64 features X can share their memory
            square.addmm_(X, X.mT)
    n, total = reduced(counts.sum(), counts @ means)
    n_safe = n.clamp(min=1)
    apart = means - total / n_safe  # (chunks, d)
    square += (counts[:, None] * apart).mT @ apart
    (square,) = reduced(square)
    return square / n_safe, int(n)


def sample_covariances(x: Tensor) -> Tensor:
    """Return the covariance X J X^T of the channels over the positions of each sample (eq. 2).

    Args:
        x: features (B, d, N), any floating dtype.

    Returns:
        (B, d, d) in float64, for the samples of this process only.

    Example:
        >>> sample_covariances(torch.tensor([[[1.0, 3.0], [5.0, 1.0]]])).tolist()
        [[[1.0, -2.0], [-2.0, 4.0]]]
    """
    X = double(x)
    X = X - X.mean(-1, keepdim=True)
    return X @ X.mT / max(1, x.shape[-1])
