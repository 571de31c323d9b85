"""Values and gradients of the roots, against closed forms, gradcheck and central differences."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import orthocond as oc
from orthocond.spectral.eigh import DecompositionError

ROOTS = [oc.matrix_sqrt, oc.matrix_inv_sqrt]


def spectrum(values: list[float], seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    d = len(values)
    Q = torch.linalg.qr(torch.randn(d, d, dtype=torch.float64, generator=generator)).Q
    return (Q * torch.tensor(values, dtype=torch.float64)) @ Q.mT


@given(
    st.integers(1, 10),
    st.sampled_from([1.0, 1e4]),
    st.sampled_from([1e-12, 1.0, 1e12]),
    st.integers(0, 99),
)
@settings(max_examples=50, deadline=None)
def test_the_roots_solve_their_equations(d, kappa, scale, seed):
    P = scale * spectrum(torch.logspace(0, -torch.tensor(kappa).log10().item(), d).tolist(), seed)
    Q, S = oc.matrix_sqrt(P), oc.matrix_inv_sqrt(P)
    assert torch.dist(Q @ Q, P) <= 1e-13 * d * P.norm()
    assert torch.dist(S @ P @ S, torch.eye(d, dtype=P.dtype)) <= 1e-14 * d**2 * kappa


@pytest.mark.parametrize("root", ROOTS)
@pytest.mark.parametrize("values", [[3, 2, 1], [2, 2, 1], [1, 1, 1], [1 + 1e-9, 1, 0.5]])
def test_exact_gradients_at_equal_near_and_spread_eigenvalues(root, values):
    P = spectrum(values).requires_grad_()
    assert torch.autograd.gradcheck(lambda P: root((P + P.mT) / 2), P)


@pytest.mark.parametrize("root", ROOTS)
@pytest.mark.parametrize("rule", ["pade", "raw", "taylor"])
def test_the_papers_rules_agree_where_eigenvalues_are_far_apart(root, rule):
    P = spectrum([8.0, 4.0, 2.0, 1.0]).requires_grad_()
    target = spectrum([1.0, 2.0, 3.0, 4.0], seed=1)
    (exact,) = torch.autograd.grad((root(P) * target).sum(), P)
    (other,) = torch.autograd.grad((root(P, backward=rule) * target).sum(), P)
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


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"unknown backward 'svd'.*exact, pade, taylor, raw"):
        oc.matrix_sqrt(torch.eye(2), backward="svd")
    with pytest.raises(ValueError, match="pass eps > 0"):
        oc.matrix_inv_sqrt(torch.zeros(2, 2))
    with pytest.raises(DecompositionError, match="1 of 1 matrices"):
        oc.matrix_sqrt(torch.full((2, 2), float("nan")))
