"""Weights that pruning and torch's older norms compute before each forward pass."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn.utils import prune, spectral_norm
from torch.optim import SGD

import orthocond as oc

HOOKS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "pruning": lambda layer: prune.l1_unstructured(layer, "weight", 0.3),
    "spectral norm": spectral_norm,
}
hooked = pytest.mark.parametrize("hook", HOOKS.values(), ids=HOOKS)


@hooked
def test_the_handle_reads_the_weight_of_this_moment(hook: Callable[[nn.Module], nn.Module]) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 4, bias=False, dtype=torch.float64))
    hook(model[0])
    treated = oc.treat(model, "0", "nog")
    optimizer = SGD(model.parameters(), lr=0.5)
    treated.bind(optimizer)
    x = torch.randn(8, 6, dtype=torch.float64)
    model(x).square().mean().backward()
    optimizer.step()
    vectors = {name: b.clone() for name, b in model.named_buffers()}
    W = treated.weight()
    assert all(torch.equal(b, vectors[name]) for name, b in model.named_buffers())
    torch.testing.assert_close(x @ W.mT, model.eval()(x))


@hooked
def test_the_loss_term_has_a_gradient_before_the_forward_pass(
    hook: Callable[[nn.Module], nn.Module],
) -> None:
    model = nn.Sequential(nn.Linear(6, 4))
    hook(model[0])
    treated = oc.treat(model, "0", "ol")
    optimizer = SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        with torch.no_grad():
            model.eval()(torch.randn(2, 6))  # an evaluation leaves a weight without a graph
        model.train()
        optimizer.zero_grad()
        treated.penalty().backward()
        assert treated.parameter.grad.norm() > 0
        optimizer.step()


@hooked
def test_a_rule_reads_the_effective_weight(hook: Callable[[nn.Module], nn.Module]) -> None:
    model = nn.Sequential(nn.Linear(6, 4))
    hook(model[0])
    treated = oc.treat(model, "0", "nog+olr", target="weight")
    optimizer = SGD(model.parameters(), lr=0.1)
    treated.bind(optimizer)
    for _ in range(2):
        optimizer.zero_grad()
        model(torch.randn(8, 6)).square().mean().backward()
        optimizer.step()
        assert treated.last is not None and treated.last.eta is not None
