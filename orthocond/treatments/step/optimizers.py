"""Access to the torch optimizer inside a wrapper, its parameter groups and learning rates."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.optim import LBFGS, Optimizer

from orthocond.errors import UserError

LIGHTNING = {"LightningOptimizer", "_FabricOptimizer"}
CLOSURE_AGAIN = (LBFGS,)
"""Optimizers known to evaluate their closure several times within one step."""

MOMENTA = ("momentum_buffer", "exp_avg")
"""Keys of an optimizer's state whose tensors have the shape of their parameter."""


def unwrapped(optimizer: Any) -> Optimizer:
    """Return the torch optimizer inside the wrappers of accelerate and Lightning.

    Raises:
        UserError: the innermost object is not a torch optimizer, or its step takes no hooks.
    """
    while hasattr(optimizer, "accelerator_state") or any(
        kind.__name__ in LIGHTNING for kind in type(optimizer).__mro__
    ):
        optimizer = optimizer.optimizer
    if not isinstance(optimizer, Optimizer):
        raise UserError(
            f"bind takes a torch.optim.Optimizer, got a {type(optimizer).__name__}: "
            "bind the torch optimizer whose step changes the weights"
        )
    if not hasattr(optimizer, "_optimizer_step_pre_hooks"):  # PostLocalSGDOptimizer
        raise UserError(
            f"a {type(optimizer).__name__} wraps another optimizer and takes no hooks: bind the "
            "torch optimizer inside of it"
        )
    return optimizer


def group_of(optimizer: Optimizer, parameter: nn.Parameter) -> dict[str, Any] | None:
    """Return the parameter group that holds a parameter, or None."""
    groups = optimizer.param_groups
    return next((g for g in groups if any(p is parameter for p in g["params"])), None)


def stale_momentum(optimizer: Optimizer, parameter: nn.Parameter) -> torch.Size | None:
    """Return the shape of the parameter's momentum if it is not the parameter's own, or None."""
    state = optimizer.state.get(parameter, {})
    momenta = (state.get(key) for key in MOMENTA)
    shapes = (momentum.shape for momentum in momenta if momentum is not None)
    return next((shape for shape in shapes if shape != parameter.shape), None)


def learning_rate(group: dict[str, Any], treatment: str) -> float:
    """Return the learning rate of a group.

    Raises:
        UserError: it has none, since the optimizer computes its own (``lr=None`` of Adafactor).
    """
    lr = group.get("lr")
    if lr is None:
        raise UserError(
            f"{treatment} scales the step by the learning rate, but the parameter's group has none "
            f"(lr=None): give the optimizer a learning rate, or leave {treatment} out"
        )
    return float(lr)
