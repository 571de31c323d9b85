"""Weights that a hook computes before each forward pass, as pruning and torch's older norms do.

Between two forward passes such a weight is an attribute that does not follow its parameter: after a
step of an optimizer it is the weight of the step before, and its graph is gone.
"""

from __future__ import annotations

from torch import nn
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

COMPUTES = (BasePruningMethod, SpectralNorm, WeightNorm)
"""Hooks that set a weight; in training mode that of ``spectral_norm`` runs a power iteration."""


def compute_weights(layer: nn.Module) -> None:
    """Compute the weights of a layer anew that its hooks compute before each forward pass."""
    for hook in layer._forward_pre_hooks.values():
        if isinstance(hook, COMPUTES):
            hook(layer, ())


def keep_weights(layer: nn.Module) -> None:
    """Compute these weights for the last time, and remove the hooks.

    In a layer that takes the place of this one, the hooks would look for their parameters.
    """
    compute_weights(layer)
    for key, hook in list(layer._forward_pre_hooks.items()):
        if isinstance(hook, COMPUTES):
            del layer._forward_pre_hooks[key]
