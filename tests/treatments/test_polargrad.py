"""PolarGrad against numpy's SVD, as steepest descent, and in steps that nest."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch.optim import SGD
from toys import OPTIMIZERS, Toy, assert_same

from orthocond.treatments.polargrad import polar_gradient


@pytest.mark.parametrize("build", [partial(SGD, lr=0.1), partial(SGD, lr=0.1, fused=True)])
def test_the_optimizer_gets_the_polar_factor_times_the_nuclear_norm(build: Any) -> None:
    toy = Toy("polargrad", build)
    toy.backward()
    G = toy.treated.parameter.grad.flatten(1).clone().numpy()
    old = toy.treated.weight().numpy()
    toy.optimizer.step()
    U, s, Vh = np.linalg.svd(G, full_matrices=False)
    assert np.allclose(toy.treated.parameter.grad.flatten(1).numpy(), s.sum() * (U @ Vh), rtol=1e-9)
    moved = toy.treated.weight().numpy() - old
    assert np.allclose(moved, -0.1 * s.sum() * (U @ Vh), rtol=1e-8, atol=1e-12)
    last = toy.treated.last
    assert last.gradient_kappa_before == pytest.approx(s[0] / s[-1], rel=1e-9)
    assert last.gradient_kappa_after == pytest.approx(1, rel=1e-9)
    assert last.eta is None and last.eta_used is None


@pytest.mark.parametrize("shape", [(64, 27), (27, 64), (5, 5), (1, 7), (7, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_vanishes_in_proportion_to_the_gradient(
    shape: tuple[int, int], dtype: torch.dtype
) -> None:
    G = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    one = polar_gradient(G)
    for scale in (2.0**-60, 2.0**20):
        torch.testing.assert_close(polar_gradient(scale * G), scale * one, rtol=1e-4, atol=0)
    assert not polar_gradient(0 * G).any() and one.dtype == dtype


def test_a_null_space_stays_at_zero() -> None:
    G = torch.outer(torch.arange(1.0, 5.0), torch.ones(3)).double()
    torch.testing.assert_close(polar_gradient(G), G)  # of rank one: it is its own result


def test_it_is_the_steepest_descent_in_the_spectral_norm() -> None:
    """Compare <G, D> + |D|_2^2 / 2 at D = -result with D near it, and with its closed form."""
    generator = torch.Generator().manual_seed(0)
    G = torch.randn(5, 7, generator=generator, dtype=torch.float64)

    def model(D: torch.Tensor) -> float:
        return ((G * D).sum() + torch.linalg.matrix_norm(D, 2) ** 2 / 2).item()

    best = -polar_gradient(G)
    least = model(best)
    assert least == pytest.approx(-(torch.linalg.svdvals(G).sum().item() ** 2) / 2, rel=1e-12)
    for size in (1e-3, 0.1, 3.0):
        for _ in range(20):
            other = torch.randn(5, 7, generator=generator, dtype=torch.float64)
            assert model(best + size * other) > least


class Nested(SGD):
    """An optimizer whose step calls the step of its base class: the hooks run twice."""

    def step(self, closure: Any = None) -> Any:
        return super().step(closure)


@pytest.mark.parametrize("treatments", ["polargrad", "nog", "polargrad+olr", "polargrad+muon"])
@pytest.mark.parametrize("closed", [False, True], ids=["plain", "closure"])
def test_a_step_inside_a_step_treats_the_gradient_once(treatments: str, closed: bool) -> None:
    settings = {"lr": 0.02, "momentum": 0.9}
    plain, nested = (Toy(treatments, partial(kind, **settings)) for kind in (SGD, Nested))
    calls = []
    handle = nested.optimizer.register_step_pre_hook(lambda *_: calls.append(1))
    for _ in range(3):
        plain.step()
        if closed:
            nested.optimizer.step(nested.backward)
        else:
            nested.step()
        same = nested.treated.last.gradient_kappa_before
        assert same == pytest.approx(plain.treated.last.gradient_kappa_before, rel=1e-9)
    handle.remove()
    assert len(calls) == 6  # both classes ran the hooks
    assert_same(plain.state(), nested.state(), 1e-12)


@pytest.mark.parametrize("build", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_two_steps_on_one_gradient_treat_it_once(build: Any) -> None:
    toy = Toy("polargrad", build)
    toy.backward()
    toy.optimizer.step()
    gradient = toy.treated.parameter.grad.clone()
    kappa = toy.treated.last.gradient_kappa_before
    toy.optimizer.step()
    assert torch.equal(toy.treated.parameter.grad, gradient)
    assert toy.treated.last.gradient_kappa_before == kappa > 1.1
    toy.step()
    assert not torch.equal(toy.treated.parameter.grad, gradient)


def test_the_hooks_follow_a_model_to_another_dtype() -> None:
    toy = Toy("polargrad", partial(SGD, lr=0.01))
    toy.step()
    toy.model.float()
    toy.images = toy.images.float()
    toy.step()
    assert toy.treated.last.gradient_kappa_after == pytest.approx(1, rel=1e-4)
