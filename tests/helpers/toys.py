"""A small treated network with its optimizer and data, in float64 unless told otherwise."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

import orthocond as oc
from orthocond.treatments import TREATMENTS, Treated

Build = Callable[..., Optimizer]

OPTIMIZERS: dict[str, Build] = {
    "sgd": partial(SGD, lr=0.2, momentum=0.9, weight_decay=5e-3),
    "adamw": partial(AdamW, lr=0.02, weight_decay=0.1),
}

EACH = [*TREATMENTS, "nog+ow+olr", "nog+sn+ol+olr-exact", "ol+ow-stiefel+olr-newton+rescale"]
every = pytest.mark.parametrize("treatments", EACH)
optimizers = pytest.mark.parametrize("build", OPTIMIZERS.values(), ids=OPTIMIZERS)
either = pytest.mark.parametrize("fused", [False, True], ids=["foreach", "fused"])


def network(seed: int = 0, dtype: torch.dtype = torch.float64) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(32, 4),
    ).to(dtype)


def batch(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """16 images whose class is the quadrant that is bright."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(16, 3, 8, 8, generator=generator, dtype=torch.float64)
    labels = torch.arange(16) % 4
    for image, label in zip(images, labels.tolist(), strict=True):
        row, column = 4 * (label // 2), 4 * (label % 2)
        image[:, row : row + 4, column : column + 4] += 1
    return images.to(dtype), labels


class Toy:
    """Treated, bound, and ready to step.

    Args:
        build: the optimizer from the network's parameters, and a list of them or groups.
        target: of OLR.
        device: of the treated network and the images. All random numbers, the treatments' start
            values included, are drawn on the CPU first: a GPU's generator gives others.
    """

    def __init__(
        self,
        treatments: str | Iterable[str],
        build: Callable[..., Optimizer] = OPTIMIZERS["sgd"],
        seed: int = 0,
        dtype: torch.dtype = torch.float64,
        target: str = "parameter",
        device: torch.device | str = "cpu",
    ) -> None:
        self.model = network(seed, dtype)
        self.images, self.labels = (t.to(device) for t in batch(dtype))
        self.treated: Treated = oc.treat(self.model, "0", treatments, ol_weight=0.05, target=target)
        self.model.to(device)
        self.optimizer = build(list(self.model.parameters()))
        self.treated.bind(self.optimizer)

    def loss(self, part: slice = slice(None)) -> Tensor:
        logits = self.model(self.images[part])
        return nn.functional.cross_entropy(logits.to(self.images.dtype), self.labels[part])

    def backward(self) -> float:
        self.optimizer.zero_grad()
        loss = self.loss() + self.treated.penalty()
        loss.backward()
        return loss.item()

    def step(self) -> float:
        loss = self.backward()
        self.optimizer.step()
        return loss

    def scaled_step(self, scaler: torch.amp.GradScaler, dtype: torch.dtype) -> float:
        """A step under autocast with a loss scale."""
        self.optimizer.zero_grad()
        with torch.autocast(self.images.device.type, dtype):
            loss = self.loss() + self.treated.penalty()
        scaler.scale(loss).backward()
        scaler.step(self.optimizer)
        scaler.update()
        return loss.item()

    def state(self) -> dict[str, Tensor]:
        return {name: t.detach().clone() for name, t in self.model.state_dict().items()}


def assert_same(a: dict[str, Tensor], b: dict[str, Tensor], rtol: float = 0.0) -> None:
    """Equal to the bit, or to roundings where the order of sums differs."""
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=rtol, atol=rtol)
