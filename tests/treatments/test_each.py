"""Tests of each treatment's effect on one step, against its definition."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import SGD
from toys import Toy

import orthocond as oc
from orthocond.treatments import TREATMENTS, Options, Step

PLAIN = partial(SGD, lr=0.1)


def gradients(treatments: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the stem's gradient before the step, and the gradient that the optimizer got."""
    toy = Toy(treatments, PLAIN)
    toy.backward()
    before = toy.treated.parameter.grad.flatten(1).clone().numpy()
    toy.optimizer.step()
    return before, toy.treated.parameter.grad.flatten(1).numpy()


def test_nog_takes_the_singular_vectors_only() -> None:
    before, after = gradients("nog")
    U, _, Vh = np.linalg.svd(before, full_matrices=False)
    assert np.allclose(after, U @ Vh, rtol=0, atol=1e-10)


def test_rescale_keeps_the_direction_and_takes_nogs_norm() -> None:
    before, after = gradients("rescale")
    assert np.allclose(after, before * np.sqrt(8) / np.linalg.norm(before), rtol=1e-14)
    assert np.linalg.norm(after) == pytest.approx(np.linalg.norm(gradients("nog")[1]), rel=1e-12)


@pytest.mark.parametrize(
    "treatments", ["nog+olr", "rescale+olr-newton", "olr-exact", "slow", "muon"]
)
def test_a_gradient_of_zero_stays_and_one_that_is_not_finite_is_left_alone(treatments: str) -> None:
    toy = Toy(treatments, PLAIN)
    toy.backward()
    toy.treated.parameter.grad.zero_()
    old = toy.treated.parameter.detach().clone()
    toy.optimizer.step()
    assert torch.equal(toy.treated.parameter.detach(), old) and toy.treated.last.finite
    toy.treated.parameter.grad[0, 0, 0, 0] = float("nan")
    gradient = toy.treated.parameter.grad.clone()
    toy.optimizer.step()
    assert torch.equal(toy.treated.parameter.grad.nan_to_num(7), gradient.nan_to_num(7))
    last = toy.treated.last
    assert last.finite is False and last.eta is None
    assert np.isnan(last.gradient_kappa_before) and np.isnan(last.gradient_kappa_after)
    toy.optimizer.zero_grad()
    toy.optimizer.step()  # without a gradient there is nothing to treat


