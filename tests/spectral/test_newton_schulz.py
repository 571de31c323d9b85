"""The coupled iteration: its limit, its own backward, and what five steps leave."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import by_condition, spectrum

import orthocond as oc
from orthocond.spectral.eigh import DecompositionError, Outcome
from orthocond.spectral.newton_schulz import newton_schulz
from orthocond.spectral.roots import root


def plain(P: torch.Tensor, iterations: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The iteration as it is written down, differentiated by autograd."""
    trace = P.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None]
    identity = torch.eye(P.shape[-1], dtype=P.dtype)
    Y, Z = P / trace, identity.expand_as(P)
    for _ in range(iterations):
        T = 0.5 * (3 * identity - Z @ Y)
        Y, Z = Y @ T, T @ Z
    return Y * trace.sqrt(), Z / trace.sqrt()


@given(
    st.integers(1, 8),
    st.sampled_from([1.0, 1e3, 1e6]),
    st.sampled_from([1e-12, 1.0, 1e12]),
    st.integers(1, 7),
    st.integers(0, 99),
)
@settings(max_examples=50, deadline=None)
def test_value_and_gradient_are_those_of_the_plain_iteration(d, kappa, scale, steps, seed):
    P = torch.stack([by_condition(d, kappa, scale, seed + i) for i in range(2)]).requires_grad_()
    generator = torch.Generator().manual_seed(seed)
    g = torch.randn(2, *P.shape, dtype=P.dtype, generator=generator)
    ours, theirs = newton_schulz(P, steps), plain(P, steps)
    for a, b, weight in zip(ours, theirs, g, strict=True):
        assert torch.dist(a, b) <= 1e-12 * b.norm()
        (grad,) = torch.autograd.grad((a * weight).sum(), P, retain_graph=True)
        (expected,) = torch.autograd.grad((b * weight).sum(), P, retain_graph=True)
        assert torch.dist(grad, expected) <= 1e-10 * expected.norm() + 1e-14 * a.norm() / scale
    both = torch.autograd.grad((ours[0] * g[0]).sum() + (ours[1] * g[1]).sum(), P)[0]
    expected = torch.autograd.grad((theirs[0] * g[0]).sum() + (theirs[1] * g[1]).sum(), P)[0]
    assert torch.dist(both, expected) <= 1e-10 * expected.norm() + 1e-14 * ours[1].norm() / scale


def test_autocast_changes_neither_pass():
    P = by_condition(6, 10.0).float().requires_grad_()
    expected = newton_schulz(P)
    (grad,) = torch.autograd.grad(sum(F.square().sum() for F in expected), P)
    with torch.autocast("cpu", torch.bfloat16):
        ours = newton_schulz(P)
        (ours_grad,) = torch.autograd.grad(sum(F.square().sum() for F in ours), P)
    assert all(map(torch.equal, (*ours, ours_grad), (*expected, grad)))


def test_gradcheck():
    P = spectrum([3.0, 2.0, 0.5]).requires_grad_()
    assert torch.autograd.gradcheck(lambda P: newton_schulz((P + P.mT) / 2), P)


def test_it_converges_to_the_roots():
    P = by_condition(6, 1e4)
    Q, S = newton_schulz(P, 25)
    assert torch.dist(Q, oc.matrix_sqrt(P)) < 1e-10 * Q.norm()
    assert torch.dist(S, oc.matrix_inv_sqrt(P)) < 1e-8 * S.norm()


def test_five_steps_are_short_of_the_roots_where_the_condition_number_is_large():
    good, bad = by_condition(4, 1.0), by_condition(4, 1e6)
    error = [
        torch.dist(oc.matrix_sqrt(P, solver="newton-schulz"), oc.matrix_sqrt(P))
        for P in (good, bad)
    ]
    assert error[0] < 1e-4 < 1e-2 < error[1]
    inverse = oc.matrix_inv_sqrt(bad, solver="newton-schulz")
    assert torch.linalg.eigvalsh(inverse).max() < 20  # where the true one has 1000


@pytest.mark.parametrize("root", [oc.matrix_sqrt, oc.matrix_inv_sqrt])
def test_it_is_a_solver_of_the_roots(root):
    P = spectrum([3.0, 2.5, 2.0]).float().requires_grad_()
    F = root(P, solver="newton-schulz", eps=0.5)
    assert F.dtype == torch.float32 and torch.dist(F, root(P, eps=0.5)) < 1e-2
    F.sum().backward()
    assert P.grad.isfinite().all()


@pytest.mark.parametrize(("power", "which"), [("sqrt", 0), ("inv_sqrt", 1)])
def test_the_solver_takes_its_five_steps_on_the_sum_with_the_ridge(power, which):
    P = torch.stack([by_condition(4, 1e4, seed=i) for i in range(6)]).view(2, 3, 4, 4)
    expected = plain(P + 0.1 * torch.eye(4).double(), 5)[which]
    strict = oc.matrix_sqrt if power == "sqrt" else oc.matrix_inv_sqrt
    F, outcome = root(P, power, eps=0.1, solver="newton-schulz")
    for ours in (F, strict(P, "newton-schulz", eps=0.1)):
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-13)
    assert outcome.shape == (2, 3) and outcome.dtype == torch.int8 and not outcome.any()


def test_zero_has_the_root_zero():
    P = torch.zeros(2, 3, 3, requires_grad=True)
    Q, S = newton_schulz(P)
    (Q.sum() + S.sum()).backward()
    assert Q.eq(0).all() and S.isfinite().all() and P.grad.isfinite().all()
    F, outcome = root(P, "sqrt", solver="newton-schulz")
    assert F.eq(0).all() and outcome.tolist() == [Outcome.OK] * 2


def test_an_empty_batch_stays_empty():
    assert [root.shape for root in newton_schulz(torch.zeros(2, 0, 3, 3))] == [(2, 0, 3, 3)] * 2


def test_bad_input_is_named():
    for shape in [(3,), (2, 3), (0, 0)]:
        with pytest.raises(ValueError, match="square matrices"):
            newton_schulz(torch.zeros(shape))
    with pytest.raises(ValueError, match="at least 1 step, got 0"):
        newton_schulz(torch.eye(2), 0)
    for value in (float("nan"), float("inf"), -1.0):
        with pytest.raises(
            DecompositionError,
            match=r"^the iteration failed on 1 of 2 matrices: they hold NaN or Inf or have a "
            r"negative trace; check the features before the covariance$",
        ):
            oc.matrix_sqrt(torch.stack([torch.eye(2), value * torch.eye(2)]), "newton-schulz")
