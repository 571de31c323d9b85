"""Removal of a parametrization from one layer, and not from copies of it."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.utils import parametrize

MADE_BY_PYTHON = ("__dict__", "__weakref__")
"""Attributes that Python adds to each class."""


def remove_parametrization(layer: nn.Module) -> nn.Module:
    """Make the present value of a layer's parametrized weight its plain parameter, and return it.

    torch's ``remove_parametrizations`` deletes the weight's property from the class that
    ``register_parametrization`` made for the layer. A copy of the layer has the same class, and
    would have no weight any more, so the layer gets a class of its own first.
    """
    shared = type(layer)
    own: dict[str, Any] = {
        name: value for name, value in vars(shared).items() if name not in MADE_BY_PYTHON
    }
    layer.__class__ = type(shared.__name__, shared.__bases__, own)
    return parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
