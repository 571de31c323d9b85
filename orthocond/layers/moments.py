"""Moments of feature maps: precise for any mean, in one pass, over all processes.

Note [Shifted moments]
    In float32 the difference X X^T / n - mu mu^T loses digits by cancellation: at mean/std = 100
    its error is 2e-2. A centred copy of the whole input costs more than the products. So the input
    is centred in chunks, in one buffer that stays in the cache. The shift c need not be the mean:
    with r = mu - c,
        P = sum (x - c)(x - c)^T / n - r r^T.
    c is the mean of the first chunk. If the chunk is a fraction p of the sample, its mean lies
    within sqrt((1 - p) / p) standard deviations of the mean of the whole sample, in every
    direction. So subtracting r r^T costs at most a factor 1/p of precision, for any mean. Other
    products with x are computed from x - c in the same way, and corrected for the vector r in
    float64.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from orthocond.distributed import reduced
from orthocond.host import double, double_sum, wide_device

CHUNK = 2**20  # elements centred at a time: 4 MB in float32, which fit into the outer caches


def _slices(x: Tensor) -> list[slice]:
    """Return the slices of the batch to process one by one: chunks on a CPU, else a single slice.

    Only the caches of a CPU make chunks faster.
    """
    images = max(1, CHUNK // max(1, x[:1].numel())) if x.device.type == "cpu" else max(1, len(x))
    return [slice(start, start + images) for start in range(0, len(x), images)]


def shift_of(x: Tensor) -> Tensor:
    """Return the mean (C,) of the first chunk of x (B, C, H, W), zero if x is empty."""
    slices = _slices(x)
    return x[slices[0]].mean((0, 2, 3)) if x.numel() else x.new_zeros(x.shape[1])


def centred(x: Tensor, shift: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yield chunks of x (B, C, H, W) minus shift (C,), each with its slice of the batch.

    All chunks share one buffer: each chunk overwrites the one before. A compiler manages memory
    itself, and not every version of torch compiles ``out=``.
    """
    slices = _slices(x)
    buffer = torch.empty_like(x[slices[0]]) if slices else x
    for s in slices:
        part = x[s]
        out = None if torch.compiler.is_compiling() else buffer[: len(part)]
        yield s, torch.sub(part, shift[:, None, None], out=out)


def by_group(groups: int, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Return an iterator over the channel groups of (b, C, H, W) tensors.

    It yields one tuple per group, with a view (b, C / groups, H W) of each tensor.
    """
    return zip(*(t.flatten(2).tensor_split(groups, dim=1) for t in tensors), strict=True)


class Moments(NamedTuple):
    """Sums over samples, in float64. The sums of two sets of samples can be added."""

    n: Tensor  # ()
    total: Tensor  # (C,)
    square: Tensor  # (groups, d, d), sum of x x^T for each group of d = C / groups channels

    def plus(self, other: Moments) -> Moments:
        """Return the moments of both sets of samples together."""
        return Moments(*(a + b for a, b in zip(self, other, strict=True)))

    def reduced(self) -> Moments:
        """Return the moments of the samples of all processes."""
        return Moments(*reduced(*self))

    def mean(self) -> Tensor:
        """Return the mean (C,)."""
        return self.total / self.n

    def covariance(self) -> Tensor:
        """Return the covariance (groups, d, d), divided by n and not by n - 1 (eq. 2)."""
        mu = self.mean().view(len(self.square), -1, 1)  # (groups, d, 1)
        return self.square / self.n - mu @ mu.mT


def no_moments(channels: int, groups: int, device: torch.device) -> Moments:
    """Return the moments of an empty set of samples: all sums are zero."""
    d, where = channels // groups, wide_device(device)
    shapes = ((), (channels,), (groups, d, d))
    return Moments(*(torch.zeros(shape, dtype=torch.float64, device=where) for shape in shapes))


def moments(x: Tensor, groups: int = 1) -> Moments:
    """Return the moments of the channels of x (B, C, H, W). The samples are the pixels.

    The products round relative to the standard deviation of x, not to its mean: in float32 the
    error is about 1e-8 of the largest eigenvalue. The sums about zero are float64, so
    ``Moments.covariance`` also loses (mean / std)^2 times 2e-16. For float64 inputs this is the
    larger error: 3e-8 at mean / std = 1e4, and 4e-4 at 1e6.
    """
    # Few samples average out less rounding, and float64 is cheap here. The products of a single
    # image, or of a batch (B, C), are not summed over images in float64.
    if x.numel() <= CHUNK or len(x) == 1:
        x = double(x)
    n, total, square = no_moments(x.shape[1], groups, x.device)
    n += x.numel() // x.shape[1]
    shift = shift_of(x)
    for _, chunk in centred(x, shift):
        total += double(chunk.sum((0, 2, 3)))
        for j, (X,) in enumerate(by_group(groups, chunk)):
            square[j] += double_sum(torch.bmm(X, X.mT), 0)
    # Convert to moments about zero, which can be added:
    # sum x x^T = sum (x - c)(x - c)^T + t c^T + c t^T + n c c^T with t = sum (x - c).
    c, t = double(shift).view(groups, -1, 1), total.view(groups, -1, 1)
    square += t @ c.mT + c @ t.mT + n * (c @ c.mT)
    return Moments(n, total + n * c.flatten(), square)
