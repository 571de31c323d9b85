"""Skew orthogonal convolution: the exponential of a skew-symmetric convolution (eq. 13).

Note [Averaged vectors]
    An exponential moving average of weights and buffers also averages the stored singular vectors,
    which makes them shorter than 1. The bound is then too low and the filter too large for its
    series (singular values down to 0.99 after 300 steps with NOG at decay 0.999). So evaluation
    recomputes vectors whose length is not 1 by power iterations, and does not store them. Vectors
    of a trained network that is not averaged are used unchanged, so both modes scale equally.

Note [Half precision]
    In half precision on a CPU torch's matrix_exp is wrong (NaN), and a series of rounded products
    is not orthogonal. So the kernel is computed in float32 and then rounded.

Note [Recomputation]
    A training forward advances the power iteration. A forward that torch.utils.checkpoint repeats
    in the backward must not: with another kernel the gradient would be wrong by percents. Compiled
    code must ask at run time, so there the power iteration is an operator of its own. If a layer
    runs several times before the backward, the first calls are repeated with the vectors of the
    last one, and the gradient is off by up to a few percent. Run such a layer outside of the
    checkpoint, or call backward after each pass.
"""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.module_tracker import ModuleTracker

from orthocond.errors import UserError, require_floating, require_whole, unknown
from orthocond.host import full_precision
from orthocond.layers.inference.symbolic import one_node
from orthocond.layers.skew_kernel import (
    compose,
    exponential,
    power_iterations,
    skew,
    unfoldings,
)

Mode = Literal["composed", "series"]
Size = int | tuple[int, int] | list[int]  # as in nn.Conv2d

TRAIN_TERMS, EVAL_TERMS = 5, 10
SCALE = 0.7  # filter norm relative to its bound, small enough that few terms of the series suffice
POWER_STEPS = 20  # power iterations at initialization; then one a training step, as spectral_norm


def _side(name: str, size: Size) -> int:
    """Return the single number that ``size`` gives for height and width."""
    if not isinstance(size, tuple | list):
        return size
    if len(set(size)) != 1:
        raise UserError(
            f"the skew orthogonal convolution needs one {name} for height and width, got {size}"
        )
    return size[0]


