"""What holds for every treatment that is registered: a new one is covered without an edit here.

Runs that must agree do so to the bit, or to 1e-10 where the order of sums differs: float64's 1e-16
after a few steps of a network in which nothing is amplified by more than 1e6.
"""

from __future__ import annotations

import copy
from functools import partial
from itertools import chain, combinations
from pathlib import Path
from typing import get_args

import pytest
import torch
from accelerate import Accelerator
from processes import in_processes, treated_steps
from torch import nn
from torch.nn.utils.parametrize import is_parametrized
from torch.optim import SGD
from toys import (
    EACH,
    OPTIMIZERS,
    Build,
    Toy,
    assert_same,
    batch,
    either,
    every,
    network,
    optimizers,
)

import orthocond as oc
from orthocond.errors import UserError
from orthocond.spectral.verification import vectors
from orthocond.treatments import TREATMENTS, parse_treatments
from orthocond.treatments.protocol import Acts

ROUNDING = 1e-10


def makes_sense(names: tuple[str, ...]) -> bool:
    try:
        return bool(parse_treatments("+".join(names)))
    except UserError:
        return False


MOST = len(get_args(Acts))  # one of each kind
SUMS = [
    "+".join(names)
    for names in chain.from_iterable(combinations(TREATMENTS, n + 1) for n in range(MOST))
    if makes_sense(names)
]


@every
def test_torchs_default_device_changes_no_step(treatments: str) -> None:
    toys = [Toy(treatments), Toy(treatments)]
    vectors.cache_clear()
    torch.manual_seed(1)
    toys[0].step()
    torch.manual_seed(1)
    with torch.device("meta"):
        toys[1].step()
    assert_same(toys[0].state(), toys[1].state())
    model = network()
    with torch.device("meta"):
        oc.treat(model, "0", treatments)
    expected = network()
    oc.treat(expected, "0", treatments)
    assert_same(model.state_dict(), expected.state_dict())


@every
def test_trains(treatments: str) -> None:
    toy = Toy(treatments)
    losses = [toy.step() for _ in range(30)]
    assert losses[-1] < 0.8 * losses[0]


def test_every_allowed_combination_of_treatments_trains() -> None:
    for treatments in SUMS:
        toy = Toy(treatments)
        first = toy.step()
        assert min(toy.step() for _ in range(6)) < first, treatments
        assert "+".join(toy.treated.treatments) == treatments


@every
@optimizers
def test_changes_the_weight(treatments: str, build: Build) -> None:
    """Pull towards 0 from singular values above 1, so that every rule finds a rate below 0.3."""
    weights = []
    for names in (treatments, ""):
        toy = Toy(names, partial(build, lr=0.3))
        with torch.no_grad():
            toy.treated.parameter.mul_(4)
        for _ in range(3):
            toy.optimizer.zero_grad()
            pull = 5 * toy.treated.parameter.square().sum()
            (toy.loss() + toy.treated.penalty() + pull).backward()
            toy.optimizer.step()
        weights.append(toy.treated.weight())
    treated, plain = weights
    assert treated.shape != plain.shape or (treated - plain).norm() > 1e-3 * plain.norm()


@every
@optimizers
def test_state_dict_round_trip(treatments: str, build: Build) -> None:
    toy, other = Toy(treatments, build), Toy(treatments, build, seed=7)
    toy.step()
    other.model.load_state_dict(copy.deepcopy(toy.model.state_dict()))
    other.optimizer.load_state_dict(copy.deepcopy(toy.optimizer.state_dict()))
    assert [toy.step(), toy.step()] == [other.step(), other.step()]
    assert_same(toy.state(), other.state())
    assert torch.equal(toy.treated.weight(), other.treated.weight())


@every
def test_remove_leaves_a_plain_layer_of_the_same_map(treatments: str) -> None:
    toy = Toy(treatments)
    toy.step()
    toy.model.eval()
    before, last = toy.model(toy.images).detach(), toy.treated.last
    layer = toy.treated.remove()
    assert type(layer) is nn.Conv2d and layer is toy.model[0] and not is_parametrized(layer)
    torch.testing.assert_close(toy.model(toy.images).detach(), before, rtol=1e-12, atol=1e-12)
    toy.step()
    assert toy.treated.last is last and toy.treated.penalty() == 0 and not toy.treated.treatments
    weight = layer.weight.detach().clone()
    toy.optimizer = SGD(toy.model.parameters(), lr=0.1)
    toy.step()
    expected = weight - 0.1 * layer.weight.grad
    torch.testing.assert_close(layer.weight.detach(), expected, rtol=1e-12, atol=1e-15)


@every
def test_two_micro_batches_give_the_step_of_one_batch(treatments: str) -> None:
    whole, split = Toy(treatments), Toy(treatments)
    whole.model.eval()  # in training each forward pass moves a power iteration by one
    split.model.eval()
    for _ in range(3):
        whole.step()
        split.optimizer.zero_grad()
        (split.loss(slice(0, 8)) / 2).backward()
        (split.loss(slice(8, 16)) / 2 + split.treated.penalty()).backward()
        split.optimizer.step()
    assert_same(whole.state(), split.state(), ROUNDING)


