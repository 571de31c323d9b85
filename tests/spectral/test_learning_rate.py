"""The three learning-rate rules against brute force and autograd of the plain objective."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import orthocond as oc


def defect(eta: Tensor, W: Tensor, G: Tensor) -> Tensor:
    """Eq. 18, squared, as it is written."""
    V = W - eta * G
    return (V @ V.mT - torch.eye(len(V), dtype=V.dtype)).square().sum()


def pair(rows: int, columns: int, seed: int, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    W, G = torch.randn(2, rows, columns, dtype=torch.float64, generator=generator)
    return W, scale * G


shapes = st.tuples(st.integers(1, 7), st.integers(1, 7), st.integers(0, 999))


@given(shapes, st.sampled_from([1e-3, 1.0, 1e3]))
@settings(max_examples=60, deadline=None)
def test_exact_beats_a_dense_grid(shape, scale):
    W, G = pair(*shape, scale)
    best = oc.optimal_lr(W, G, "exact")
    grid = torch.linspace(-5, 5, 2001, dtype=torch.float64) / scale
    lowest = torch.vmap(lambda eta: defect(eta, W, G))(grid).min()
    assert defect(best, W, G) <= lowest * (1 + 1e-9) + 1e-9


@given(shapes, st.sampled_from([0.01, 0.1, 1.0]))
@settings(max_examples=60, deadline=None)
def test_exact_with_upper_is_the_best_of_the_interval(shape, upper):
    W, G = pair(*shape)
    best = oc.optimal_lr(W, G, "exact", upper=upper)
    assert 0 <= best <= upper
    grid = torch.linspace(0, upper, 1001, dtype=torch.float64)
    lowest = torch.vmap(lambda eta: defect(eta, W, G))(grid).min()
    assert defect(best, W, G) <= lowest * (1 + 1e-9) + 1e-9


@given(shapes)
@settings(max_examples=40, deadline=None)
def test_newton_is_newtons_step_on_the_objective(shape):
    W, G = pair(*shape)
    eta = torch.zeros((), dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(defect(eta, W, G), eta, create_graph=True)
    (curvature,) = torch.autograd.grad(slope, eta)
    step = oc.optimal_lr(W, G, "newton")
    # Rows and columns give objectives that differ by a constant: same slope, same curvature.
    assert step.isnan() if curvature <= 0 else torch.isclose(step, -slope / curvature)


@given(shapes)
@settings(max_examples=40, deadline=None)
def test_paper_is_newtons_step_on_the_fourth_power_of_the_norm(shape):
    W, G = pair(*shape)
    eta = torch.zeros((), dtype=torch.float64, requires_grad=True)
    fourth = (W - eta * G).square().sum().square()
    (slope,) = torch.autograd.grad(fourth, eta, create_graph=True)
    (curvature,) = torch.autograd.grad(slope, eta)
    assert torch.isclose(oc.optimal_lr(W, G), -slope / curvature)


def test_an_orthogonal_weight_has_nothing_to_gain():
    W = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64)).Q
    S = torch.randn(6, 6, dtype=torch.float64)
    G = (S + S.mT) @ W  # a direction with <G, W> that is not 0
    assert oc.optimal_lr(W, G, "exact", upper=0.1) == pytest.approx(0, abs=1e-7)
    assert abs(oc.optimal_lr(W, G, "paper")) > 1e-6  # eq. 20 does not know it


def test_proposition_1_has_tight_bounds_at_its_closed_form():
    n = 8
    Q = torch.eye(n, dtype=torch.float64)
    for t in range(-n, n + 1, 2):
        signs = torch.ones(n, dtype=torch.float64)
        signs[: (n - t) // 2] = -1
        eta = oc.optimal_lr(Q, torch.diag(signs))
        assert eta == pytest.approx(n * t / (n**2 + 2 * t**2))
        assert abs(eta) <= 1 / (2 * 2**0.5) + 1e-12
    # t = 0 and t < 0 are reached: the paper's lower bound 1 / (N^2 + 2) does not hold.


@pytest.mark.parametrize("rule", ["paper", "newton", "exact"])
def test_a_zero_gradient_has_a_defined_answer(rule):
    W = torch.randn(3, 5)
    eta = oc.optimal_lr(W, torch.zeros(3, 5), rule, upper=0.1)
    assert eta == (0 if rule == "exact" else 0.1)
    eta = oc.optimal_lr(W, torch.zeros(3, 5), rule)
    assert eta == 0 if rule == "exact" else eta.isnan()


def test_the_guard_keeps_paper_and_newton_inside_the_interval():
    W = torch.eye(3)
    assert oc.optimal_lr(W, -W, "paper", upper=0.1) == 0.1  # eta* < 0 would climb
    skew = torch.tensor([[0.0, 1.0, 2.0], [-1.0, 0.0, 3.0], [-2.0, -3.0, 0.0]])
    assert oc.optimal_lr(W, skew, "paper", upper=0.1) == 0.1  # eta* = 0 would stand still
    assert oc.optimal_lr(W, 100 * W, "paper", upper=0.1) == pytest.approx(1 / 300)


def test_bad_input_is_named():
    W = torch.eye(2)
    with pytest.raises(ValueError, match=r"unknown rule 'best'.*paper, newton, exact"):
        oc.optimal_lr(W, W, "best")
    with pytest.raises(ValueError, match=r"the same shape.*\(2, 2\) and \(3, 2\)"):
        oc.optimal_lr(W, torch.zeros(3, 2))


@pytest.mark.parametrize("rule", ["paper", "newton", "exact"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_what_is_not_finite_has_no_step(rule, value):
    W, G = torch.eye(2), torch.full((2, 2), value)
    assert oc.optimal_lr(W, G, rule).isnan()
    assert oc.optimal_lr(W, G, rule, upper=0.5) == 0.5
