"""Moments of feature maps: exact at any mean, in one pass, over all processes.

Note [Shifted moments]
    X X^T - mu mu^T cancels in float32 (at mean/std = 100 it loses 2e-2), and a centred copy of the
    whole input costs more than the products. So chunks are centred into one buffer that stays in
    the cache, by a shift c that need not be the mean: with r = mu - c,
        P = sum (x - c)(x - c)^T / n - r r^T.
    c is the mean of the first chunk. The mean of a fraction p of a sample lies within
    sqrt((1 - p) / p) standard deviations of the whole one's, in every direction, so the
    subtraction costs a factor 1/p of precision at worst, whatever the mean. A product of x with
    anything else is taken the same way, and r, a vector, is put right in float64.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

CHUNK = 2**20  # elements centred at a time: 4 MB in float32, which the outer caches hold


def _slices(x: Tensor) -> list[slice]:
    """Slices of the batch; one that holds all where there is no cache to stay in."""
    images = max(1, CHUNK // max(1, x[:1].numel())) if x.device.type == "cpu" else max(1, len(x))
    return [slice(start, start + images) for start in range(0, len(x), images)]


def shift_of(x: Tensor) -> Tensor:
    """The mean (C,) of the first chunk of x (B, C, H, W), zero for an empty batch."""
    slices = _slices(x)
    return x[slices[0]].mean((0, 2, 3)) if slices else x.new_zeros(x.shape[1])


def centred(x: Tensor, shift: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Chunks of x (B, C, H, W) minus shift (C,), with their place in the batch.

    Each chunk is overwritten by the next.
    """
    slices = _slices(x)
    buffer = torch.empty_like(x[slices[0]]) if slices else x
    for s in slices:
        part = x[s]
        yield s, torch.sub(part, shift[:, None, None], out=buffer[: len(part)])


def by_group(groups: int, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The channel groups of (b, C, H, W) tensors, each a view (b, C / groups, H W)."""
    return zip(*(t.flatten(2).tensor_split(groups, dim=1) for t in tensors), strict=True)


def is_distributed() -> bool:
    """Whether there are other processes that hold parts of the batch."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def reduced(*tensors: Tensor) -> list[Tensor]:
    """Sums of the tensors over all processes, in one message."""
    flat = torch.cat([t.flatten() for t in tensors])
    dist.all_reduce(flat)
    parts = flat.split([t.numel() for t in tensors])
    return [part.view_as(t) for part, t in zip(parts, tensors, strict=True)]


class Moments(NamedTuple):
    """Sums over samples, in float64. Those of two sets of samples add up."""

    n: Tensor  # ()
    total: Tensor  # (C,)
    square: Tensor  # (groups, d, d), of x x^T per group of d = C / groups channels

    def plus(self, other: Moments) -> Moments:
        """Moments of both sets of samples."""
        return Moments(*(a + b for a, b in zip(self, other, strict=True)))

    def reduced(self) -> Moments:
        """Moments of the samples of all processes."""
        return Moments(*reduced(*self))

    def mean(self) -> Tensor:
        """(C,)."""
        return self.total / self.n

    def covariance(self) -> Tensor:
        """(groups, d, d), divided by the count (eq. 2)."""
        mu = self.mean().view(len(self.square), -1, 1)  # (groups, d, 1)
        return self.square / self.n - mu @ mu.mT


def no_moments(channels: int, groups: int, device: torch.device) -> Moments:
    """Moments of no samples."""
    d = channels // groups
    shapes = ((), (channels,), (groups, d, d))
    return Moments(*(torch.zeros(shape, dtype=torch.float64, device=device) for shape in shapes))


def moments(x: Tensor, groups: int = 1) -> Moments:
    """Moments of the channels of x (B, C, H, W), whose samples are the pixels of the images.

    Exact to the rounding of x's dtype relative to its standard deviation, not to its mean; about
    1e-8 of the largest eigenvalue in float32.
    """
    if x.numel() <= CHUNK:  # rounding averages out over few samples less, and float64 is cheap
        x = x.double()
    n, total, square = no_moments(x.shape[1], groups, x.device)
    n += x.numel() // x.shape[1]
    shift = shift_of(x)
    for _, chunk in centred(x, shift):
        total += chunk.sum((0, 2, 3))
        for j, (X,) in enumerate(by_group(groups, chunk)):
            square[j] += torch.bmm(X, X.mT).sum(0, dtype=torch.float64)
    # Back to moments about zero, which add up:
    # sum x x^T = sum (x - c)(x - c)^T + t c^T + c t^T + n c c^T with t = sum (x - c).
    c, t = shift.double().view(groups, -1, 1), total.view(groups, -1, 1)
    square += t @ c.mT + c @ t.mT + n * (c @ c.mT)
    return Moments(n, total + n * c.flatten(), square)
