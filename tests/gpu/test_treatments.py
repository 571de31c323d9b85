"""Treatments on CUDA: the CPU's steps, fused optimizers, and float16 under a loss scale."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from toys import OPTIMIZERS, Build, Toy, assert_same, either, every, network, optimizers

import orthocond as oc

pytestmark = pytest.mark.gpu

ROUNDING = 1e-10  # as in tests/treatments/test_conformance.py


@every
@optimizers
@either
def test_three_steps_are_the_cpus(
    treatments: str, build: Build, fused: bool, device: torch.device
) -> None:
    ours = Toy(treatments, partial(build, fused=fused), device=device)
    cpu = Toy(treatments, build)
    for _ in range(3):
        assert ours.step() == pytest.approx(cpu.step(), rel=ROUNDING)
    states = [{name: t.cpu() for name, t in toy.state().items()} for toy in (ours, cpu)]
    assert_same(*states, ROUNDING)


@every
def test_a_model_that_is_on_the_device_is_treated_there(
    treatments: str, device: torch.device
) -> None:
    model = network().to(device)
    treated = oc.treat(model, "0", treatments)
    assert {t.device.type for t in model.state_dict().values()} == {device.type}
    assert treated.weight().device.type == treated.penalty().device.type == device.type


@every
@optimizers
@either
def test_a_loss_scale_changes_nothing(
    treatments: str, build: Build, fused: bool, device: torch.device
) -> None:
    states = []
    for enabled in (True, False):
        toy = Toy(treatments, partial(build, fused=fused), device=device)
        scaler = torch.amp.GradScaler(device.type, init_scale=2.0**10, enabled=enabled)
        for _ in range(3):
            toy.scaled_step(scaler, torch.bfloat16)
        states.append(toy.state())
    assert_same(*states, ROUNDING)


@every
@either
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_trains_under_autocast_with_a_scaler(
    treatments: str, fused: bool, dtype: torch.dtype, device: torch.device
) -> None:
    toy = Toy(
        treatments, partial(OPTIMIZERS["sgd"], fused=fused), dtype=torch.float32, device=device
    )
    scaler = torch.amp.GradScaler(device.type, init_scale=2.0**8)
    losses = [toy.scaled_step(scaler, dtype) for _ in range(30)]
    assert losses[-1] < 0.8 * losses[0]
    assert {t.dtype for t in toy.state().values()} == {torch.float32}


@every
@either
def test_an_overflow_skips_the_step(treatments: str, fused: bool, device: torch.device) -> None:
    toy = Toy(treatments, partial(OPTIMIZERS["sgd"], fused=fused), device=device)
    before = {name: p.detach().clone() for name, p in toy.model.named_parameters()}
    scaler = torch.amp.GradScaler(device.type, init_scale=2.0**10)
    (scaler.scale(toy.loss()) * 1e308).backward()
    scaler.step(toy.optimizer)
    assert_same(before, dict(toy.model.named_parameters()))
    assert toy.treated.last is None or not toy.treated.last.finite