def test_slow_is_a_tenth_of_the_rate() -> None:
    toy = Toy("slow", PLAIN)
    old = toy.treated.parameter.detach().clone()
    toy.step()
    expected = old - 0.01 * toy.treated.parameter.grad
    torch.testing.assert_close(toy.treated.parameter.detach(), expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize(("rule", "name"), [("paper", "olr"), ("newton", "olr-newton")])
def test_olr_uses_its_rate_only_between_zero_and_the_learning_rate(rule: str, name: str) -> None:
    """Check that eta is used if 0 < eta < lr, and recorded in either case."""
    branches = set()
    for seed in range(6):
        toy = Toy(name, PLAIN, seed=seed)
        with torch.no_grad():
            toy.treated.parameter.mul_(3)
        W = toy.treated.parameter.detach().clone()
        pull = toy.treated.parameter.square().sum() * (seed - 2)  # from either side of zero
        (toy.loss() + pull).backward()
        toy.optimizer.step()
        G = toy.treated.parameter.grad
        eta = oc.optimal_lr(W, G, rule).item()
        used = 0 < eta < 0.1
        assert toy.treated.last.eta == pytest.approx(eta, nan_ok=True)
        assert toy.treated.last.eta_used is used
        expected = W - (eta if used else 0.1) * G
        torch.testing.assert_close(toy.treated.parameter.detach(), expected, rtol=1e-13, atol=1e-13)
        branches.add(used)
    assert branches == {True, False}


def test_the_guard_of_olr_is_open_at_both_ends() -> None:
    """Test eta = 0 from <W, G> = 0, and eta = 1/3 from G = W: neither is inside (0, 1/3)."""
    W, turn = torch.eye(2).double(), torch.tensor([[0.0, 1.0], [-1.0, 0.0]]).double()
    lr = oc.optimal_lr(W, W).item()
    for G, eta in ((turn, 0.0), (W, lr)):
        step = Step(W, G, lr)
        TREATMENTS["olr"](Options()).on_step(step)
        assert step.eta == eta and step.rate is None


def test_olr_exact_leaves_the_rate_where_none_below_it_is_better() -> None:
    """Use W = I / 2 and G = -W: the distance to an orthogonal matrix falls until eta = 1."""
    W = torch.eye(2).double() / 2
    for lr, rate in ((0.5, None), (2.0, 1.0)):
        step = Step(W, -W, lr)
        TREATMENTS["olr-exact"](Options()).on_step(step)
        assert step.eta == pytest.approx(rate or lr) and step.rate == pytest.approx(rate)


def test_the_step_record_has_condition_numbers_of_the_gradient() -> None:
    toy = Toy("nog", PLAIN)
    assert toy.treated.last is None
    toy.backward()
    kappa = np.linalg.cond(toy.treated.parameter.grad.flatten(1).numpy())
    toy.optimizer.step()
    assert toy.treated.last.gradient_kappa_before == pytest.approx(kappa, rel=1e-9)
    assert toy.treated.last.gradient_kappa_after == pytest.approx(1, rel=1e-9)
    assert toy.treated.last.eta is None and toy.treated.last.eta_used is None


def test_sn_has_a_largest_singular_value_of_one() -> None:
    toy = Toy("sn")
    for _ in range(200):
        toy.model(toy.images)
    assert np.linalg.norm(toy.treated.weight().numpy(), 2) == pytest.approx(1, rel=1e-6)


def test_reading_the_weight_keeps_the_training_flags_inside_of_the_layer() -> None:
    model = nn.Sequential(nn.Linear(4, 3))
    treated = oc.treat(model, "0", "sn")
    model[0].parametrizations.eval()  # holds the power iteration
    flags = [module.training for module in model.modules()]
    treated.weight()
    assert [module.training for module in model.modules()] == flags
    assert flags[:2] == [True, True] and not any(flags[2:])


@pytest.mark.parametrize("treatments", ["sn", "ow", "ow-stiefel", "ow-conv"])
def test_remove_keeps_the_present_weight_in_training_mode_too(treatments: str) -> None:
    toy = Toy(treatments)
    toy.step()
    weight = toy.treated.weight()
    layer = toy.treated.remove()
    torch.testing.assert_close(layer.weight.detach().flatten(1), weight, rtol=0, atol=1e-15)


@pytest.mark.parametrize("treatment", ["sn", "ow", "ow-stiefel", "ow-conv"])
@pytest.mark.parametrize("bias", [True, False])
def test_a_weight_treatment_gives_and_takes_no_bias(treatment: str, bias: bool) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, bias=bias))
    treated = oc.treat(model, "0", treatment)
    assert (model[0].bias is not None) is bias
    treated.remove()
    assert (model[0].bias is not None) is bias


@pytest.mark.parametrize("shape", [(8, 3, 3, 3), (8, 3, 1, 1), (4, 12, 1, 1)])
def test_ow_stiefel_stays_orthonormal_under_weight_decay(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(shape[1], shape[0], shape[2], bias=False)).double()
    treated = oc.treat(model, "0", "nog+ow-stiefel")
    optimizer = SGD(model.parameters(), lr=0.3, momentum=0.9, weight_decay=1e-2)
    treated.bind(optimizer)
    images = torch.randn(4, shape[1], 6, 6, dtype=torch.float64)
    for _ in range(20):
        optimizer.zero_grad()
        (model(images) * images.sum()).sin().mean().backward()
        optimizer.step()
    singular = np.linalg.svd(treated.weight().numpy(), compute_uv=False)
    assert np.allclose(singular, 1, rtol=0, atol=1e-12)


@pytest.mark.parametrize("other", ["", "sn", "ow", "ow-stiefel", "ow-conv"])
def test_ol_is_the_norm_of_eq_12(other: str) -> None:
    toy = Toy(["ol", *other.split()])
    toy.model.eval()
    W = toy.treated.weight().numpy()
    expected = 0.05 * np.linalg.norm(W @ W.T - np.eye(8))
    assert toy.treated.penalty().item() == pytest.approx(expected, rel=1e-12)
    assert Toy("nog+olr").treated.penalty() == 0


def test_the_default_weight_of_ol_is_1e_4() -> None:
    model = nn.Sequential(nn.Linear(3, 5, dtype=torch.float64))
    W = model[0].weight.detach().numpy()
    expected = 1e-4 * np.linalg.norm(W @ W.T - np.eye(5))
    assert oc.treat(model, "0", "ol").penalty().item() == pytest.approx(expected, rel=1e-12)
