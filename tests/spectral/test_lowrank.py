import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from orthocond.spectral.eigh import DecompositionError, Outcome
from orthocond.spectral.lowrank import covariance_root, covariance_sqrt

SHAPES = [(4, 9), (9, 4), (5, 5), (6, 7)]


def features(d: int, n: int, seed: int = 0, decay: float = 0.3) -> Tensor:
    """Features (d, n), float64, with singular values from 1 down to ``decay``."""
    generator = torch.Generator().manual_seed(seed)
    U, _ = torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64))
    V, _ = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64))
    k = min(d, n)
    return U[:, :k] * torch.logspace(0, torch.tensor(decay).log10(), k) @ V[:, :k].mT * n**0.5


def definition(X: Tensor, eps: float) -> Tensor:
    """(X J X^T + eps I)^(1/2) by LAPACK and autograd of torch.linalg.eigh."""
    P = X.cov(correction=0) + eps * torch.eye(len(X), dtype=X.dtype)
    l, U = torch.linalg.eigh(P)
    return U * l.clamp_min(0).sqrt() @ U.mT


@pytest.mark.parametrize(("d", "n"), SHAPES)
def test_it_squares_to_the_covariance(d: int, n: int) -> None:
    X = features(d, n)
    Q = covariance_sqrt(X)
    torch.testing.assert_close(Q @ Q, X.cov(correction=0), rtol=0, atol=1e-13)
    torch.testing.assert_close(Q, Q.mT)
    assert torch.linalg.eigvalsh(Q).min() > -1e-13


@pytest.mark.parametrize(("d", "n"), SHAPES)
@pytest.mark.parametrize("eps", [1e-2, 1.0])
def test_the_ridge_form_has_the_gradient_of_the_definition(d: int, n: int, eps: float) -> None:
    X = features(d, n).requires_grad_()
    g = torch.randn(d, d, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    (ours,) = torch.autograd.grad((covariance_sqrt(X, eps) * g).sum(), X)
    Y = X.detach().clone().requires_grad_()
    # through a random symmetric perturbation's central difference, since P has equal eigenvalues
    direction = torch.randn(d, n, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    h = 1e-5
    with torch.no_grad():
        up, down = definition(Y + h * direction, eps), definition(Y - h * direction, eps)
    expected = ((up - down) * g).sum() / (2 * h)
    assert (ours * direction).sum().item() == pytest.approx(expected.item(), rel=1e-6, abs=1e-8)
    torch.testing.assert_close(covariance_sqrt(Y, eps), definition(Y, eps), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("d", "n"), [(4, 9), (6, 8)])
def test_gradcheck_at_full_rank(d: int, n: int) -> None:
    X = features(d, n).requires_grad_()
    assert torch.autograd.gradcheck(covariance_sqrt, (X,), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("d", "n"), [(9, 4), (12, 6)])
def test_below_full_rank_along_directions_that_keep_the_rank(d: int, n: int) -> None:
    """N - 1 < d: every change of X keeps the rank, so central differences are defined."""
    X = features(d, n).requires_grad_()
    assert torch.autograd.gradcheck(covariance_sqrt, (X,), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("d", "n"), SHAPES)
def test_at_zero_it_is_the_limit_of_the_ridge_form(d: int, n: int) -> None:
    X = features(d, n)
    X[0] = 0  # a dead channel
    X[:, -1] = X[:, 0]  # a repeated column
    g = torch.randn(d, d, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    gradients = []
    for eps in (0.0, 1e-12):
        Y = X.clone().requires_grad_()
        (covariance_sqrt(Y, eps) * g).sum().backward()
        gradients.append(Y.grad)
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    "X",
    [
        torch.zeros(3, 5),
        torch.full((5, 3), 7.0),
        torch.randn(4, 1),
        torch.ones(1, 4),
        torch.tensor([[1.0, 2.0], [1.0, 2.0], [0.0, 0.0]]),
    ],
)
def test_degenerate_features_have_finite_values_and_gradients(X: Tensor) -> None:
    X = X.clone().requires_grad_()
    Q = covariance_sqrt(X)
    Q.square().sum().backward()
    assert Q.isfinite().all() and X.grad is not None and X.grad.isfinite().all()
    torch.testing.assert_close(Q @ Q, X.detach().cov(correction=0).view_as(Q), atol=1e-6, rtol=0)


def test_a_sample_that_fails_is_zero_and_the_others_do_not_notice() -> None:
    X = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0))
    alone = covariance_sqrt(X[0])
    X[1, 2, 3] = torch.nan
    X[2, 0, 0] = torch.inf
    X.requires_grad_()
    Q, outcome = covariance_root(X)
    Q.sum().backward()
    assert outcome.tolist() == [Outcome.OK, Outcome.FAILED, Outcome.FAILED]
    torch.testing.assert_close(Q[0], alone)
    assert X.grad is not None and not Q[1:].any() and not X.grad[1:].any() and X.grad[0].any()
    with pytest.raises(DecompositionError, match="2 of 3 covariances"):
        covariance_sqrt(X)


def test_a_solver_that_raises_is_counted_and_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise torch.linalg.LinAlgError("injected")

    monkeypatch.setattr(torch.linalg, "eigh", refuse)
    monkeypatch.setattr(torch.linalg, "svd", refuse)
    X = torch.randn(2, 5, 4, requires_grad=True)
    Q, outcome = covariance_root(X)
    Q.sum().backward()
    assert outcome.tolist() == [Outcome.FAILED] * 2
    assert X.grad is not None and not Q.any() and not X.grad.any()


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.float32, 2e-3)], ids=str
)
def test_the_accuracy_that_the_docstring_states(dtype: torch.dtype, tolerance: float) -> None:
    X = features(64, 25)
    g = torch.randn(64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    results = []
    for features_, spectral in ((X, torch.float64), (X.float(), dtype)):
        Y = features_.clone().requires_grad_()
        Q = covariance_sqrt(Y, dtype=spectral)
        (Q * g.to(Q.dtype)).sum().backward()
        assert Y.grad is not None
        results.append((Q.detach().double(), Y.grad.double()))
    for ours, reference in zip(results[1], results[0], strict=True):
        assert torch.dist(ours, reference) < tolerance * reference.norm()


@given(
    st.integers(1, 8), st.integers(2, 12), st.integers(0, 99), st.sampled_from([1e-12, 1.0, 1e12])
)
@settings(max_examples=40, deadline=None)
def test_scale_and_orthogonal_maps_pass_through(d: int, n: int, seed: int, scale: float) -> None:
    X = features(d, n, seed)
    R, _ = torch.linalg.qr(features(d, d, seed + 1))
    Q = covariance_sqrt(X)
    torch.testing.assert_close(covariance_sqrt(scale * X) / scale, Q, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(covariance_sqrt(R @ X), R @ Q @ R.mT, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("X", [torch.ones(3), torch.ones(0, 3), torch.ones(3, 0)])
def test_what_is_no_feature_matrix_is_refused(X: Tensor) -> None:
    with pytest.raises(ValueError, match="expected features"):
        covariance_sqrt(X)
    with pytest.raises(ValueError, match="eps"):
        covariance_sqrt(torch.ones(2, 2), eps=-1)
