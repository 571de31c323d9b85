"""Weights that pruning and torch's older norms compute before each forward pass, in ``fold``."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn.utils import prune, spectral_norm

import orthocond as oc
from orthocond.layers.inference.folding import Folded

HOOKED: dict[str, Callable[[nn.Sequential], nn.Module]] = {
    "whitening": lambda model: prune.l1_unstructured(model[1], "weight", 0.5),
    "skew": lambda model: prune.l1_unstructured(model[0], "filter", 0.3),
    "spectral norm": lambda model: spectral_norm(model[0], "filter"),
}


@pytest.mark.parametrize("hook", HOOKED.values(), ids=HOOKED)
def test_fold_keeps_the_present_weights_of_layers_that_it_replaces(
    hook: Callable[[nn.Sequential], nn.Module],
) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(oc.SkewOrthogonalConv2d(3, 4, 3), oc.DecorrelatedBatchNorm2d(4))
    nn.init.uniform_(model[1].weight)
    x = torch.randn(4, 3, 6, 6)
    model(x)
    layer = hook(model)
    model.eval()
    with torch.no_grad():
        expected = model(x)
        for p in layer.parameters():  # a step, which the computed weight does not follow
            p.mul_(2)
        folded = oc.fold(model)
        assert not torch.allclose(model(x), expected)
        torch.testing.assert_close(folded(x), model(x), rtol=1e-4, atol=1e-4)
    assert isinstance(folded[1], Folded) and not folded[0]._forward_pre_hooks
    assert layer._forward_pre_hooks
