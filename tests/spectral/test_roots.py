"""Values and gradients of the roots, against closed forms, gradcheck and central differences."""

import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import by_condition, derivative, spectrum

import orthocond as oc
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
    assert torch.dist(Q @ Q, P) <= 4 * rounding * P.norm()
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
    P = torch.eye(2).repeat(3, 1, 1) * 4
    P[1, 0, 0] = float("nan")
    F, outcome = root(P.requires_grad_(), power, solver=solver)
    F.sum().backward()
    assert outcome.tolist() == [Outcome.OK, Outcome.FAILED, Outcome.OK]
    assert F[1].eq(0).all() and P.grad[1].eq(0).all()
    value = 2.0 if power == "sqrt" else 0.5
    assert torch.allclose(F[::2], value * torch.eye(2), rtol=1e-4)
    assert P.grad[::2].diagonal(dim1=-2, dim2=-1).ne(0).all()


def test_for_layers_eigenvalues_that_rounding_makes_negative_are_bounded():
    P = torch.diag(torch.tensor([1.0, -0.2]))
    F, outcome = root(P, "inv_sqrt", eps=0.02)
    assert outcome == Outcome.OK and F[1, 1].item() == pytest.approx(10.0)
    assert root(P, "inv_sqrt")[1] == Outcome.FAILED
    assert root(P, "sqrt")[0][1, 1] == 0


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"unknown backward 'svd'.*exact, pade, taylor, raw"):
        oc.matrix_sqrt(torch.eye(2), backward="svd")
    with pytest.raises(ValueError, match=r"unknown solver 'newton'.*'newton-schulz'\?"):
        oc.matrix_sqrt(torch.eye(2), "newton")
    with pytest.raises(ValueError, match="own backward: use backward='exact', not 'pade'"):
        oc.matrix_sqrt(torch.eye(2), "newton-schulz", "pade")
    with pytest.raises(ValueError, match="pass eps > 0"):
        oc.matrix_inv_sqrt(torch.zeros(2, 2))
    with pytest.raises(DecompositionError, match="1 of 1 matrices"):
        oc.matrix_sqrt(torch.full((2, 2), float("nan")))


@pytest.mark.parametrize("solver", ["eigh", "newton-schulz"])
@pytest.mark.parametrize("matrix_root", ROOTS)
def test_a_second_derivative_is_refused_and_not_wrong(matrix_root, solver):
    P = spectrum([3, 2, 1]).requires_grad_()
    (g,) = torch.autograd.grad(matrix_root(P, solver).square().sum(), P, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        g.sum().backward()


def test_the_inverse_root_of_an_indefinite_matrix_is_that_of_its_sum_with_the_ridge():
    P = torch.diag(torch.tensor([-0.7, 0.3], dtype=torch.float64))
    expected = torch.tensor([0.3, 1.3], dtype=torch.float64).rsqrt()
    assert torch.allclose(oc.matrix_inv_sqrt(P, eps=1.0).diagonal(), expected, rtol=1e-14)


@pytest.mark.parametrize("dtype", [torch.int64, torch.complex64])
@pytest.mark.parametrize("matrix_root", ROOTS)
def test_what_has_no_real_root_in_its_dtype_is_refused(matrix_root, dtype):
    with pytest.raises(ValueError, match=f"a real floating dtype, got {dtype}"):
        matrix_root(torch.eye(2, dtype=dtype) * 2)
