"""The effective weight of a layer: the weight that its input is multiplied by.

It differs from the trained parameter where a treatment parametrizes the weight.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import functional_call

from orthocond.host import full_precision
from orthocond.layers.inference.computed import COMPUTES, compute_weights
from orthocond.treatments.layer.matrix import from_matrix, to_matrix


def effective_weight(layer: nn.Module) -> Tensor:
    """Return the effective weight (out, in k k), differentiable and computed without autocast."""
    if any(isinstance(hook, COMPUTES) for hook in layer._forward_pre_hooks.values()):
        with evaluation(layer):
            compute_weights(layer)
    with full_precision(next(layer.parameters())):
        kernel = getattr(layer, "kernel", None)
        weight: Tensor = kernel() if callable(kernel) else layer.weight  # type: ignore[assignment]
        return to_matrix(weight, type(layer))


@contextmanager
def evaluation(layer: nn.Module) -> Iterator[None]:
    """Set the layer to evaluation mode, so that reading its weight runs no power iteration.

    Afterwards each module inside has its own flag again: a parametrization may be in evaluation
    mode alone.
    """
    flags = {module: module.training for module in layer.modules()}
    layer.eval()
    try:
        yield
    finally:
        layer.train(flags[layer])
        for module, flag in flags.items():
            module.training = flag


class _Weight(nn.Module):
    """A module whose ``forward`` returns the effective weight, for ``functional_call``."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self) -> Tensor:
        return effective_weight(self.layer)


def weight_and_derivative(
    layer: nn.Module, parameter: nn.Parameter, direction: Tensor, at: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return the effective weight W and its derivative G along a direction of the parameter.

    W is the weight in evaluation mode. If the direction is the gradient, W - eta G is the weight
    after a step of eta, to first order.

    Args:
        layer: a treated layer.
        parameter: one of its parameters.
        direction: change of the parameter, as a matrix (``to_matrix``).
        at: value of the parameter at which to take the derivative; None takes its present value.

    Returns:
        W and G, matrices (out, in k k). Without a weight treatment they are the parameter and the
        direction.
    """
    name = next(name for name, p in layer.named_parameters() if p is parameter)
    p = (parameter if at is None else at).detach().requires_grad_()
    with evaluation(layer), torch.enable_grad():
        W = functional_call(_Weight(layer), {f"layer.{name}": p}, ())
        # J d from two reverse passes: J^T v is linear in v, so the gradient of d^T (J^T v) with
        # respect to v is J d.
        v = torch.zeros_like(W, requires_grad=True)
        (transposed,) = torch.autograd.grad(W, p, v, create_graph=True)
        along = from_matrix(direction.to(p.dtype), p, type(layer))
        (G,) = torch.autograd.grad(transposed, v, along)
    return W.detach(), G