def check_kernel(
    kernel_size: Size, stride: Size, padding: Size | None, dilation: Size, groups: int
) -> int:
    """Return the side length of the kernel.

    Raises:
        UserError: a convolution with these arguments would not preserve norms.
    """
    side = _side("kernel_size", kernel_size)
    require_whole(side, "kernel_size")
    if side % 2 == 0:
        raise UserError(f"the skew orthogonal convolution needs an odd kernel, got {side}")
    for name, value, allowed in (
        ("stride", stride, 1),
        ("padding", side // 2 if padding is None else padding, side // 2),
        ("dilation", dilation, 1),
        ("groups", groups, 1),
    ):
        if _side(name, value) != allowed:
            raise UserError(
                f"the skew orthogonal convolution has {name} {allowed}, got {value}: "
                "anything else would not keep norms"
            )
    return side


def _wide(t: Tensor) -> Tensor:
    """Return t converted to at least float32 (Note [Half precision])."""
    return t.to(torch.promote_types(t.dtype, torch.float32))


def _advance(A: Tensor, buffer: Tensor, steps: int) -> Tensor:
    """Update the vector in buffer by power iterations with A, and return it in A's dtype.

    In a backward pass it is not updated (Note [Recomputation]).
    """
    steps = 0 if ModuleTracker().is_bw else steps
    u = power_iterations(A, buffer.to(A.dtype, copy=True), steps)
    buffer.copy_(u)
    return u


_advance_operator = torch.library.custom_op("orthocond::advance", _advance, mutates_args={"buffer"})


@_advance_operator.register_fake
def _(A: Tensor, buffer: Tensor, steps: int) -> Tensor:
    return A.new_empty(buffer.shape)


class SkewOrthogonalConv2d(nn.Module):
    """Convolution that is orthogonal except near the border and up to the truncation of its series.

    y = exp(M - M^T) x is the exponential of eq. 13. For k x k kernels the powers of M - M^T are
    repeated convolutions, and the filter is scaled by 0.7 over a bound on its spectral norm, so
    that few terms suffice. For 1 x 1 kernels it is the exact matrix exponential. The filter has
    max(in, out) channels on both sides: inputs are zero-padded, and surplus outputs are dropped.

    Not guaranteed: norms are preserved only in the interior of the image, and with more inputs than
    outputs the map is a projection. Under torch.utils.checkpoint the gradient is correct if the
    layer runs once before each backward pass (Note [Recomputation]).

    Args:
        in_channels, out_channels: as in ``nn.Conv2d``.
        kernel_size: side k of the filter M: an odd number, or a pair of equal odd numbers. The
            effective kernel is larger: for k = 3, 11 x 11 in training and 21 x 21 in evaluation.
        bias: as in ``nn.Conv2d``.
        stride, padding, dilation, groups: only 1, k // 2, 1 and 1 are allowed.
        mode: ``composed`` for one convolution with the effective kernel; ``series`` for one
            convolution per term of the series.
        device, dtype: of the parameters, as in ``nn.Conv2d``, to build them where they are used.

    Shape:
        (B, in, H, W) to (B, out, H, W).

    Raises:
        UserError: the kernel is even or not square, or stride, padding, dilation or groups has
            another value; the mode is unknown; the input is not of a real floating dtype.

    Example:
        >>> layer = oc.SkewOrthogonalConv2d(3, 8, 3, padding=1, bias=False)
        >>> layer(torch.zeros(2, 3, 16, 16)).shape, tuple(layer.kernel().shape)
        (torch.Size([2, 8, 16, 16]), (8, 3, 11, 11))
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size | None = None,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        mode: Mode = "composed",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if mode not in get_args(Mode):
            raise unknown("mode", mode, get_args(Mode))
        require_whole(in_channels, "in_channels")
        require_whole(out_channels, "out_channels")
        kernel_size = check_kernel(kernel_size, stride, padding, dilation, groups)
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel_size, self.mode, self.groups = kernel_size, mode, groups
        c = max(in_channels, out_channels)
        where: dict[str, Any] = {"device": device, "dtype": dtype}
        self.filter = nn.Parameter(torch.empty(c, c, kernel_size, kernel_size, **where))
        self.bias = nn.Parameter(torch.empty(out_channels, **where)) if bias else None
        for i, n in enumerate((c * kernel_size, c * kernel_size, c, c * kernel_size**2)):
            self.register_buffer(f"left_{i}", torch.empty(n, **where))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw filter and bias as ``nn.Conv2d`` does, and compute the filter's singular vectors."""
        nn.init.kaiming_uniform_(self.filter, a=math.sqrt(5))
        if self.bias is not None:
            bound = 1 / math.sqrt(self.in_channels * self.kernel_size**2)
            nn.init.uniform_(self.bias, -bound, bound)
        for i in range(4):
            nn.init.normal_(self.get_buffer(f"left_{i}"))
        for i, A in enumerate(unfoldings(skew(_wide(self.filter.detach())))):
            self._iterate(i, A, POWER_STEPS)

    @torch.no_grad()
    def _iterate(self, i: int, A: Tensor, steps: int) -> Tensor:
        """Update the stored left singular vector i by power iterations, and return it."""
        advance = _advance_operator if torch.compiler.is_compiling() else _advance
        return advance(A, self.get_buffer(f"left_{i}"), steps)

    @torch.no_grad()
    def _found(self, i: int, A: Tensor) -> Tensor:
        """Return the left singular vector i without storing it (Note [Averaged vectors])."""
        buffer = self.get_buffer(f"left_{i}")
        u = buffer.to(A.dtype, copy=True)
        deviation = (torch.linalg.vector_norm(u) - 1).abs()
        # Allow for float32 rounding in any dtype. A length of 1 - d changes the bound by about d.
        rounding = max(torch.finfo(t).eps for t in (buffer.dtype, torch.float32)) ** 0.5
        unit = F.normalize(u, dim=0)
        left = u if buffer.dtype == A.dtype else unit  # a half-precision buffer rounded its length
        return torch.where(deviation < rounding, left, power_iterations(A, unit, POWER_STEPS))

    def _scaled(self) -> Tensor:
        """Return the skew filter times 0.7 / bound; bound = k times the least unfolding norm.

        A filter with M = M^T has the skew filter 0, whose exponential is the identity.
        """
        L = skew(_wide(self.filter))
        # For the left singular vector u, |A^T u| is the spectral norm, and it is differentiable.
        norms = []
        for i, A in enumerate(unfoldings(L)):
            fixed = A.detach()
            u = self._iterate(i, fixed, 1) if self.training else self._found(i, fixed)
            norms.append((A.mT @ u).norm())
        norm = torch.stack(norms).min()
        return L * (SCALE / (self.kernel_size * norm.masked_fill(norm == 0, 1)))

    @property
    def _terms(self) -> int:
        return TRAIN_TERMS if self.training else EVAL_TERMS

    @property
    def effective_kernel_size(self) -> tuple[int, int]:
        """Height and width of ``kernel()``, which differ between training and evaluation."""
        size = self._terms * (self.kernel_size - 1) + 1
        return size, size

    def kernel(self) -> Tensor:
        """Return the effective kernel (out, in, K, K) in the filter's dtype.

        K is 1 for k = 1, else terms (k - 1) + 1. The arithmetic is in float32 or wider.
        """
        if self.kernel_size == 1:
            M = _wide(self.filter).flatten(1)  # (C, C)
            E = torch.linalg.matrix_exp(M - M.mT)
            kernel = E[: self.out_channels, : self.in_channels, None, None]
        else:
            kernel = compose(self._scaled(), self.in_channels, self._terms)[: self.out_channels]
        return kernel.to(self.filter.dtype)

    @one_node
    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, in, H, W) to (B, out, H, W)."""
        require_floating(x, "an input")
        with full_precision(x):
            if self.mode == "series" and self.kernel_size > 1:
                return self._series(_wide(x.to(self.filter.dtype))).to(self.filter.dtype)
            kernel = self.kernel()
        return F.conv2d(x, kernel, self.bias, padding=kernel.shape[-1] // 2)

    def _series(self, x: Tensor) -> Tensor:
        padding = self.filter.shape[0] - self.in_channels
        y = exponential(F.pad(x, (0, 0, 0, 0, 0, padding)), self._scaled(), self._terms)
        y = y.narrow(-3, 0, self.out_channels)  # the input may be one image (in, H, W)
        return y if self.bias is None else y + self.bias.view(-1, 1, 1)

    def to_conv2d(self) -> nn.Conv2d:
        """Return a plain convolution with the evaluation kernel.

        Raises:
            UserError: the mode is ``series``, which pads at every term: it is no one convolution.
        """
        if self.mode == "series" and self.kernel_size > 1:
            raise UserError(
                "a skew orthogonal convolution in mode 'series' is no single convolution, because "
                "it pads at every term: use mode 'composed'"
            )
        training = self.training
        with torch.no_grad():
            kernel = self.eval().kernel()
        self.train(training)
        k = kernel.shape[-1]
        conv = nn.Conv2d(  # on the meta device, so as not to draw random numbers
            *(self.in_channels, self.out_channels, k, 1, k // 2),
            bias=self.bias is not None,
            device="meta",
        )
        conv.weight = nn.Parameter(kernel.clone())
        if self.bias is not None:
            conv.bias = self.bias
        return conv.train(training)

    def extra_repr(self) -> str:
        """Return the settings, for ``repr``."""
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, "
            f"mode={self.mode!r}"
        )
