"""Muon's step, against torch.optim.Muon and numpy's SVD of the plain optimizer's displacement."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW, Optimizer
from toys import OPTIMIZERS, Toy, assert_same, network

import orthocond as oc
from orthocond.treatments.muon import orthogonal_displacement

MORE: dict[str, Callable[..., Optimizer]] = {
    **OPTIMIZERS,
    "nesterov": partial(SGD, lr=0.2, momentum=0.9, nesterov=True, weight_decay=5e-3),
    "dampened": partial(SGD, lr=0.2, momentum=0.9, dampening=0.5),
    "ascent": partial(SGD, lr=0.05, maximize=True),
    "foreach": partial(SGD, lr=0.2, momentum=0.9, foreach=True),
    "fused": partial(SGD, lr=0.2, momentum=0.9, weight_decay=5e-3, fused=True),
    "fused adamw": partial(AdamW, lr=0.02, weight_decay=0.1, fused=True),
    "rmsprop": partial(torch.optim.RMSprop, lr=0.01),
}


def polar(D: torch.Tensor) -> np.ndarray:
    U, _, Vh = np.linalg.svd(D.flatten(1).numpy(), full_matrices=False)
    return U @ Vh


@pytest.mark.parametrize("build", MORE.values(), ids=MORE)
@pytest.mark.parametrize("gradient", ["", "nog", "rescale"])
def test_a_step_is_the_polar_factor_of_the_optimizers_own(
    build: Callable[..., Optimizer], gradient: str
) -> None:
    """Take the optimizer's own step from a copy of the model and of the optimizer's state."""
    toy = Toy([*gradient.split(), "muon"], build)
    plain = Toy(gradient, build)
    for _ in range(4):
        plain.model.load_state_dict(toy.model.state_dict())
        plain.optimizer.load_state_dict(copy.deepcopy(toy.optimizer.state_dict()))
        old = toy.treated.weight()
        toy.step()
        plain.step()
        lr = toy.optimizer.param_groups[0]["lr"]
        expected = lr * polar(plain.treated.weight() - old)  # 8 x 27: wide
        assert np.allclose((toy.treated.weight() - old).numpy(), expected, rtol=0, atol=1e-9)
        for name in ("bias", "4.weight"):  # the other parameters take the optimizer's step
            other, mine = (
                {n: p for n, p in t.model.named_parameters() if n.endswith(name)}
                for t in (plain, toy)
            )
            assert_same(other, mine)
    last = toy.treated.last
    assert last.finite and last.eta is None and last.eta_used is None


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (5, 5)])
def test_it_is_torchs_muon_for_a_linear_layer(shape: tuple[int, int]) -> None:
    """Compare with torch.optim.Muon, given an iteration that converges, for one step."""
    moves = []
    for muon in (False, True):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(shape[1], shape[0], bias=False))
        if muon:
            # x (15 - 10 x^2 + 3 x^4) / 8 has the limit 1
            limit = {"ns_steps": 40, "ns_coefficients": (15 / 8, -5 / 4, 3 / 8)}
            optimizer = torch.optim.Muon(model.parameters(), lr=0.05, weight_decay=0, **limit)
        else:
            optimizer = SGD(model.parameters(), lr=0.05, momentum=0.9)
            oc.treat(model, "0", "muon").bind(optimizer)
        x = torch.randn(32, shape[1], generator=torch.Generator().manual_seed(1))
        (model(x) - 4 * x @ torch.eye(shape[1], shape[0])).square().mean().backward()
        kappa = torch.linalg.cond(model[0].weight.grad).item()
        old = model[0].weight.detach().clone()
        optimizer.step()
        moves.append((model[0].weight.detach() - old) / 0.05)
    # It iterates in bfloat16: a relative error e of a matrix is one of e kappa of its polar factor.
    torch.testing.assert_close(*moves, rtol=0, atol=torch.finfo(torch.bfloat16).eps * kappa)
    assert kappa < 15


@pytest.mark.parametrize("shape", [(64, 27), (27, 64), (5, 5), (1, 7), (7, 1)])
@pytest.mark.parametrize("scale", [1e-30, 1e-8, 1.0, 1e30])
def test_the_length_does_not_depend_on_the_displacement(
    shape: tuple[int, int], scale: float
) -> None:
    D = scale * torch.randn(shape, generator=torch.Generator().manual_seed(0))
    s = torch.linalg.svdvals(orthogonal_displacement(D, 0.1))
    expected = 0.1 * max(1, shape[0] / shape[1]) ** 0.5
    torch.testing.assert_close(s, torch.full_like(s, expected), rtol=1e-5, atol=0)
    assert not orthogonal_displacement(0 * D, 0.1).any()


def test_a_null_space_of_the_displacement_does_not_move() -> None:
    D = torch.outer(torch.arange(1.0, 5.0), torch.ones(3)).double()
    s = torch.linalg.svdvals(orthogonal_displacement(D, 1.0))
    expected = torch.tensor([(4 / 3) ** 0.5, 0, 0], dtype=torch.float64)
    torch.testing.assert_close(s, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("other", [False, True], ids=["its gradient", "another gradient"])
def test_a_step_that_a_scaler_skips_moves_nothing(fused: bool, other: bool) -> None:
    """Overflow in the layer's own gradient, and in another one only: the whole step is skipped."""
    toy = Toy("muon", partial(SGD, lr=0.1, momentum=0.9, weight_decay=0.1, fused=fused))
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    toy.scaled_step(scaler, torch.bfloat16)
    before = toy.state()
    toy.optimizer.zero_grad()
    scaler.scale(toy.loss()).backward()
    overflown = toy.model[4].weight if other else toy.treated.parameter
    overflown.grad[0] = torch.inf
    scaler.step(toy.optimizer)
    scaler.update()
    assert_same(toy.state(), before)
    toy.scaled_step(scaler, torch.bfloat16)
    moved = (toy.treated.weight() - before["0.weight"].flatten(1)).numpy()
    assert np.allclose(np.linalg.svd(moved, compute_uv=False), 0.1, rtol=1e-9)


