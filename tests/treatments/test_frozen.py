"""Layers that are frozen after treat: left alone, and treated again when thawed."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.optim import SGD
from toys import EACH, OPTIMIZERS, Toy, network

import orthocond as oc
from orthocond.errors import UserError
from orthocond.treatments import TREATMENTS

every = pytest.mark.parametrize("treatments", EACH)
AFTER_THE_GRADIENT = ("gradient", "step")


def weight_of(toy: Toy) -> torch.Tensor:
    return toy.treated.parameter.detach().clone()


@every
def test_a_layer_frozen_before_backward_keeps_its_weight_until_it_is_thawed(
    treatments: str,
) -> None:
    toy, twin = Toy(treatments), Toy(treatments)
    for frozen in (toy, twin):
        frozen.step()
    toy.model[0].requires_grad_(False)
    toy.optimizer.zero_grad()
    before, last = weight_of(toy), toy.treated.last
    for _ in range(2):
        penalty = toy.treated.penalty()
        assert penalty == 0 and not penalty.requires_grad
        toy.step()
    assert torch.equal(weight_of(toy), before) and toy.treated.last is last
    toy.treated.bind(toy.optimizer)  # a frozen parameter must not be reported as sharded
    # Thawed, with the rest of the twin's state, it takes the twin's steps.
    toy.model[0].requires_grad_(True)
    toy.model.load_state_dict(twin.model.state_dict())
    toy.optimizer.load_state_dict(copy.deepcopy(twin.optimizer.state_dict()))
    assert [toy.step(), toy.step()] == [twin.step(), twin.step()]
    assert torch.equal(weight_of(toy), weight_of(twin))
    if any(TREATMENTS[name].acts_on in AFTER_THE_GRADIENT for name in toy.treated.treatments):
        assert toy.treated.last is not last


@every
def test_a_layer_frozen_between_backward_and_step_gets_a_plain_step(treatments: str) -> None:
    """Freeze after backward: torch's optimizers step every gradient, here without treatment."""
    weights = [n for n in Toy(treatments).treated.treatments if TREATMENTS[n].acts_on == "weight"]
    toy, plain = Toy(treatments), Toy(weights)
    toy.backward()
    plain.optimizer.zero_grad()
    (plain.loss() + toy_penalty(plain, treatments)).backward()
    for each in (toy, plain):
        each.treated.parameter.requires_grad_(False)
        each.optimizer.step()
    torch.testing.assert_close(weight_of(toy), weight_of(plain), rtol=0, atol=1e-15)
    assert toy.treated.last is None


def toy_penalty(toy: Toy, treatments: str) -> torch.Tensor:
    """Return the loss term of the treatments in another network with the same weights."""
    if "ol" not in treatments.split("+"):
        return torch.zeros((), dtype=torch.float64)
    layer = toy.treated.layer  # in training, each read of its weight runs a power iteration
    weight = (layer.kernel() if "ow" in toy.treated.treatments else layer.weight).flatten(1)
    return 0.05 * torch.linalg.matrix_norm(weight @ weight.mT - torch.eye(8).double())


@every
def test_a_frozen_layer_is_removed_frozen(treatments: str) -> None:
    toy = Toy(treatments)
    toy.model[0].requires_grad_(False)
    weight = toy.treated.weight()
    layer = toy.treated.remove()
    assert not layer.weight.requires_grad
    torch.testing.assert_close(layer.weight.flatten(1), weight, rtol=0, atol=1e-15)


@pytest.mark.parametrize("treatments", ["nog+olr", "ow-stiefel+nog", "slow", "nog+ow+olr"])
def test_the_optimizer_may_get_a_frozen_layers_parameter_later(treatments: str) -> None:
    """Do as Lightning's BackboneFinetuning: freeze, build the optimizer, thaw, add a group."""
    model = network()
    treated = oc.treat(model, "0", treatments)
    model[0].requires_grad_(False)
    optimizer = OPTIMIZERS["sgd"](p for p in model.parameters() if p.requires_grad)
    treated.bind(optimizer)
    images = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    model(images).square().sum().backward()
    optimizer.step()
    assert treated.last is None
    treated.parameter.requires_grad_(True)
    optimizer.zero_grad()
    model(images).square().sum().backward()
    with pytest.raises(
        UserError,
        match=r"^layer '0' has a gradient, but no group of the bound SGD holds its parameter: add",
    ):
        optimizer.step()
    optimizer.add_param_group({"params": [treated.parameter]})
    optimizer.step()
    assert treated.last.finite
    if "nog" in treatments:
        assert treated.last.gradient_kappa_after == pytest.approx(1, rel=1e-9)


def test_a_layer_that_is_frozen_from_the_start_is_refused() -> None:
    model = nn.Sequential(nn.Linear(3, 4).requires_grad_(False))
    with pytest.raises(UserError, match="is frozen: there is nothing to treat"):
        oc.treat(model, "0", "nog")
    treated = oc.treat(nn.Sequential(nn.Linear(3, 4)), "0", "nog")
    with pytest.raises(UserError, match="does not hold the parameter of layer '0'"):
        treated.bind(SGD([nn.Parameter(torch.zeros(3))], lr=0.1))
