"""Layers that keep a weight orthogonal while it is trained.

The distance from orthogonal of a square linear weight is the largest |s - 1| over its singular
values s. That of a convolution is the same over the singular values of its matrix for each
frequency of a 16 x 16 image, which are those of the convolution with circular padding.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.utils import parametrizations

import orthocond as oc
from orthocond.measure.timer import now

from .method import package
from .problems import SIDE

CHANNELS, IMAGES = 32, 4  # of the convolutions
RATE, MOMENTUM, DECAY = 0.1, 0.9, 5e-4


@dataclass(frozen=True)
class Layer:
    """A way to make a layer orthogonal; ``make`` gets the size of a plain layer."""

    name: str
    source: str
    make: Callable[[int], nn.Module]


def _treated(layer: nn.Module, treatment: str) -> nn.Module:
    model = nn.Sequential(layer)
    oc.treat(model, "0", treatment)
    return model[0]


def _plain(d: int) -> nn.Module:
    return nn.Linear(d, d, bias=False)


def _plain_conv(channels: int) -> nn.Module:
    return nn.Conv2d(channels, channels, 3, padding=1, bias=False)


def _torch(d: int, orthogonal_map: str) -> nn.Module:
    return parametrizations.orthogonal(nn.Linear(d, d, bias=False), orthogonal_map=orthogonal_map)


def _geotorch(d: int, triv: str) -> nn.Module:
    layer = nn.Linear(d, d, bias=False)
    package("geotorch").orthogonal(layer, "weight", triv=triv)
    return layer


def _orthogonium(d: int, parameters: str) -> nn.Module:
    orthogonium = package("orthogonium.layers.linear.ortho_linear")
    chosen = getattr(package("orthogonium.reparametrizers"), parameters)
    layer: nn.Module = orthogonium.OrthoLinear(d, d, bias=False, ortho_params=chosen)
    return layer


def _orthogonium_conv(channels: int, parameters: str) -> nn.Module:
    chosen = getattr(package("orthogonium.reparametrizers"), parameters)
    layer: nn.Module = package("orthogonium.layers.conv.AOC.ortho_conv").AdaptiveOrthoConv2d(
        channels, channels, 3, bias=False, ortho_params=chosen
    )
    return layer


LINEAR = [
    Layer("orthocond, ow-stiefel", "orthocond", lambda d: _treated(_plain(d), "ow-stiefel")),
    Layer("torch, matrix_exp", "torch", lambda d: _torch(d, "matrix_exp")),
    Layer("torch, cayley", "torch", lambda d: _torch(d, "cayley")),
    Layer("torch, householder", "torch", lambda d: _torch(d, "householder")),
    Layer("geotorch, expm", "geotorch", lambda d: _geotorch(d, "expm")),
    Layer("geotorch, cayley", "geotorch", lambda d: _geotorch(d, "cayley")),
    Layer("orthogonium, Bjorck", "orthogonium", lambda d: _orthogonium(d, "DEFAULT_ORTHO_PARAMS")),
    Layer("orthogonium, QR", "orthogonium", lambda d: _orthogonium(d, "QR_ORTHO_PARAMS")),
]
CONVOLUTIONS = [
    Layer("orthocond, ow-conv", "orthocond", lambda c: _treated(_plain_conv(c), "ow-conv")),
    Layer("orthocond, ow", "orthocond", lambda c: _treated(_plain_conv(c), "ow")),
    Layer(
        "orthogonium, Bjorck",
        "orthogonium",
        lambda c: _orthogonium_conv(c, "DEFAULT_ORTHO_PARAMS"),
    ),
    Layer("orthogonium, QR", "orthogonium", lambda c: _orthogonium_conv(c, "QR_ORTHO_PARAMS")),
]


def distance(layer: nn.Module) -> float:
    """Return the largest |s - 1| over the singular values of the layer, in training."""
    with torch.no_grad():
        W = layer.kernel() if isinstance(layer, oc.SkewOrthogonalConv2d) else layer.weight
        W = W.double()
        if not W.isfinite().all():
            return float("nan")
        if W.dim() == 4:
            W = torch.fft.fft2(W, s=(SIDE, SIDE)).permute(2, 3, 0, 1)  # (16, 16, out, in)
        return float((torch.linalg.svdvals(W) - 1).abs().amax())


PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "autocast": torch.float32}
"""Dtype of the layer. Under ``autocast`` its forward runs in torch.autocast to bfloat16."""


class Training:
    """A layer in training by SGD, on the inputs and targets that all layers of its size get.

    The target is the output of a fixed random orthogonal map of the channels.
    """

    def __init__(
        self,
        layer: Layer,
        size: int,
        precision: str = "float32",
        decay: float = DECAY,
        device: str = "cpu",
    ) -> None:
        generator = torch.Generator().manual_seed(0)
        images = (IMAGES, size, SIDE, SIDE)
        x = torch.randn(images if layer in CONVOLUTIONS else (4 * size, size), generator=generator)
        Q = torch.linalg.qr(torch.randn(size, size, generator=generator)).Q
        target = torch.einsum("ij,bj...->bi...", Q, x)
        torch.manual_seed(0)
        where = {"dtype": PRECISIONS[precision], "device": device}
        self.layer = layer.make(size).to(**where)
        self.x, self.target = x.to(**where), target.to(**where)
        self.cast = precision == "autocast"
        self.optimizer = torch.optim.SGD(
            self.layer.parameters(), lr=RATE, momentum=MOMENTUM, weight_decay=decay
        )
        self.losses: list[float] = []

    def _precision(self) -> AbstractContextManager[object]:
        return torch.autocast(self.x.device.type, torch.bfloat16, enabled=self.cast)

    def step(self) -> float:
        """Take a step and return its seconds."""
        start = now()
        self.optimizer.zero_grad()
        with self._precision():
            y = self.layer(self.x)
        loss = nn.functional.mse_loss(y.to(self.target.dtype), self.target)
        (self.x.shape[1] * loss).backward()  # summed over channels
        self.optimizer.step()
        seconds = now() - start
        self.losses.append(float(loss.detach()))
        return seconds

    def train(self, steps: int) -> dict[str, float]:
        """Train, and return the distance from orthogonal at the end and what became of the loss."""
        for _ in range(steps):
            self.step()
        with self._precision():
            end = distance(self.layer)
        return {"distance": end, "loss": statistics.fmean(self.losses[-5:]) / self.losses[0]}
