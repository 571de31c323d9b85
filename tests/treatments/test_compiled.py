"""Treated layers under torch.compile, as one graph: steps, evaluation and errors are eager's."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import orthocond as oc
from orthocond.errors import DecompositionError, UserError


@pytest.mark.parametrize("name", ["sn", "ow", "ow-stiefel", "ow-conv"])
def test_a_compiled_treated_layer_is_the_eager_one(name: str) -> None:
    """In two training steps, which advance power iterations, and in evaluation.

    tests/layers/test_solvers.py evaluates the layer of ow.
    """
    torch._dynamo.reset()
    torch.manual_seed(0)
    eager = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU()).double()
    oc.treat(eager, "0", name)
    ours = copy.deepcopy(eager)
    compiled = torch.compile(ours, fullgraph=True, backend="aot_eager")
    for training in (True, True) if name == "ow" else (True, True, False):
        eager.train(training), ours.train(training)
        x = torch.randn(2, 3, 6, 6, dtype=torch.float64)
        y, z = eager(x), compiled(x)
        torch.testing.assert_close(z, y, rtol=1e-12, atol=1e-12)
        g = torch.randn_like(y)
        y.backward(g), z.backward(g)
        for a, b in zip(ours.parameters(), eager.parameters(), strict=True):
            assert (a.grad is None) == (b.grad is None)
            if b.grad is not None:
                torch.testing.assert_close(a.grad, b.grad, rtol=1e-11, atol=1e-11)
        for a, b in zip(ours.buffers(), eager.buffers(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_a_block_without_full_rank_is_refused_in_compiled_code_too() -> None:
    torch._dynamo.reset()
    model = nn.Sequential(nn.Conv2d(3, 4, 3))
    treated = oc.treat(model, "0", "ow-conv")
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        treated.parameter[:, 1] = treated.parameter[:, 0]
    with pytest.raises(DecompositionError, match="has a block that is not finite or without full"):
        compiled(torch.zeros(1, 3, 4, 4))


@pytest.mark.parametrize("name", ["sn", "ow", "ow-stiefel", "ow-conv"])
def test_a_treated_layer_is_traced_or_says_how(name: str) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1))
    oc.treat(model, "0", name)
    x = torch.randn(2, 3, 6, 6)
    expected = model.eval()(x)
    if name in ("sn", "ow-conv"):
        line = r"call treated\.remove\(\) or oc\.fold\(model\) before the export$"
        with pytest.raises(UserError, match=line):
            torch.jit.trace(model, x)
        model = oc.fold(model)
    torch.testing.assert_close(torch.jit.trace(model, x)(x), expected)