@pytest.mark.parametrize("why", ["rate 0", "no gradient", "gradient 0"])
def test_a_displacement_of_zero_stays(why: str) -> None:
    toy = Toy("muon", partial(SGD, lr=0.0 if why == "rate 0" else 0.1))
    before = toy.treated.weight()
    toy.backward()
    if why == "no gradient":
        toy.treated.parameter.grad = None
    elif why == "gradient 0":
        toy.treated.parameter.grad.zero_()
    toy.optimizer.step()
    assert torch.equal(toy.treated.weight(), before)


def test_a_displacement_that_is_not_finite_is_left_to_the_training_loop() -> None:
    toy = Toy("muon", partial(SGD, lr=0.1, momentum=0.9))
    toy.step()
    toy.optimizer.state[toy.treated.parameter]["momentum_buffer"][0] = torch.nan
    toy.step()
    assert toy.treated.weight()[0].isnan().all() and toy.treated.weight()[1:].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_weight_in_half_precision_takes_the_rounded_step(dtype: torch.dtype) -> None:
    model = network(dtype=torch.float32)[:1].to(dtype)
    treated = oc.treat(model, "0", "muon")
    optimizer = SGD(model.parameters(), lr=0.5)
    treated.bind(optimizer)
    old = treated.weight().double()
    model(torch.randn(4, 3, 8, 8).to(dtype)).float().square().sum().backward()
    optimizer.step()
    moved = (treated.weight().double() - old).numpy()
    s = np.linalg.svd(moved, compute_uv=False)
    assert np.allclose(s, 0.5, rtol=0, atol=8 * torch.finfo(dtype).eps) and treated.last.finite


def test_a_scheduler_sets_its_length_by_the_group() -> None:
    def groups(parameters: list[nn.Parameter]) -> Optimizer:
        first, *rest = parameters
        split: list[dict[str, Any]] = [{"params": [first], "lr": 0.3}, {"params": rest}]
        return SGD(split, lr=0.01, momentum=0.9)

    toy = Toy("muon", groups)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(toy.optimizer, 0.5)
    for t in range(3):
        old = toy.treated.weight()
        toy.step()
        scheduler.step()
        s = np.linalg.svd((toy.treated.weight() - old).numpy(), compute_uv=False)
        assert np.allclose(s, 0.3 * 0.5**t, rtol=1e-9)
