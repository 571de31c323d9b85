"""The effective weight of a layer: what its input meets, whatever parametrizes it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import functional_call

from orthocond.treatments.matrix import from_matrix, to_matrix


def effective_weight(layer: nn.Module) -> Tensor:
    """The effective weight (out, in k k), differentiable and never in autocast's precision."""
    device = next(layer.parameters()).device
    with torch.autocast(device.type, enabled=False):
        kernel = getattr(layer, "kernel", None)
        weight: Tensor = kernel() if callable(kernel) else layer.weight  # type: ignore[assignment]
        return to_matrix(weight, type(layer))


@contextmanager
def evaluation(layer: nn.Module) -> Iterator[None]:
    """The layer in evaluation mode, so that looking moves no power iteration."""
    training = layer.training
    layer.eval()
    try:
        yield
    finally:
        layer.train(training)


class _Weight(nn.Module):
    """A module whose forward is the effective weight, which ``functional_call`` asks for."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self) -> Tensor:
        return effective_weight(self.layer)


def weight_and_derivative(
    layer: nn.Module, parameter: nn.Parameter, direction: Tensor, at: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The effective weight in evaluation, and its derivative along a direction of the parameter.

    With the gradient as direction, W - eta G is the weight after a step of eta, to first order.

    Args:
        layer: a treated layer.
        parameter: one of its parameters.
        direction: of the parameter, as a matrix (``to_matrix``).
        at: the parameter's value to take the derivative at; None takes the present one.

    Returns:
        Two matrices (out, in k k); without a weight treatment the parameter and the direction.
    """
    name = next(name for name, p in layer.named_parameters() if p is parameter)
    p = (parameter if at is None else at).detach().requires_grad_()
    with evaluation(layer), torch.enable_grad():
        W = functional_call(_Weight(layer), {f"layer.{name}": p}, ())
        # J d by two reverse passes: J^T v is linear in v, and d (J^T v) / dv along d is J d.
        v = torch.zeros_like(W, requires_grad=True)
        (transposed,) = torch.autograd.grad(W, p, v, create_graph=True)
        along = from_matrix(direction.to(p.dtype), p, type(layer))
        (G,) = torch.autograd.grad(transposed, v, along)
    return W.detach(), G
