"""Warnings for weights that change without the step that is bound."""

from __future__ import annotations

import copy
import gc
import io
import warnings
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from sam import SAM
from torch import nn
from torch.optim import SGD
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from toys import Toy, assert_same, batch, network

import orthocond as oc

HOOKED = pytest.mark.parametrize("treatments", ["nog", "ow+olr", "sn+rescale", "slow"])


def twice(toy: Toy) -> None:
    """Take a step of SAM in two calls."""
    assert isinstance(toy.optimizer, SAM)
    toy.loss().backward()
    toy.optimizer.first_step()
    toy.loss().backward()
    toy.optimizer.second_step()


@pytest.fixture
def silence() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@HOOKED
def test_sam_bound_at_its_wrapper_is_warned_about_once(treatments: str) -> None:
    toy = Toy(treatments, lambda p: SAM(p, partial(SGD, lr=0.1)))
    with pytest.warns(UserWarning, match=r"^layer '0' is not treated.*the SAM given.*base") as seen:
        for _ in range(4):
            twice(toy)
    assert len(seen) == 1 and toy.treated.last is None


@HOOKED
def test_sam_bound_at_its_base_is_treated(treatments: str, silence: None) -> None:
    toy = Toy(treatments, lambda p: SAM(p, partial(SGD, lr=0.1)))
    toy.treated.bind(toy.optimizer.base_optimizer)
    for _ in range(4):
        twice(toy)
    assert toy.treated.last is not None


@HOOKED
def test_a_forgotten_bind_is_warned_about(treatments: str) -> None:
    model = network()
    oc.treat(model, "0", treatments)
    optimizer = SGD(model.parameters(), lr=0.1)
    images = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    with pytest.warns(UserWarning, match="layer '0' is not treated: its weight changes, but bind "):
        for _ in range(3):
            model(images).square().sum().backward()
            optimizer.step()


@pytest.mark.parametrize("treatments", ["sn", "ow", "ol", "ow-stiefel", ""])
def test_treatments_that_need_no_bind_are_not_warned_about(treatments: str, silence: None) -> None:
    model = network()
    oc.treat(model, "0", treatments)
    optimizer = SGD(model.parameters(), lr=0.1)
    for _ in range(4):
        model(torch.randn(2, 3, 8, 8, dtype=torch.float64)).square().sum().backward()
        optimizer.step()


def load(toy: Toy) -> None:
    toy.model.load_state_dict(copy.deepcopy(toy.model.state_dict()))


def swap(toy: Toy) -> None:
    """Swap other weights in, as for an evaluation, and then restore the present ones."""
    present = [p.detach().clone() for p in toy.model.parameters()]
    with torch.no_grad():
        for p in toy.model.parameters():
            p.mul_(0.9)
        toy.model(toy.images)
        for p, old in zip(toy.model.parameters(), present, strict=True):
            p.copy_(old)


def initialise(toy: Toy) -> None:
    nn.init.normal_(toy.treated.parameter, std=0.1)


def move(toy: Toy) -> None:
    toy.model.to("cpu", torch.float32).to(torch.float64)


def average(toy: Toy) -> None:
    averaged = AveragedModel(toy.model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    averaged.update_parameters(toy.model)
    averaged(toy.images).sum().backward()


def accumulate(toy: Toy) -> None:
    for _ in range(3):
        toy.loss().backward()


def clip(toy: Toy) -> None:
    with torch.no_grad():
        toy.treated.parameter.clamp_(-1, 1)


def freeze(toy: Toy) -> None:
    toy.model[0].requires_grad_(False)
    for _ in range(3):
        toy.step()
    toy.model[0].requires_grad_(True)


def prepare(toy: Toy) -> None:
    toy.model, toy.optimizer = Accelerator(cpu=True).prepare(toy.model, toy.optimizer)
    toy.treated.bind(toy.optimizer)


def skip(toy: Toy) -> None:
    """Make the gradient overflow, so that the scaler does not call the step."""
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    (scaler.scale(toy.loss()) * 1e308).backward()
    scaler.step(toy.optimizer)
    toy.optimizer.zero_grad()


EVENTS = [load, swap, initialise, move, average, accumulate, clip, freeze, prepare, skip]


@HOOKED
@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.__name__)
def test_no_warning_where_every_step_is_treated(treatments: str, event: Any, silence: None) -> None:
    toy = Toy(treatments, partial(SGD, lr=0.01))
    event(toy)
    for _ in range(3):
        toy.step()
        event(toy)
    toy.backward()
    event(toy)  # between the gradient and its step, too
    toy.optimizer.step()
    toy.step()


@HOOKED
def test_a_removed_treatment_is_not_warned_about(treatments: str, silence: None) -> None:
    toy = Toy(treatments)
    toy.step()
    toy.treated.remove()
    toy.optimizer = SGD(toy.model.parameters(), lr=0.01)
    for _ in range(4):
        toy.step()


@pytest.mark.parametrize("treatments", ["nog", "ow+olr", "slow"])  # torch saves no parametrized one
def test_a_watched_model_is_copied_and_saved(treatments: str) -> None:
    toy = Toy(treatments)
    toy.step()
    buffer = io.BytesIO()
    torch.save(toy.model, buffer)
    buffer.seek(0)
    for other in (copy.deepcopy(toy.model), torch.load(buffer, weights_only=False)):
        assert_same(toy.state(), dict(other.state_dict()))


@HOOKED
@pytest.mark.parametrize("bound", [True, False])
def test_a_handle_that_was_dropped_warns_only_until_another_one_treats_the_layer(
    treatments: str, bound: bool, silence: None
) -> None:
    model = network()
    forgotten = oc.treat(model, "0", "slow")
    if bound:
        forgotten.bind(SGD(model.parameters(), lr=0.1))  # and this optimizer is dropped, too
    del forgotten
    gc.collect()
    treated = oc.treat(model, "0", treatments)
    optimizer = SGD(model.parameters(), lr=0.1)
    treated.bind(optimizer)
    for _ in range(4):
        model(batch()[0]).square().mean().backward()
        optimizer.step()
    assert treated.last is not None


@pytest.mark.parametrize("treatments", ["nog", "slow", "sn+rescale"])
@pytest.mark.parametrize("bound", [True, False])
def test_a_copy_of_model_optimizer_and_handle_is_not_bound(treatments: str, bound: bool) -> None:
    toy, plain = Toy(treatments), Toy(treatments)
    toy.step(), plain.step()
    toy.model, toy.optimizer, treated = copy.deepcopy((toy.model, toy.optimizer, toy.treated))
    old, toy.treated = toy.treated, treated
    if bound:
        toy.treated.bind(toy.optimizer)
        last = old.last
        for _ in range(3):
            assert toy.step() == plain.step()
        assert_same(toy.state(), plain.state())
        assert old.last is last  # the original is not treated by steps of the copy
    else:
        with pytest.warns(UserWarning, match="layer '0' is not treated: .* bind was never called"):
            for _ in range(3):
                toy.step()
