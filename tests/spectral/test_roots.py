"""Values and gradients of the roots, against closed forms, gradcheck and central differences."""

from itertools import product

import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import by_condition, derivative, spectrum
from torch import Tensor

import orthocond as oc
from orthocond.spectral.backward_rules import divided_differences, reciprocal_gaps
from orthocond.spectral.eigh import DecompositionError, Outcome
from orthocond.spectral.roots import root

ROOTS = [oc.matrix_sqrt, oc.matrix_inv_sqrt]


@given(
    st.integers(1, 10),
    st.sampled_from([1.0, 1e4]),
    st.sampled_from([1e-12, 1.0, 1e12]),
    st.sampled_from([torch.float32, torch.float64]),
    st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_the_roots_solve_their_equations(d, kappa, scale, dtype, seed):
    P = by_condition(d, kappa, scale, seed).to(dtype).requires_grad_()
    Q, S = oc.matrix_sqrt(P), oc.matrix_inv_sqrt(P)
    (gradient,) = torch.autograd.grad(Q.trace(), P)
    assert Q.dtype == S.dtype == gradient.dtype == dtype
    P, Q, S, gradient = (t.detach().double() for t in (P, Q, S, gradient))
    rounding = d * torch.finfo(dtype).eps
    # Q Q - P has the residual of the eigenvectors and twice what they lack in orthogonality, and
    # the rounding of three products, whose factors' norms multiply to sqrt(d) |P| at most.
    assert torch.dist(Q @ Q, P) <= (3 + 3 * d**0.5) * rounding * P.norm()
    assert torch.dist(S @ P @ S, torch.eye(d, dtype=P.dtype)) <= 16 * rounding * d * kappa
    # tr P^(1/2) has the gradient P^(-1/2) / 2.
    assert torch.dist(gradient, S / 2) <= 16 * rounding * d * kappa**0.5 * S.norm()


@pytest.mark.parametrize("matrix_root", ROOTS)
@pytest.mark.parametrize("values", [[3, 2, 1], [2, 2, 1], [1, 1, 1], [1 + 1e-9, 1, 0.5]])
def test_exact_gradients_at_equal_near_and_spread_eigenvalues(matrix_root, values):
    P = spectrum(values).requires_grad_()
    assert torch.autograd.gradcheck(lambda P: matrix_root((P + P.mT) / 2), P)


@pytest.mark.parametrize("matrix_root", ROOTS)
@pytest.mark.parametrize("values", [[4, 4, 1], [4, 4 + 1e-7, 1], [16, 4, 1]])
def test_gradients_are_those_of_scipys_root(matrix_root, values):
    def plain(P):
        R = torch.from_numpy(scipy.linalg.sqrtm(P.numpy()).real)
        return R if matrix_root is oc.matrix_sqrt else torch.linalg.inv(R)

    P, g, direction = spectrum(values), spectrum([1, 2, 3], 1), spectrum([1, -1, 2], 2)
    (gradient,) = torch.autograd.grad((matrix_root(P.requires_grad_()) * g).sum(), P)
    slope = derivative(lambda P: (plain(P) * g).sum(), P.detach(), direction, 1e-4)
    assert (gradient * direction).sum().item() == pytest.approx(slope.item(), rel=1e-7)


@pytest.mark.parametrize("matrix_root", ROOTS)
@pytest.mark.parametrize("rule", ["pade", "raw", "taylor"])
def test_the_papers_rules_agree_where_eigenvalues_are_far_apart(matrix_root, rule):
    P = spectrum([8.0, 4.0, 2.0, 1.0]).requires_grad_()
    target = spectrum([1.0, 2.0, 3.0, 4.0], seed=1)
    (exact,) = torch.autograd.grad((matrix_root(P) * target).sum(), P)
    (other,) = torch.autograd.grad((matrix_root(P, backward=rule) * target).sum(), P)
    assert torch.dist(exact, other) < 1e-12 * exact.norm()


@pytest.mark.parametrize("rule", ["exact", "raw", "pade", "taylor"])
def test_divided_differences_are_those_of_the_function(rule):
    l = torch.tensor([[8.0, 2.0, 1.0], [27.0, 9.0, 3.0]], dtype=torch.float64).view(2, 1, 3)
    for power, f, slope in (
        ("sqrt", Tensor.sqrt, lambda x: x**-0.5 / 2),
        ("inv_sqrt", Tensor.rsqrt, lambda x: -(x**-1.5) / 2),
    ):
        D = divided_differences(l, power, rule)
        assert D.shape == (2, 1, 3, 3)
        for x, ours in zip(l.view(2, 3), D.view(2, 3, 3), strict=True):
            for i, j in product(range(3), repeat=2):
                chord = (f(x[i]) - f(x[j])) / (x[i] - x[j]) if i != j else slope(x[i])
                assert ours[i, j].item() == pytest.approx(chord.item(), rel=1e-13)
        assert rule != "exact" or torch.equal(D, divided_differences(l, power))


@pytest.mark.parametrize("x", [0.1, 0.5, 0.9, 0.99, 1 - 1e-6])
def test_the_series_are_the_taylor_polynomial_and_the_fraction_itself(x):
    """Taylor: (1 - x^101) / (1 - x). Pade: 1 / (1 - x), rounded at 1e-16 / (1 - x)^2."""
    l = torch.tensor([4 * x, 4.0], dtype=torch.float64)
    for rule, value, relative in (
        ("taylor", (1 - x**101) / (1 - x), 1e-9),
        ("pade", 1 / (1 - x), 1e-13 + 1e-15 / (1 - x) ** 2),
        ("raw", 1 / (1 - x), 1e-9),
    ):
        K = reciprocal_gaps(l, rule)
        assert K.diagonal().eq(0).all() and torch.equal(K, -K.mT)
        assert K[1, 0].item() == pytest.approx(value / 4, rel=relative)


def test_ties_break_raw_cap_taylor_and_leave_exact_alone():
    P = torch.eye(3, dtype=torch.float64).requires_grad_()
    target = spectrum([1.0, 2.0, 3.0])
    gradient = {
        rule: torch.autograd.grad((oc.matrix_sqrt(P, backward=rule) * target).sum(), P)[0]
        for rule in ("exact", "taylor", "pade", "raw")
    }
    assert torch.allclose(gradient["exact"], target / 2)
    assert gradient["raw"].isnan().any()
    assert gradient["taylor"].isfinite().all() and gradient["pade"].isfinite().all()
    assert not torch.allclose(gradient["taylor"], target / 2)


def test_eps_is_added_to_the_diagonal():
    P = torch.diag(torch.tensor([3.0, 0.0]))
    assert torch.allclose(oc.matrix_sqrt(P, eps=1.0).diagonal(), torch.tensor([2.0, 1.0]))
    assert torch.allclose(oc.matrix_inv_sqrt(P, eps=1.0).diagonal(), torch.tensor([0.5, 1.0]))


@pytest.mark.parametrize("solver", ["eigh", "newton-schulz"])
@pytest.mark.parametrize("power", ["sqrt", "inv_sqrt"])
def test_for_layers_failures_are_zero_and_recorded(power, solver):
    P = torch.eye(2).repeat(1, 3, 1, 1) * 4
    P[0, 1, 0, 0] = float("nan")
    F, outcome = root(P.requires_grad_(), power, solver=solver)
    F.sum().backward()
    assert outcome.tolist() == [[Outcome.OK, Outcome.FAILED, Outcome.OK]]
    assert F[0, 1].eq(0).all() and P.grad[0, 1].eq(0).all()
    value, slope = (2.0, 1 / 4) if power == "sqrt" else (0.5, -1 / 16)
    assert torch.allclose(F[0, ::2], value * torch.eye(2), rtol=1e-4)
    assert torch.allclose(P.grad[0, ::2], torch.tensor(slope), rtol=1e-3)  # at a tie, off it too


def test_for_layers_one_singular_matrix_fails_alone():
    P = torch.eye(3).repeat(2, 4, 1, 1)
    P[1, 2, 0, 0] = 0
    F, outcome = root(P, "inv_sqrt")
    expected = [[Outcome.OK] * 4, [Outcome.OK, Outcome.OK, Outcome.FAILED, Outcome.OK]]
    assert outcome.tolist() == expected and outcome.dtype == torch.int8
    assert F[1, 2].eq(0).all() and torch.allclose(F[1, 3], torch.eye(3))


def test_for_layers_the_backward_rule_is_the_one_asked_for():
    P, target = torch.eye(3).double().requires_grad_(), spectrum([1.0, 2.0, 3.0])
    for rule in ("exact", "taylor"):
        (layer,) = torch.autograd.grad((root(P, "sqrt", rule)[0] * target).sum(), P)
        (plain,) = torch.autograd.grad((oc.matrix_sqrt(P, backward=rule) * target).sum(), P)
        assert torch.equal(layer, plain)


def test_for_layers_eigenvalues_that_rounding_makes_negative_are_bounded():
    P = torch.diag(torch.tensor([1.0, -0.2]))
    F, outcome = root(P, "inv_sqrt", eps=0.02)
    assert outcome == Outcome.OK and F[1, 1].item() == pytest.approx(10.0)
    assert root(P, "inv_sqrt")[1] == Outcome.FAILED
    assert root(P, "sqrt")[0][1, 1] == root(P, "sqrt", eps=0.02)[0][1, 1] == 0


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"unknown backward 'svd'.*exact, pade, taylor, raw"):
        oc.matrix_sqrt(torch.eye(2), backward="svd")
    with pytest.raises(ValueError, match=r"unknown solver 'newton'.*'newton-schulz'\?"):
        oc.matrix_sqrt(torch.eye(2), "newton")
    with pytest.raises(ValueError, match="own backward: use backward='exact', not 'pade'"):
        oc.matrix_sqrt(torch.eye(2), "newton-schulz", "pade")
    with pytest.raises(
        ValueError,
        match=r"^the matrix has no inverse square root: smallest eigenvalue 0; "
        r"pass eps > 0, which is added to the diagonal$",
    ):
        oc.matrix_inv_sqrt(torch.zeros(2, 2))
    with pytest.raises(DecompositionError, match="1 of 1 matrices"):
        oc.matrix_sqrt(torch.full((2, 2), float("nan")))


def test_the_inverse_root_of_an_indefinite_matrix_is_that_of_its_sum_with_the_ridge():
    P = torch.diag(torch.tensor([-0.7, 0.3], dtype=torch.float64))
    expected = torch.tensor([0.3, 1.3], dtype=torch.float64).rsqrt()
    assert torch.allclose(oc.matrix_inv_sqrt(P, eps=1.0).diagonal(), expected, rtol=1e-14)


@pytest.mark.parametrize("dtype", [torch.int64, torch.complex64])
@pytest.mark.parametrize("matrix_root", ROOTS)
def test_what_has_no_real_root_in_its_dtype_is_refused(matrix_root, dtype):
    with pytest.raises(ValueError, match=f"a real floating dtype, got {dtype}"):
        matrix_root(torch.eye(2, dtype=dtype) * 2)
