"""The minimax iteration: its coefficients, its accuracy beside eigh's, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import scipy.optimize
import torch
from reference import by_condition, derivative, spectrum
from torch import Tensor

import orthocond as oc
from orthocond.errors import DecompositionError, UserError
from orthocond.spectral import minimax
from orthocond.spectral.eigh import Outcome
from orthocond.spectral.roots import root

ROOTS = [oc.matrix_sqrt, oc.matrix_inv_sqrt]
EPS = torch.finfo(torch.float64).eps


def value_and_gradient(matrix_root, P: Tensor, g: Tensor, solver: str) -> tuple[Tensor, Tensor]:
    P = P.clone().requires_grad_()
    F = matrix_root(P, solver=solver)
    return F.detach(), torch.autograd.grad(F, P, g)[0]


def interval(condition: float) -> tuple[float, float]:
    """The interval of the first step."""
    return (minimax.SCALE * condition) ** -0.5, 1.0


@pytest.mark.parametrize("condition", [1.0, 1e2, 1e6, 1e12])
def test_each_step_is_the_best_quintic_on_its_interval(condition: float) -> None:
    """A linear program on a grid finds the smallest error; the next interval is the image."""
    l, u = interval(condition)
    for a, b, c in minimax.schedule(condition)[:3]:
        x = np.concatenate([np.geomspace(l, u, 400), np.linspace(l, u, 400)])
        powers = np.stack([x, x**3, x**5], axis=1)
        error = np.abs(powers @ [a, b, c] - 1).max()
        program = scipy.optimize.linprog(  # minimise e with |p(x) - 1| <= e
            [0, 0, 0, 1],
            np.block([[powers, -np.ones((800, 1))], [-powers, -np.ones((800, 1))]]),
            np.concatenate([np.ones(800), -np.ones(800)]),
            bounds=[(None, None)] * 4,
            method="highs",
        )
        assert error <= program.fun * (1 + 1e-3) + 1e-9  # the grid misses a little of the maximum
        l = a * l + b * l**3 + c * l**5
        assert l == pytest.approx(1 - error, abs=1e-4)
        u = 2 - l


@pytest.mark.parametrize("condition", [1.0, 1.01, 7.0, 1e3, 1e6, 1e9, 1e12])
def test_the_steps_take_the_whole_interval_to_one(condition: float) -> None:
    x = np.geomspace(*interval(condition), 1001)
    for a, b, c in minimax.schedule(condition):
        x = x * (a + b * x**2 + c * x**4)
    assert np.abs(x - 1).max() <= 8 * EPS
    assert minimax.schedule(condition)[-1] == pytest.approx(minimax.LIMIT, abs=1e-2)


@pytest.mark.parametrize("matrix_root", ROOTS)
@pytest.mark.parametrize("kappa", [1.0, 1e2, 1e4, 1e6])
@pytest.mark.parametrize("d", [1, 2, 33, 64])
def test_it_is_as_accurate_as_eigh(matrix_root, kappa: float, d: int) -> None:
    P = torch.stack([by_condition(d, kappa, scale, seed=d) for scale in (1e-12, 1.0, 1e12)])
    g = spectrum(torch.linspace(-1, 2, d), seed=1) + torch.triu(torch.ones(d, d).double())
    F, gradient = value_and_gradient(matrix_root, P, g.expand_as(P), "minimax")
    expected, slope = value_and_gradient(matrix_root, P, g.expand_as(P), "eigh")
    for i in range(3):
        assert torch.dist(F[i], expected[i]) <= 1e-10 * expected[i].norm()
        assert torch.dist(gradient[i], slope[i]) <= 1e-9 * slope[i].norm()


@pytest.mark.parametrize("matrix_root", ROOTS)
@pytest.mark.parametrize("kappa", [1e8, 1e10, 1e11])
def test_above_the_first_condition_number_a_function_takes_more_steps(matrix_root, kappa) -> None:
    P, g = by_condition(24, kappa), spectrum(torch.linspace(-1, 2, 24), seed=1)
    ours = value_and_gradient(matrix_root, P, g, "minimax")
    for a, b in zip(ours, value_and_gradient(matrix_root, P, g, "eigh"), strict=True):
        assert torch.dist(a, b) <= 24 * EPS * kappa * b.norm()  # what both lose to rounding


@pytest.mark.parametrize("matrix_root", ROOTS)
@pytest.mark.parametrize("values", [[3, 2, 1], [2, 2, 1], [1, 1, 1], [1 + 1e-9, 1, 0.5]])
def test_gradients_at_equal_near_and_spread_eigenvalues(matrix_root, values) -> None:
    P = spectrum(values).requires_grad_()
    assert torch.autograd.gradcheck(lambda P: matrix_root((P + P.mT) / 2, "minimax"), P)


@pytest.mark.parametrize("matrix_root", ROOTS)
def test_gradients_are_those_of_scipys_root(matrix_root) -> None:
    def plain(P: Tensor) -> Tensor:
        R = torch.from_numpy(scipy.linalg.sqrtm(P.numpy()).real)
        return R if matrix_root is oc.matrix_sqrt else torch.linalg.inv(R)

    P, g, direction = spectrum([16, 4, 1]), spectrum([1, 2, 3], 1), spectrum([1, -1, 2], 2)
    _, gradient = value_and_gradient(matrix_root, P, g, "minimax")
    slope = derivative(lambda P: (plain(P) * g).sum(), P, direction, 1e-4)
    assert (gradient * direction).sum().item() == pytest.approx(slope.item(), rel=1e-7)


def test_more_steps_than_needed_change_only_the_rounding() -> None:
    P = by_condition(16, 1e4).expand(1, 16, 16)
    few = minimax.iterate(P, minimax.schedule(1e4))
    for steps in (minimax.schedule(1e12), minimax.schedule(1e4) + (minimax.LIMIT,) * 20):
        more = minimax.iterate(P, steps)
        assert more[-1] < 1e-12
        for a, b in zip(more[:-1], few[:-1], strict=True):
            assert torch.dist(a, b) <= 1e-11 * b.norm()


@pytest.mark.parametrize("scale", [1e-300, 1e-160, 1e160, 1e300])
def test_neither_overflows_nor_underflows(scale: float) -> None:
    P = spectrum([4.0, 1.0, 0.25])
    Q = oc.matrix_sqrt(P * scale, "minimax")
    torch.testing.assert_close(Q / scale**0.5, oc.matrix_sqrt(P), rtol=1e-12, atol=1e-12)


def test_shapes_and_dtypes_are_those_of_the_argument() -> None:
    P = torch.eye(3).repeat(2, 4, 1, 1).mul(4).requires_grad_()
    F = oc.matrix_sqrt(P, "minimax")
    F.sum().backward()
    assert F.shape == (2, 4, 3, 3) and F.dtype == P.grad.dtype == torch.float32
    torch.testing.assert_close(F, 2 * torch.eye(3).expand_as(F))
    assert oc.matrix_inv_sqrt(torch.zeros(0, 3, 3), "minimax").shape == (0, 3, 3)
    assert oc.matrix_sqrt(4 * torch.eye(2, dtype=torch.bfloat16), "minimax").dtype is torch.bfloat16


@pytest.mark.parametrize("matrix_root", ROOTS)
@pytest.mark.parametrize(
    "P",
    [
        torch.zeros(2, 2),
        torch.diag(torch.tensor([1.0, 0.0])),
        torch.diag(torch.tensor([1.0, -0.1])),
        torch.diag(torch.tensor([-1.0, -0.1])),
        torch.diag(torch.tensor([1.0, 1e-14])),
        torch.tensor([[1.0, float("nan")], [0.0, 1.0]]),
        torch.tensor([[float("inf"), 0.0], [0.0, 1.0]]),
    ],
)
def test_a_matrix_without_an_exact_root_is_named(matrix_root, P: Tensor) -> None:
    with pytest.raises(
        DecompositionError,
        match=r"^the iteration failed on 1 of 2 matrices: they hold NaN or Inf, are singular or "
        r"indefinite, or have a condition number above 1e\+12; pass eps > 0, which is added to the "
        r"diagonal, or use 'eigh'$",
    ):
        matrix_root(torch.stack([torch.eye(2), P]), "minimax")
    if P.diagonal().ge(0).all() and P.isfinite().all():
        assert matrix_root(P, "minimax", eps=1e-3).isfinite().all()


@pytest.mark.parametrize("power", ["sqrt", "inv_sqrt"])
def test_for_layers_a_miss_is_recorded_and_its_neighbours_are_exact(power: str) -> None:
    values = [[1.0, 1.0], [1.0, 1e-3], [1.0, 1e-9], [1.0, 0.0], [1.0, -1e-9], [1.0, -0.5]]
    P = torch.stack([*map(spectrum, values), torch.full((2, 2), float("nan")).double()])
    P.requires_grad_()
    F, outcome = root(P, power, solver="minimax", condition=1e6)
    F.sum().backward()
    assert P.grad is not None and F.isfinite().all() and P.grad.isfinite().all()
    O, I, X = Outcome.OK, Outcome.INEXACT, Outcome.FAILED
    assert outcome.dtype == torch.int8 and outcome[:5].tolist() == [O, O, I, I, I]
    assert outcome[5] in (I, X) and outcome[6] == X
    assert F[6].eq(0).all() and P.grad[6].eq(0).all()
    exact = root(P, power)[0]
    assert torch.dist(F[:2], exact[:2]) < 1e-12 * exact[:2].norm()
    if power == "sqrt":  # off by no more than the root of the smallest eigenvalue
        assert (F[2:5] - exact[2:5]).norm(dim=(-2, -1)).max() < 4e-5
    else:  # a small eigenvalue's root grows by a factor a in each step, a negative one's by more
        largest = np.prod([a for a, _, _ in minimax.schedule(1e6)])
        assert torch.linalg.eigvalsh(F[2:5]).max() < 2 * largest


@pytest.mark.parametrize("condition", [0.5, 1e13, float("nan"), float("inf"), -1.0])
def test_a_condition_number_that_is_out_of_range_is_named(condition: float) -> None:
    with pytest.raises(UserError, match=rf"condition is {condition}: allowed .* from 1 to 1e\+12"):
        root(torch.eye(2), "sqrt", solver="minimax", condition=condition)


def test_settings_of_another_solver_are_refused() -> None:
    with pytest.raises(UserError, match="'minimax' has its own backward: use backward='exact'"):
        oc.matrix_sqrt(torch.eye(2), "minimax", "pade")
    for solver in ("eigh", "minimax"):
        with pytest.raises(UserError, match=f"steps are for .*: leave them out for '{solver}'"):
            oc.matrix_sqrt(torch.eye(2), solver, steps=7)
    for solver in ("eigh", "newton-schulz"):
        with pytest.raises(UserError, match=f"condition is for .*: leave it out for '{solver}'"):
            root(torch.eye(2), "sqrt", solver=solver, condition=1e4)


@pytest.mark.parametrize("eps", [1e-2, 1.0, 1e-5, 0.0, 1e9])
def test_a_layers_default_is_enough_for_eigenvalues_up_to_1e4(eps: float) -> None:
    expected = min(max(1e4 / eps, 1), 1e12) if eps else 1e12
    assert minimax.default_condition(eps) == expected
    if eps:
        P = spectrum([1e4, 10.0, 0.0])
        F, outcome = root(P, "inv_sqrt", eps=eps, solver="minimax")
        assert outcome == Outcome.OK
        assert torch.dist(F, root(P, "inv_sqrt", eps=eps)[0]) < 1e-6 * F.norm()