@every
def test_treatment_is_applied_to_the_clipped_gradient(treatments: str) -> None:
    clipped, smaller = Toy(treatments), Toy(treatments)
    clipped.backward()
    norm = nn.utils.clip_grad_norm_(clipped.model.parameters(), 1e-2)
    clipped.optimizer.step()
    # Clipping is a smaller loss; torch adds 1e-6 to the norm.
    (1e-2 / (norm + 1e-6) * (smaller.loss() + smaller.treated.penalty())).backward()
    smaller.optimizer.step()
    assert_same(clipped.state(), smaller.state(), ROUNDING)


@every
@optimizers
@either
def test_a_loss_scale_changes_nothing(treatments: str, build: Build, fused: bool) -> None:
    states = []
    for enabled in (True, False):
        toy = Toy(treatments, partial(build, fused=fused))
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, enabled=enabled)
        for _ in range(3):
            toy.scaled_step(scaler, torch.bfloat16)
        states.append(toy.state())
    assert_same(*states, ROUNDING)


@every
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_trains_under_autocast_with_a_scaler(treatments: str, dtype: torch.dtype) -> None:
    toy = Toy(treatments, dtype=torch.float32)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)
    losses = [toy.scaled_step(scaler, dtype) for _ in range(30)]
    assert losses[-1] < 0.8 * losses[0]
    assert {t.dtype for t in toy.state().values()} == {torch.float32}


@every
def test_autocast_leaves_the_weight_and_the_penalty_in_full_precision(treatments: str) -> None:
    toy = Toy(treatments, dtype=torch.float32)
    toy.model.eval()  # reading the weight runs no power iteration
    weight, penalty = toy.treated.weight(), toy.treated.penalty()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(toy.treated.weight(), weight)
        assert torch.equal(toy.treated.penalty(), penalty)
        layer = toy.model[0]
        assert (layer.weight if hasattr(layer, "weight") else layer.kernel()).dtype == torch.float32


@every
def test_in_float32_the_weight_and_the_penalty_are_those_of_float64(treatments: str) -> None:
    toy = Toy(treatments, dtype=torch.float32)
    toy.model.eval()
    weight, penalty = toy.treated.weight().double(), toy.treated.penalty().double()
    toy.model.double()
    # sums of some hundred products, and ten terms of a series: far below bfloat16's 4e-3
    torch.testing.assert_close(weight, toy.treated.weight(), rtol=0, atol=1e-5)
    torch.testing.assert_close(penalty, toy.treated.penalty(), rtol=0, atol=1e-5)


@every
@either
def test_an_overflow_skips_the_step(treatments: str, fused: bool) -> None:
    toy = Toy(treatments, partial(OPTIMIZERS["sgd"], fused=fused))
    before = {name: p.detach().clone() for name, p in toy.model.named_parameters()}
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    (scaler.scale(toy.loss()) * 1e308).backward()
    scaler.step(toy.optimizer)
    assert_same(before, dict(toy.model.named_parameters()))
    assert toy.treated.last is None or not toy.treated.last.finite


@every
@optimizers
def test_a_step_equals_a_plain_step_at_the_recorded_rate(treatments: str, build: Build) -> None:
    """Compare with a run that sets the recorded rates in its parameter group, with a scheduler."""
    toy = Toy(treatments, build)
    others = [
        name
        for name in toy.treated.treatments
        if TREATMENTS[name].acts_on != "step" or name == "muon"  # it records no rate
    ]
    plain = Toy(others, lambda p: build([{"params": [q]} for q in p]))
    group = next(
        g for g in plain.optimizer.param_groups if g["params"][0] is plain.treated.parameter
    )
    start = toy.optimizer.param_groups[0]["lr"]
    scheduler = torch.optim.lr_scheduler.ExponentialLR(toy.optimizer, 0.9)
    for t in range(6):
        toy.step()
        (lr,) = (g["lr"] for g in toy.optimizer.param_groups)
        assert lr == pytest.approx(start * 0.9**t, rel=1e-12)  # the scheduler's own
        for other in plain.optimizer.param_groups:
            other["lr"] = lr
        last = toy.treated.last
        if last is not None and last.eta_used:
            group["lr"] = last.eta
        plain.step()
        scheduler.step()
    assert_same(toy.state(), plain.state(), ROUNDING)


@every
@optimizers
def test_groups_and_accelerate_change_nothing(treatments: str, build: Build) -> None:
    one = Toy(treatments, build)
    many = Toy(treatments, lambda p: build([{"params": [q]} for q in p]))
    wrapped = Toy(treatments, lambda p: Accelerator(cpu=True).prepare(build(p)))
    for _ in range(3):
        assert one.step() == many.step() == wrapped.step()
    assert_same(one.state(), many.state())
    assert_same(one.state(), wrapped.state())


def test_two_processes_give_the_result_of_one(tmp_path: Path) -> None:
    """Run DDP with another seed in each process: it takes rank 0's weights and mean gradients."""
    first, second = in_processes(tmp_path, treated_steps, EACH)
    for treatments in EACH:
        assert_same(first[treatments], second[treatments])
        toy = Toy(treatments)
        for _ in range(3):
            toy.step()
        assert_same(first[treatments], toy.state(), ROUNDING)
    assert first.keys() == {*EACH}


@pytest.mark.parametrize("treatments", [n for n in TREATMENTS if n not in ("ow", "ow-conv")])
def test_a_linear_layer_can_be_treated(treatments: str) -> None:
    images, labels = batch()
    model = network()
    treated = oc.treat(model, "4", treatments)
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    treated.bind(optimizer)
    losses = []
    for _ in range(10):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(images), labels)
        (loss + treated.penalty()).backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
