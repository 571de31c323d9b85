"""Wrappers of optimizers, and groups with a rate that is None or a tensor."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch.distributed.optim import PostLocalSGDOptimizer
from torch.optim import SGD, Optimizer
from toys import OPTIMIZERS, Build, Toy, assert_same, batch, every, network, optimizers

import orthocond as oc
from orthocond.errors import UserError
from orthocond.treatments.step.optimizers import unwrapped


def test_optimizer_and_model_wrappers_are_unwrapped() -> None:
    toy = Toy("nog")
    inner = SGD(toy.model.parameters(), lr=0.1)
    wrapped = [Accelerator(cpu=True).prepare(inner)]
    lightning = pytest.importorskip("lightning")
    wrapped.append(lightning.pytorch.core.optimizer.LightningOptimizer(inner))
    _, prepared = lightning.Fabric(accelerator="cpu", devices=1).setup(toy.model, inner)
    for optimizer in (inner, *wrapped, prepared):
        assert unwrapped(optimizer) is inner
    for other in (None, toy.model, [inner]):
        with pytest.raises(UserError, match=r"got a (NoneType|Sequential|list): bind the"):
            unwrapped(other)
    averaging = PostLocalSGDOptimizer(inner, None)
    with pytest.raises(UserError, match=r"^a PostLocalSGDOptimizer wraps another optimizer"):
        toy.treated.bind(averaging)
    toy.treated.bind(averaging.optim)


class Scaled(Optimizer):
    """An optimizer that computes its own rate, like Adafactor with relative steps."""

    def __init__(self, params: Any, lr: float | None = None) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.sub_(p.grad, alpha=0.1)


GRADIENT = ["nog", "polargrad", "rescale", "nog+ow"]
GRADIENT_AND_WEIGHT = [*GRADIENT, "ol", "sn", "ow", "ow-stiefel", "ow-conv"]


@pytest.mark.parametrize("treatments", GRADIENT_AND_WEIGHT)
def test_treatments_without_a_rate_accept_an_optimizer_without_lr(treatments: str) -> None:
    toy, plain = Toy(treatments, Scaled), Toy(treatments, partial(SGD, lr=0.1))
    for _ in range(2):
        assert toy.step() == plain.step()
    assert_same(toy.state(), plain.state(), 1e-12)


@pytest.mark.parametrize("treatment", ["olr", "olr-newton", "olr-exact", "slow", "muon"])
def test_treatments_that_scale_the_step_need_an_optimizer_with_lr(treatment: str) -> None:
    message = rf"^{treatment} scales the step by the learning rate, but .* has none \(lr=None\): g"
    with pytest.raises(UserError, match=message):
        Toy(treatment, Scaled)
    toy = Toy(treatment, partial(Scaled, lr=0.1))
    toy.optimizer.param_groups[0]["lr"] = None
    toy.backward()
    with pytest.raises(UserError, match=message):
        toy.optimizer.step()


@pytest.mark.parametrize("treatment", ["nog+olr", "olr-newton", "olr-exact", "slow", "muon"])
def test_a_rate_may_be_a_tensor(treatment: str) -> None:
    number, tensor = (Toy(treatment, partial(SGD, lr=lr)) for lr in (0.1, torch.tensor(0.1)))
    for _ in range(3):
        number.step(), tensor.step()
        assert tensor.treated.last.eta == pytest.approx(number.treated.last.eta, nan_ok=True)
    assert_same(number.state(), tensor.state(), 1e-7)  # the tensor is float32


@every
@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize(("target", "closure"), [("parameter", False), ("weight", True)])
def test_to_maximize_the_negative_loss_is_to_minimize_the_loss(
    treatments: str, name: str, target: str, closure: bool
) -> None:
    down = Toy(treatments, OPTIMIZERS[name], target=target)
    up = Toy(treatments, partial(OPTIMIZERS[name], maximize=True), target=target)
    used = []

    def negative() -> torch.Tensor:
        up.optimizer.zero_grad()
        loss = -(up.loss() + up.treated.penalty())
        loss.backward()
        return loss

    for _ in range(4):
        down.step()
        if closure:
            up.optimizer.step(negative)
        else:
            negative()
            up.optimizer.step()
        ours, expected = up.treated.last, down.treated.last
        assert (ours is None) == (expected is None)
        if expected is not None:
            assert (ours.eta is None) == (expected.eta is None)
            if expected.eta is not None:
                assert ours.eta == pytest.approx(expected.eta, rel=1e-6, abs=1e-9, nan_ok=True)
            assert ours.eta_used == expected.eta_used
            used.append(expected.eta_used)
    assert_same(up.state(), down.state(), 1e-10)
    if treatments in ("olr-exact", "slow"):
        assert any(used)  # the rule changes the step, so its sign matters


class Early(Toy):
    """A toy whose optimizer was built before its layer was treated, and is bound if asked for."""

    def __init__(self, treatments: str, build: Build, bind: bool) -> None:
        self.model = network()
        self.images, self.labels = batch()
        self.optimizer = build(self.model.parameters())
        self.treated = oc.treat(self.model, "0", treatments, ol_weight=0.05)
        if bind:
            self.treated.bind(self.optimizer)


@every
@optimizers
def test_an_optimizer_that_was_built_before_trains_the_treated_weight(
    treatments: str, build: Build
) -> None:
    early, late = Early(treatments, build, bind=True), Toy(treatments, build)
    for _ in range(3):
        assert early.step() == late.step()
    assert_same(early.state(), late.state())


@pytest.mark.parametrize("treatments", ["ol", "sn", "ow", "ow-stiefel", "ow-conv"])
def test_such_an_optimizer_need_not_be_bound_where_no_step_is_treated(treatments: str) -> None:
    early, late = Early(treatments, OPTIMIZERS["sgd"], bind=False), Toy(treatments)
    for _ in range(3):
        assert early.step() == late.step()
    assert_same(early.state(), late.state())


@pytest.mark.parametrize("treatments", ["ow", "ow-stiefel", "ow-conv"])
def test_a_momentum_of_another_shape_is_refused(treatments: str) -> None:
    for build in OPTIMIZERS.values():
        toy = Early("", build, bind=True)
        toy.step()
        toy.treated.remove()
        treated = oc.treat(toy.model, "0", treatments)
        words = r"^the optimizer has a momentum of shape \(8, 3, 3, 3\) for layer '0', whose param"
        with pytest.raises(UserError, match=words):
            treated.bind(toy.optimizer)
        treated.bind(build(toy.model.parameters()))


@pytest.mark.parametrize("treatments", ["nog", "sn", "ol+olr"])
def test_a_momentum_is_kept_where_the_shape_stays(treatments: str) -> None:
    toy = Early("", OPTIMIZERS["sgd"], bind=True)
    toy.step()
    momentum = toy.optimizer.state[toy.treated.parameter]["momentum_buffer"]
    toy.treated = oc.treat(toy.model, "0", treatments)
    toy.treated.bind(toy.optimizer)
    toy.step()
    assert toy.optimizer.state[toy.treated.parameter]["momentum_buffer"] is momentum


@pytest.mark.parametrize("treatments", ["ow", "ow-stiefel", "ow-conv"])
@pytest.mark.parametrize("frozen", [False, True])
def test_a_treated_layer_keeps_its_parameters(treatments: str, frozen: bool) -> None:
    model = network()
    weight, bias = model[0].weight, model[0].bias
    bias.requires_grad_(not frozen)
    before = bias.detach().clone()
    model(batch()[0]).sum().backward()
    treated = oc.treat(model, "0", treatments)
    assert treated.parameter is weight and weight.grad is None
    assert model[0].bias is bias and bias.requires_grad is not frozen
    assert not frozen or torch.equal(bias, before)
    model(batch()[0]).sum().backward()
    assert weight.grad.isfinite().all() and weight.grad.abs().max() > 0
