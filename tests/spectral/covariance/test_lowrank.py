"""The root of a covariance against sqrtm, Sylvester's equation and central differences."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from orthocond.errors import UserError
from orthocond.spectral.covariance.lowrank import covariance_root, covariance_sqrt
from orthocond.spectral.eigh import DecompositionError, Outcome

SHAPES = [(4, 9), (9, 4), (5, 5), (6, 7), (7, 6)]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def features(d: int, n: int, decay: float = 0.3, seed: int = 0) -> Tensor:
    """(d, n), whose covariance has roots from 1 down to ``decay`` on a support of min(d, n - 1)."""
    k = min(d, n - 1)
    U = torch.linalg.qr(normal(d, d, seed=seed)).Q[:, :k]
    centred = torch.cat([torch.ones(n, 1, dtype=torch.float64), normal(n, n - 1, seed=seed)], 1)
    V = torch.linalg.qr(centred).Q[:, 1 : k + 1]
    s = torch.logspace(0, torch.tensor(decay).log10().item(), k, dtype=torch.float64)
    return (U * s) @ V.mT * n**0.5 + 5 * normal(d, 1, seed=seed + 1)


def both(X: Tensor, g: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
    """The root, and the gradient for dl/dQ = g, in float64."""
    X = X.detach().clone().requires_grad_()
    Q = covariance_sqrt(X, **options)
    Q.backward(g.to(Q.dtype))
    assert X.grad is not None
    return Q.detach().double(), X.grad.double()


@pytest.mark.parametrize(("d", "n"), SHAPES)
def test_it_squares_to_the_covariance(d: int, n: int) -> None:
    X = features(d, n)
    Q = covariance_sqrt(X)
    torch.testing.assert_close(Q @ Q, X.cov(correction=0), rtol=0, atol=1e-13)
    torch.testing.assert_close(Q, Q.mT, rtol=0, atol=1e-14)
    assert torch.linalg.eigvalsh(Q).min() > -1e-13


@pytest.mark.parametrize(("d", "n"), SHAPES)
@pytest.mark.parametrize("eps", [1e-4, 1e-2, 1.0])
def test_the_ridge_form_solves_sylvesters_equation(d: int, n: int, eps: float) -> None:
    X, g = features(d, n), normal(d, d, seed=9)
    X[0] = 0
    expected = reference.covariance_sqrt(X, eps, g)
    for ours, theirs in zip(both(X, g, eps=eps), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-11)


@pytest.mark.parametrize(("d", "n"), [(4, 9), (6, 8), (9, 4), (12, 6)])
def test_gradcheck(d: int, n: int) -> None:
    """At full rank, and for N - 1 < d, where every change of X keeps the rank."""
    X = features(d, n).requires_grad_()
    assert torch.autograd.gradcheck(covariance_sqrt, (X,), rtol=1e-6, atol=1e-8)
    assert torch.autograd.gradcheck(lambda X: covariance_sqrt(X, 0.1), (X,), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(("d", "n"), SHAPES)
def test_equal_singular_values_are_harmless(d: int, n: int) -> None:
    X = features(d, n, decay=1.0).requires_grad_()
    assert torch.autograd.gradcheck(covariance_sqrt, (X,), rtol=1e-6, atol=1e-8)


def with_a_dead_channel(X: Tensor) -> Tensor:
    return X.index_fill(0, torch.tensor([1]), 0.0)


def with_a_repeated_channel(X: Tensor) -> Tensor:
    return X.index_copy(0, torch.tensor([1]), X[:1])


def with_repeated_columns(X: Tensor) -> Tensor:
    return torch.cat([X, X], 1)


@pytest.mark.parametrize(("d", "n"), SHAPES)
@pytest.mark.parametrize(
    "make_singular",
    [Tensor.clone, with_a_dead_channel, with_a_repeated_channel, with_repeated_columns],
)
def test_at_zero_it_is_the_limit_of_the_ridge_form(
    d: int, n: int, make_singular: Callable[[Tensor], Tensor]
) -> None:
    """The difference falls with the root of eps, as the ridge on the null space does."""
    X, g = make_singular(features(d, n)), normal(d, d, seed=9)
    Q, gradient = both(X, g)
    for eps in (1e-4, 1e-6, 1e-8, 1e-10):
        ridge_Q, ridge_gradient = reference.covariance_sqrt(X, eps, g)
        bound = 30 * d * eps**0.5
        assert torch.dist(Q, ridge_Q) < bound
        assert torch.dist(gradient, ridge_gradient) < bound * gradient.norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("eps", [0.0, 1e-2])
@pytest.mark.parametrize(
    "X",
    [
        torch.zeros(3, 5),
        torch.full((5, 3), 7.0),
        torch.full((3, 5), 0.1),
        torch.randn(4, 1),
        torch.ones(1, 4),
        torch.ones(1, 1),
        torch.tensor([[1.0, 2.0], [1.0, 2.0], [0.0, 0.0]]),
    ],
    ids=lambda X: "x".join(map(str, X.shape)),
)
def test_degenerate_features_have_finite_values_and_gradients(
    X: Tensor, eps: float, dtype: torch.dtype
) -> None:
    Q, gradient = both(X, torch.ones(len(X), len(X)), eps=eps, dtype=dtype)
    P = X.double().cov(correction=0).view_as(Q) + eps * torch.eye(len(X))
    torch.testing.assert_close(Q @ Q, P, atol=1e-6, rtol=0)
    assert gradient.isfinite().all()
    if X.shape[1] == 1:
        assert not gradient.any()


@pytest.mark.parametrize(("d", "n"), [(24, 12), (12, 24), (64, 49)])
@pytest.mark.parametrize(
    ("dtype", "decay", "tolerance"),
    [
        (torch.float64, 1.0, 1e-6),
        (torch.float64, 1e-3, 1e-6),
        (torch.float64, 1e-5, 1e-6),
        (torch.float32, 1.0, 5e-6),
        (torch.float32, 0.1, 5e-6),
    ],
    ids=str,
)
def test_the_accuracy_that_the_docstring_states(
    dtype: torch.dtype, decay: float, tolerance: float, d: int, n: int
) -> None:
    X, g = features(d, n, decay).float(), normal(d, d, seed=9)
    # Of the rounded features, since only the arithmetic is in question.
    for ours, exact in zip(both(X, g, dtype=dtype), both(X.double(), g), strict=True):
        assert torch.dist(ours, exact) < tolerance * exact.norm()


def test_float32_drops_what_float64_resolves() -> None:
    X, g = features(24, 40, 1e-3).float(), torch.eye(24)
    double, single = (
        torch.linalg.matrix_rank(both(X, g, dtype=dtype)[0], rtol=1e-4)
        for dtype in (torch.float64, torch.float32)
    )
    assert double == 24 and single < 24


def test_batches_are_the_samples_one_by_one() -> None:
    X = torch.stack([features(5, 4, seed=i) for i in range(6)]).view(2, 3, 5, 4)
    Q = covariance_sqrt(X)
    assert Q.shape == (2, 3, 5, 5)
    torch.testing.assert_close(Q[1, 2], covariance_sqrt(X[1, 2]))
    assert covariance_sqrt(X[:0]).shape == (0, 3, 5, 5)
    assert covariance_sqrt(X[0, :0]).shape == (0, 5, 5)
    assert torch.equal(covariance_root(X)[0], Q)


@pytest.mark.parametrize(("d", "n"), [(4, 9), (9, 4)])
def test_the_smaller_side_is_decomposed(d: int, n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    lapack, sides = torch.linalg.eigh, []

    def watched(P: Tensor) -> tuple[Tensor, Tensor]:
        sides.append(P.shape[-1])
        return lapack(P)

    monkeypatch.setattr(torch.linalg, "eigh", watched)
    covariance_sqrt(features(d, n))
    assert sides == [min(d, n)]


def test_a_constant_added_to_a_channel_changes_nothing() -> None:
    X, g = features(6, 5), normal(6, 6, seed=9)
    shifted = X + 1e3 * normal(6, 1, seed=7)
    for here, there in zip(both(X, g), both(shifted, g), strict=True):
        torch.testing.assert_close(here, there, rtol=0, atol=1e-9)
    torch.testing.assert_close(both(X, g)[1].sum(1), torch.zeros(6).double(), rtol=0, atol=1e-13)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_features_are_computed_in_full(dtype: torch.dtype) -> None:
    X = features(6, 5).to(dtype).requires_grad_()
    Q = covariance_sqrt(X)
    Q.sum().backward()
    assert Q.dtype == dtype and X.grad is not None and X.grad.dtype == dtype
    torch.testing.assert_close(Q, covariance_sqrt(X.detach().double()).to(dtype))


@pytest.mark.parametrize("spectral", [torch.float32, torch.float64])
def test_autocast_changes_neither_pass(spectral: torch.dtype) -> None:
    X, g = features(6, 5).float(), normal(6, 6, seed=9)
    expected = both(X, g, dtype=spectral)
    with torch.autocast("cpu", torch.bfloat16):
        for ours, theirs in zip(both(X, g, dtype=spectral), expected, strict=True):
            assert torch.equal(ours, theirs)


def test_a_sample_that_fails_is_zero_and_the_others_do_not_notice() -> None:
    X = normal(3, 5, 4).float()
    alone = both(X[0], torch.ones(5, 5))
    X[1, 2, 3] = torch.nan
    X[2, 0, 0] = torch.inf
    X.requires_grad_()
    for eps in (0.1, 0.0):
        X.grad = None
        Q, outcome = covariance_root(X, eps)
        Q.sum().backward()
        assert outcome.tolist() == [Outcome.OK, Outcome.FAILED, Outcome.FAILED]
        assert X.grad is not None and not Q[1:].any() and not X.grad[1:].any() and X.grad[0].any()
    for ours, theirs in zip((Q[0], X.grad[0]), alone, strict=True):
        torch.testing.assert_close(ours.double(), theirs)
    with pytest.raises(
        DecompositionError,
        match=r"^2 of 3 covariances could not be decomposed: the features hold NaN or Inf, or no "
        r"driver converged$",
    ):
        covariance_sqrt(X)


def refuse(*_: object) -> None:
    raise torch.linalg.LinAlgError("injected")


def spoil(P: Tensor) -> tuple[Tensor, Tensor]:
    return torch.full_like(P[..., 0], torch.nan), torch.full_like(P, torch.nan)


@pytest.mark.parametrize("fault", [refuse, spoil])
def test_an_eigh_that_fails_is_replaced_or_counted(
    fault: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    X, g = features(5, 4), normal(5, 5, seed=9)
    expected = both(X, g)
    monkeypatch.setattr(torch.linalg, "eigh", fault)
    assert covariance_root(X)[1] == Outcome.RETRIED
    for ours, theirs in zip(both(X, g), expected, strict=True):
        torch.testing.assert_close(ours, theirs)
    monkeypatch.setattr(torch.linalg, "svd", refuse)
    X.requires_grad_()
    Q, outcome = covariance_root(X)
    Q.sum().backward()
    assert outcome == Outcome.FAILED and not Q.any() and X.grad is not None and not X.grad.any()


@given(
    st.integers(1, 8),
    st.integers(2, 12),
    st.integers(0, 99),
    st.sampled_from([1e-200, 1e-12, 1.0, 1e12, 1e200]),
)
@settings(max_examples=40, deadline=None)
def test_scale_and_orthogonal_maps_pass_through(d: int, n: int, seed: int, scale: float) -> None:
    X, g = features(d, n, seed=seed), normal(d, d, seed=seed + 3)
    R = torch.linalg.qr(normal(d, d, seed=seed + 4)).Q
    Q, gradient = both(X, g)
    scaled_Q, scaled_gradient = both(scale * X, g)
    torch.testing.assert_close(scaled_Q / scale, Q, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(scaled_gradient, gradient, rtol=1e-9, atol=1e-11)
    turned_Q, turned_gradient = both(R @ X, R @ g @ R.mT)
    torch.testing.assert_close(turned_Q, R @ Q @ R.mT, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(turned_gradient, R @ gradient, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(("d", "n"), [(2, 5), (3, 4), (3, 3), (4, 3), (3, 1)])
@pytest.mark.parametrize("decay", [1.0, 0.3])
@pytest.mark.parametrize("eps", [0.0, 0.1])
def test_derivatives_at_the_rank_of_the_shape(d: int, n: int, decay: float, eps: float) -> None:
    """The singular values are equal or simple. For n - 1 < d every change of X keeps the rank."""
    X = (features(d, n, decay) if n > 1 else normal(d, n)).requires_grad_()
    root = partial(covariance_sqrt, eps=eps)
    assert gradcheck(root, X, check_forward_ad=True)
    assert gradgradcheck(root, X, check_fwd_over_rev=True, fast_mode=True)


@pytest.mark.parametrize("n", [6, 4, 3])
def test_below_that_rank_there_is_a_first_derivative_only(n: int) -> None:
    X, g, dX = with_a_repeated_channel(features(4, n)), normal(4, 4), normal(4, n, seed=3)
    X[2:] = X[0]

    def loss(X: Tensor, eps: float = 0.0) -> Tensor:
        return (covariance_sqrt(X, eps) * g).sum()

    plain = both(X, g)[1]
    gradient = torch.autograd.grad(loss(X.requires_grad_()), X, create_graph=True)[0]
    assert torch.equal(gradient, plain) and torch.equal(torch.func.grad(loss)(X.detach()), plain)
    line = "no second derivative below rank min.d, N - 1., where the root has a kink.*pass eps > 0"
    with pytest.raises(UserError, match=line):
        gradient.sum().backward()
    slope = torch.func.jvp(loss, (X.detach(),), (dX,))[1]
    torch.testing.assert_close(slope, (plain * dX).sum())
    with pytest.raises(UserError, match=line):
        torch.func.hessian(loss)(X.detach())
    assert gradgradcheck(partial(loss, eps=0.1), X, fast_mode=True)


@pytest.mark.parametrize(("d", "n"), [(3, 5), (4, 3)])
def test_torch_func_and_samples_of_their_own_scale(d: int, n: int) -> None:
    scale = torch.tensor([1.0, 1e-200, 1e200], dtype=torch.float64).view(3, 1, 1)
    X = torch.stack([features(d, n, seed=i) for i in range(3)])
    g = normal(d, d)

    def loss(X: Tensor) -> Tensor:
        return (covariance_sqrt(X) * g).sum()

    vmap, grad = torch.func.vmap, torch.func.grad
    torch.testing.assert_close(vmap(covariance_sqrt)(X), covariance_sqrt(X))
    torch.testing.assert_close(vmap(grad(loss))(scale * X), both(X, g.expand(3, d, d))[1])
    hessian = torch.autograd.functional.hessian(loss, X[0])
    torch.testing.assert_close(torch.func.hessian(loss)(X[0]), hessian)
    torch.testing.assert_close(vmap(torch.func.hessian(loss))(X)[0], hessian)


@pytest.mark.parametrize(
    ("X", "options", "message"),
    [
        (torch.ones(3), {}, r"expected features \(\.\.\., d, N\).*got \(3,\)"),
        (torch.ones(0, 3), {}, r"expected features .*got \(0, 3\)"),
        (torch.ones(3, 0), {}, r"expected features .*got \(3, 0\)"),
        (torch.ones(2, 2, dtype=torch.long), {}, "floating dtype, got torch.int64"),
        (torch.ones(2, 2), {"eps": -1.0}, "eps must be 0 or more and finite, got -1.0"),
        (torch.ones(2, 2), {"eps": float("nan")}, "eps must be 0 or more and finite, got nan"),
        (torch.ones(2, 2), {"eps": float("inf")}, "eps must be 0 or more and finite, got inf"),
        (torch.ones(2, 2), {"dtype": torch.float16}, "torch.float32, got torch.float16"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(
    X: Tensor, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        covariance_sqrt(X, **options)
    with pytest.raises(ValueError, match=message):
        covariance_root(X, **options)
