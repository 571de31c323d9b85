"""Kernel of the skew orthogonal convolution: skew filter, bound on its norm, exponential (eq. 13).

Note [Composed kernel]
    The truncated series y = x + L x + L^2 x / 2! + ... is linear and shift-invariant. So away from
    the border it is one convolution, whose kernel is the response of the series to a single pixel.
    For a 3x3 filter the 5 terms of training give 11x11 and the 10 terms of evaluation 21x21.
    Composing it from one pixel per input channel is cheap, and applying it is one convolution with
    the true number of input channels. Only near the border the results differ: the series pads
    with zeros at every term, and the composed kernel pads once.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def skew(M: Tensor) -> Tensor:
    """Return M - M^T, where M^T is M with channels swapped and the kernel rotated by 180 degrees.

    Args:
        M: filter (C, C, k, k).

    Returns:
        (C, C, k, k), the filter of a convolution that is skew-symmetric away from the border.
    """
    return M - M.transpose(0, 1).flip(2, 3)


def unfoldings(L: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the four unfoldings of a filter (C, C, k, k) to a matrix.

    For each of them k times its spectral norm is a bound on the norm of the convolution.
    """
    c, k = L.shape[0], L.shape[-1]
    return (
        L.permute(0, 2, 1, 3).reshape(c * k, c * k),
        L.permute(0, 3, 1, 2).reshape(c * k, c * k),
        L.reshape(c, c * k * k),
        L.permute(0, 2, 3, 1).reshape(c * k * k, c),
    )


def exponential(x: Tensor, L: Tensor, terms: int) -> Tensor:
    """Return sum_(j <= terms) L^j x / j! for images x (B, C, H, W) and a filter L (C, C, k, k)."""
    y = term = x
    for j in range(1, terms + 1):
        term = F.conv2d(term, L, padding=L.shape[-1] // 2) / j
        y = y + term
    return y


def compose(L: Tensor, in_channels: int, terms: int) -> Tensor:
    """Return the kernel of the exponential on the first input channels (Note [Composed kernel]).

    Returns:
        (C, in_channels, K, K) with K = terms (k - 1) + 1.
    """
    c, k = L.shape[0], L.shape[-1]
    reach = terms * (k // 2)
    pixel = L.new_zeros(in_channels, c, 2 * reach + 1, 2 * reach + 1)
    channel = torch.arange(in_channels, device=L.device)
    pixel[channel, channel, reach, reach] = 1
    response = exponential(pixel, L, terms)  # (in, C, K, K)
    return response.transpose(0, 1).flip(2, 3)


def power_iterations(A: Tensor, u: Tensor, steps: int) -> Tensor:
    """Return u after power iterations towards the first left singular vector of A.

    For A = 0 it is the given u, since a vector of zeros could never grow again.
    """
    for _ in range(steps):
        v = A @ (A.mT @ u)
        length = v.norm(dim=0, keepdim=True)
        u = torch.where(length == 0, u, v / length)
    return u
