"""Time of decorrelated batch norm in evaluation at batch 1, against two 1x1 convolutions.

The benchmark also times BatchNorm2d, the layer with gradients, and what ``oc.fold`` makes of the
layer behind a 1x1 convolution, against this convolution alone.

python benchmarks/evaluation.py [--rounds 300] [--threads 2]
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from common import begin, options, show, write
from torch import nn

import orthocond as oc
from orthocond.measure.timer import median_seconds

SHAPES = [(1, 64, 8, 8), (1, 64, 16, 16), (1, 64, 32, 32), (1, 256, 16, 16)]


def cases(shape: tuple[int, ...], device: str) -> dict[str, Callable[[], object]]:
    """Return the cases for an input of this shape, without gradients except where named."""
    C = shape[1]
    x = torch.randn(shape, device=device)
    layers = {
        "two 1x1 convolutions": nn.Sequential(nn.Conv2d(C, C, 1), nn.Conv2d(C, C, 1)),
        "BatchNorm2d": nn.BatchNorm2d(C),
        "orthocond": oc.DecorrelatedBatchNorm2d(C),
        "1x1 convolution": nn.Conv2d(C, C, 1),
        "folded": oc.fold(nn.Sequential(nn.Conv2d(C, C, 1), oc.DecorrelatedBatchNorm2d(C))),
    }
    found = {
        name: partial(torch.no_grad()(layer.eval().to(device)), x) for name, layer in layers.items()
    }
    found["orthocond, with gradients"] = partial(layers["orthocond"], x.clone().requires_grad_())
    return found


def main() -> None:
    arguments = options(__doc__, 300)
    device = begin(arguments.threads)
    medians = {}
    for shape in SHAPES:
        name = " x ".join(map(str, shape))
        medians[name] = median_seconds(cases(shape, device), arguments.rounds)
        show(name, medians[name], "two 1x1 convolutions")
    write(arguments.out, "evaluation", median_seconds=medians)


if __name__ == "__main__":
    main()
