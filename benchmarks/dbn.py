"""Time of decorrelated batch norm against its matrix products, BatchNorm2d and a textbook layer.

The benchmark times the layer alone on an input of shape (128, 64, 32, 32), and a whole training
step of the small network with each norm.

python benchmarks/dbn.py [--rounds 30] [--threads 2] [--fresh-memory]
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from common import begin, options, show, training_step, write
from torch import Tensor, nn

from orthocond.layers.decorrelated import DecorrelatedBatchNorm2d
from orthocond.measure.timer import median_seconds
from orthocond.models.backbones import build_model


class Textbook(nn.Module):
    """Textbook whitening: transpose, centre, SVD and affine map, with autograd through all."""

    def __init__(self, channels: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(1, channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        B, C, H, W = x.shape
        X = x.transpose(0, 1).reshape(C, -1)  # (C, B H W)
        X = X - X.mean(1, keepdim=True)
        P = X @ X.mT / X.shape[1] + self.eps * torch.eye(C, device=x.device)
        U, s, _ = torch.linalg.svd(P)
        Y = (U * s.rsqrt()) @ U.mT @ X
        y = Y.view(C, B, H, W).transpose(0, 1).contiguous()
        return y * self.weight + self.bias


def products(x: Tensor, count: int) -> Callable[[], None]:
    """Return a function that runs only the layer's matrix products.

    The products use their best layout and write into existing buffers. ``count`` is 2 for a
    forward pass, 5 for a forward and a backward pass.
    """
    B, C, H, W = x.shape
    X = x.view(B, C, H * W)
    A = torch.randn(B, C, C, device=x.device)
    P, Y = torch.empty_like(A), torch.empty_like(X)

    def run() -> None:
        for k in range(count):
            if k % 2 == 0 and k < 4:  # the covariance, and dl/dA in the backward
                torch.bmm(X, X.mT, out=P)
            else:  # the application, and the two halves of dl/dX
                torch.bmm(A, X, out=Y)

    return run


def step(norm: nn.Module, device: str) -> Callable[[], None]:
    """Return a function that takes a training step of the small network.

    ``norm`` is the layer after the network's stem.
    """
    torch.manual_seed(0)
    model = build_model("dbn", "small", "bn", 10)
    model.bn1 = norm
    return training_step(model, device)


def main() -> None:
    arguments = options(__doc__, 30, fresh_memory="keep malloc's default settings")
    device = begin(arguments.threads, arguments.fresh_memory)
    x = torch.randn(128, 64, 32, 32, device=device)
    mix = torch.eye(64, device=device) + 0.5 * torch.randn(64, 64, device=device) / 8
    x = torch.einsum("ij,bjhw->bihw", mix, x).contiguous().requires_grad_()
    g = torch.randn_like(x)
    layers = {
        "orthocond": DecorrelatedBatchNorm2d(64).to(device),
        "BatchNorm2d": nn.BatchNorm2d(64).to(device),
        "textbook": Textbook(64, 1e-2).to(device),
    }

    def both(layer: Callable[[Tensor], Tensor]) -> Callable[[], None]:
        def run() -> None:
            x.grad = None
            layer(x).backward(g)

        return run

    with torch.no_grad():
        bare = {"products": products(x.detach(), 2)}
        forward = median_seconds(
            bare | {name: lambda f=f: f(x) for name, f in layers.items()}, arguments.rounds
        )
    bare = {"products": products(x.detach(), 5)}
    whole = median_seconds(bare | {name: both(f) for name, f in layers.items()}, arguments.rounds)
    norms = {
        "BatchNorm2d": nn.BatchNorm2d(64),
        "orthocond": DecorrelatedBatchNorm2d(64),
        "newton-schulz": DecorrelatedBatchNorm2d(64, solver="newton-schulz"),
    }  # without the textbook layer: the stem has 37 equal eigenvalues, its gradient is NaN
    steps = median_seconds({name: step(norm, device) for name, norm in norms.items()}, 12, 2)
    show("forward", forward, "products")
    show("forward and backward", whole, "products")
    show("training step of the small network", steps, "BatchNorm2d")
    name = "dbn-fresh-memory" if arguments.fresh_memory else "dbn"
    write(
        arguments.out,
        name,
        median_seconds={"forward": forward, "forward_backward": whole, "step": steps},
    )


if __name__ == "__main__":
    main()
