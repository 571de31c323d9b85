"""Weight treatments inside of torch.utils.checkpoint, which repeats the forward."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import orthocond as oc


def treated(treatment: str) -> nn.Sequential:
    """A treated layer whose weight has moved since the last power iteration."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1)).double()
    parameter = oc.treat(model, "0", treatment).parameter
    with torch.no_grad():
        parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def backward(model: nn.Module, run: partial[Tensor] | nn.Module) -> None:
    x = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(1)).double()
    y = run(x.requires_grad_())
    y.backward(torch.linspace(-1, 1, y.numel()).view_as(y).to(y))


@pytest.mark.parametrize("treatment", ["sn", "ow", "ow-stiefel", "ow-conv"])
@pytest.mark.parametrize("use_reentrant", [False, True])
@pytest.mark.parametrize("compiled", [False, True])
def test_a_recomputed_forward_has_the_same_weight(
    treatment: str, use_reentrant: bool, compiled: bool
) -> None:
    torch._dynamo.reset()
    plain = treated(treatment)
    ours = copy.deepcopy(plain)
    inner = torch.compile(ours, fullgraph=True, backend="aot_eager") if compiled else ours
    for _ in range(2):
        backward(plain, plain)
        backward(ours, partial(checkpoint, inner, use_reentrant=use_reentrant))
        for a, b in zip(ours.parameters(), plain.parameters(), strict=True):
            if b.grad is not None:
                torch.testing.assert_close(a.grad, b.grad, rtol=1e-12, atol=1e-12)
        for a, b in zip(ours.buffers(), plain.buffers(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
