"""Networks whose only batch statistics are the meta-layer's, in place of orthocond's own.

With $HOLD training stands before its second step until that file is there or a signal has come, so
that a test can be sure to meet it there.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from orthocond.layers.covariance_pool import GlobalCovariancePool2d
from orthocond.layers.decorrelated import DecorrelatedBatchNorm2d


def wait_while_held() -> None:
    while "HOLD" in os.environ and not Path(os.environ["HOLD"]).exists():
        stop = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)  # a StopSignal
        if getattr(stop, "signum", 0):
            return
        time.sleep(0.05)


class Plain(nn.Module):
    """A whitened stem and a classifier."""

    def __init__(self, classes: int, eps: float) -> None:
        super().__init__()
        self.steps = 0
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn1 = DecorrelatedBatchNorm2d(8, eps=eps)
        self.avgpool = nn.AdaptiveAvgPool2d(4)
        self.fc = nn.Linear(8 * 16, classes)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            if self.steps:
                wait_while_held()
            self.steps += 1
        x = torch.relu(self.bn1(self.conv1(x)))
        return self.fc(self.avgpool(x).flatten(1))


class Scale(nn.Module):
    """A weight and a bias, as the batch norm that it stands for has them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.ones(channels))  # above zero: most survive the ReLU

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight[:, None, None] + self.bias[:, None, None]


class PlainPool(nn.Module):
    """A convolution and a covariance pool without batch norm."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 12, 3, stride=4, padding=1)
        self.avgpool = GlobalCovariancePool2d(12, 8)
        self.avgpool.norm = Scale(8)
        self.fc = nn.Linear(36, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.avgpool(torch.relu(self.conv1(x))))


def plain_model(task: str, model: str, solver: str, classes: int, **settings: float) -> nn.Module:
    return Plain(classes, settings["eps"]) if task == "dbn" else PlainPool(classes)
