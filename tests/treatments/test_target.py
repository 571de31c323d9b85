"""The tensor that OLR reads: the underlying parameter, or the effective weight."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD
from toys import Toy, assert_same, network

import orthocond as oc
from orthocond.errors import UserError
from orthocond.treatments.layer.effective import weight_and_derivative

RULES = {"olr": "paper", "olr-newton": "newton", "olr-exact": "exact"}
WEIGHTS = ["sn", "ow", "ow-stiefel"]


def derivative(toy: Toy, direction: Tensor, h: float = 1e-5) -> Tensor:
    """Return the central difference of the effective weight along a direction of the parameter."""
    parameter, ends = toy.treated.parameter, []
    old = parameter.detach().clone()
    for sign in (1, -1):
        with torch.no_grad():
            parameter.copy_(old + sign * h * direction)
        ends.append(toy.treated.weight())
    with torch.no_grad():
        parameter.copy_(old)
    return (ends[0] - ends[1]) / (2 * h)


@pytest.mark.parametrize("treatment", WEIGHTS)
def test_the_derivative_agrees_with_central_differences(treatment: str) -> None:
    toy = Toy(treatment)
    torch.manual_seed(3)
    direction = torch.randn_like(toy.treated.parameter)
    before = toy.state()
    W, G = weight_and_derivative(toy.treated.layer, toy.treated.parameter, direction.flatten(1))
    assert torch.equal(W, toy.treated.weight())
    # h^2 |d|^3 of the third derivative, and 1e-16 / h of rounding
    torch.testing.assert_close(G, derivative(toy, direction), rtol=1e-6, atol=1e-8)
    assert_same(before, toy.state())
    assert toy.treated.layer.training and not G.requires_grad


@pytest.mark.parametrize("treatment", WEIGHTS)
@pytest.mark.parametrize("rule", RULES)
def test_the_learning_rate_rule_uses_the_effective_weight(treatment: str, rule: str) -> None:
    toy = Toy(f"nog+{treatment}+{rule}", target="weight")
    toy.backward()
    W = toy.treated.weight()
    U, _, Vh = torch.linalg.svd(toy.treated.parameter.grad.flatten(1), full_matrices=False)
    G = derivative(toy, (U @ Vh).view_as(toy.treated.parameter))
    toy.optimizer.step()
    upper = toy.optimizer.param_groups[0]["lr"] if rule == "olr-exact" else None
    expected = oc.optimal_lr(W, G, RULES[rule], upper=upper).item()
    assert toy.treated.last.eta == pytest.approx(expected, rel=1e-4, abs=1e-5, nan_ok=True)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("others", ["", "nog", "ol"])
def test_without_a_weight_treatment_both_targets_give_the_same_rate(rule: str, others: str) -> None:
    names = [*others.split(), rule]
    parameter, weight = Toy(names), Toy(names, target="weight")
    for _ in range(3):
        parameter.step(), weight.step()
        eta = parameter.treated.last.eta
        assert weight.treated.last.eta == pytest.approx(eta, rel=0, nan_ok=True)
    assert_same(parameter.state(), weight.state())


@pytest.mark.parametrize("treatment", ["ow", "ow-stiefel"])
def test_an_orthogonal_weight_needs_no_step(treatment: str) -> None:
    """Check that eta is 0: eq. 18 is 0 there, and grows as eta^4 |G G^T|^2 for a tangent G."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(6, 6, 1, bias=False)).double()
    treated = oc.treat(model, "0", f"{treatment}+olr-exact", target="weight")
    optimizer = SGD(model.parameters(), lr=0.1)
    treated.bind(optimizer)
    W = treated.weight()
    torch.testing.assert_close(W @ W.mT, torch.eye(6).double(), rtol=0, atol=1e-13)
    x = torch.randn(4, 6, 5, 5, dtype=torch.float64)
    (model(x) * torch.randn_like(x)).sum().backward()
    _, G = weight_and_derivative(treated.layer, treated.parameter, treated.parameter.grad)
    optimizer.step()
    # Rounding of 1e-15 in W W^T - I makes a slope of 1e-15 |G|, met by 4 eta^3 |G G^T|^2.
    bound = (1e-15 * G.norm() / (G @ G.mT).square().sum()) ** (1 / 3)
    assert treated.last.eta < 10 * bound < 1e-3
    # For a tangent <W, G> = 0: the paper's rule finds 0 too, up to rounding.
    assert abs(oc.optimal_lr(W, G, "paper")) < 1e-13


def test_with_a_weight_treatment_the_two_targets_give_different_rates() -> None:
    parameter, weight = (Toy("nog+ow+olr", target=target) for target in ("parameter", "weight"))
    parameter.step(), weight.step()
    assert parameter.treated.last.eta != pytest.approx(weight.treated.last.eta, rel=0.01)


def test_a_rate_of_zero_is_no_step() -> None:
    """Take the first step of a warm-up, which has rate 0."""
    toy = Toy("nog+ow+olr-exact", partial(SGD, lr=0.0), target="weight")
    before = dict(toy.treated.layer.named_parameters())["filter"].detach().clone()
    toy.step()
    assert torch.equal(toy.treated.parameter.detach(), before)
    assert not toy.treated.last.eta_used


def test_an_unknown_target_is_refused() -> None:
    with pytest.raises(
        UserError, match="unknown target 'wieght': allowed are parameter, weight; d"
    ):
        oc.treat(network(), "0", "ow+olr", target="wieght")
