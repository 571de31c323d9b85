"""Weights and gradients of a Pre-SVD layer, from a small network in training on dead leaves."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from orthocond.data import load_data
from orthocond.models import build_model, pre_svd

BATCH, LEARNING_RATE, MOMENTUM = 32, 0.1, 0.9


@dataclass(frozen=True)
class RealStep:
    """The layer before one step of the optimizer, in float64 and flattened to (64, 27).

    Attributes:
        step: how many steps were taken before.
        weight: W.
        gradient: dl/dW.
    """

    step: int
    weight: Tensor
    gradient: Tensor


def real_steps(at: Iterable[int] = (0, 4, 12), seed: int = 0) -> list[RealStep]:
    """Train the small network with an SVD stem by SGD, and keep the layer at some steps."""
    wanted = set(at)
    data = load_data("leaves", train_images=BATCH * 16, test_images=10)
    torch.manual_seed(seed)
    model = build_model("dbn", "small", "svd", len(data.classes)).float()  # whatever the default
    weight = model.get_parameter(f"{pre_svd('dbn')}.weight")
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM)
    taken, step, epoch = [], 0, 0
    while step <= max(wanted):
        for images, labels in data.train_batches(epoch, seed, BATCH):
            optimizer.zero_grad()
            F.cross_entropy(model(images), labels).backward()
            if step in wanted:
                assert weight.grad is not None
                W, G = (x.detach().flatten(1).double() for x in (weight, weight.grad))
                taken.append(RealStep(step, W, G))
            optimizer.step()
            step += 1
        epoch += 1
    return taken
