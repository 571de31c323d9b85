"""Weights and gradients of the Pre-SVD layer of a small network that trains on dead leaves."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from orthocond.config.tasks import DBN
from orthocond.data import load_data
from orthocond.models.backbones import build_model

BATCH, LEARNING_RATE, MOMENTUM = 32, 0.1, 0.9


@dataclass(frozen=True)
class RealStep:
    """Layer state before one step of the optimizer, in float64 and flattened to (64, 27).

    Attributes:
        step: number of steps taken before.
        weight: weight W of the layer.
        gradient: gradient dl/dW.
    """

    step: int
    weight: Tensor
    gradient: Tensor


def real_steps(at: Iterable[int] = (0, 4, 12), seed: int = 0) -> list[RealStep]:
    """Train the small network with an SVD stem by SGD, and record the layer at the given steps."""
    wanted = set(at)
    data = load_data("leaves", train_images=BATCH * 16, test_images=10)
    torch.manual_seed(seed)
    model = build_model(
        DBN.name, "small", "svd", len(data.classes)
    ).float()  # the default may differ
    weight = model.get_parameter(f"{DBN.pre_svd}.weight")
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
