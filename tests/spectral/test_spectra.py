"""Drivers that return wrong singular values or eigenvalues without an error, in all uses."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from reference import by_condition
from torch import Tensor, nn

import orthocond as oc
from orthocond.errors import DecompositionError
from orthocond.spectral.spectra import covariance_eigenvalues, singular_values, svd
from orthocond.treatments.sn import largest_singular_value
from orthocond.treatments.step.record import Last

Factors = tuple[Tensor, ...]


def one_off(s: Tensor) -> Tensor:
    s[0] += 1e-6 * s.abs().max()
    return s


def shrunk(s: Tensor) -> Tensor:
    return s * (1 - 1e-9)


def zeros(s: Tensor) -> Tensor:
    return s * 0


def nan_value(s: Tensor) -> Tensor:
    s[-1] = torch.nan
    return s


def infinite(s: Tensor) -> Tensor:
    s[0] = torch.inf
    return s


def repeated(s: Tensor) -> Tensor:
    s[1] = s[0]
    return s


def reversed_order(s: Tensor) -> Tensor:
    return s.flip(0)


def negative(s: Tensor) -> Tensor:
    return -s


VALUE_FAULTS = [one_off, shrunk, zeros, nan_value, infinite, repeated, reversed_order, negative]


def inject(
    monkeypatch: pytest.MonkeyPatch, name: str, fault: Callable[..., Factors], calls: int = 1
) -> None:
    """Make the first calls of a driver of torch.linalg return wrong results, the others right."""
    right, left = getattr(torch.linalg, name), iter(range(calls))

    def driver(A: Tensor, **options: bool) -> Factors:
        found = right(A, **options)
        return found if next(left, None) is None else fault(found)

    monkeypatch.setattr(torch.linalg, name, driver)


def of_first(fault: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Apply a fault to the values of one matrix, or of the first of a batch."""

    def applied(s: Tensor) -> Tensor:
        s = s.clone()
        first = s if s.dim() == 1 else s[0]
        first.copy_(fault(first.clone()))
        return s

    return applied


@pytest.mark.parametrize("fault", VALUE_FAULTS)
@pytest.mark.parametrize("shape", [(6, 6), (4, 9), (27, 8), (3, 5, 4)], ids=str)
def test_wrong_singular_values_are_noticed_and_replaced(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], fault: Callable[[Tensor], Tensor]
) -> None:
    A = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = singular_values(A)
    assert torch.equal(expected, torch.linalg.svdvals(A))
    inject(monkeypatch, "svdvals", of_first(fault))
    count = 3 if len(shape) == 3 else 1
    with pytest.warns(RuntimeWarning, match=f"svdvals on cpu returned a wrong .* 1 of {count} mat"):
        found = singular_values(A)
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("fault", VALUE_FAULTS)
def test_wrong_eigenvalues_are_noticed_and_replaced(
    monkeypatch: pytest.MonkeyPatch, fault: Callable[[Tensor], Tensor], dtype: torch.dtype
) -> None:
    if fault in (one_off, shrunk) and dtype == torch.float32:
        return  # within the rounding of float32
    P = torch.stack([by_condition(12, 1e4, 10.0**seed, seed) for seed in range(3)]).to(dtype)
    expected = torch.linalg.eigvalsh(P)
    inject(monkeypatch, "eigvalsh", of_first(fault))
    with pytest.warns(RuntimeWarning, match="eigvalsh on cpu returned a wrong result for 1 of 3"):
        found = covariance_eigenvalues(P)
    scale = expected[:, -1:]
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(found / scale, expected / scale, rtol=0, atol=20 * eps)
    inject(monkeypatch, "eigvalsh", of_first(fault), calls=2)
    with pytest.warns(RuntimeWarning, match="1 of 1 matrices of size 12 x 12"):
        record = oc.conditioning(P[0])
    assert record.kappa == pytest.approx(1e4, rel=1e-2 if dtype == torch.float32 else 1e-7)


@pytest.mark.parametrize("scale", [0.0, 1e-320, 1e-40, 1.0, 1e300])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_right_values_of_any_scale_pass(scale: float, dtype: torch.dtype) -> None:
    if scale > torch.finfo(dtype).max:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for d in (1, 2, 7, 40):
            P = (by_condition(d, 1e3, 1.0, d) * scale).to(dtype)
            P[-1, 0] *= 1 + 4 * torch.finfo(dtype).eps  # not symmetric to the bit
            torch.testing.assert_close(covariance_eigenvalues(P), torch.linalg.eigvalsh(P))
            torch.testing.assert_close(singular_values(P), torch.linalg.svdvals(P))
            for a, b in zip(svd(P), torch.linalg.svd(P), strict=True):
                assert torch.equal(a, b)


def swapped(found: Factors) -> Factors:
    U, *others = found
    return U.flip(-1), *others


def not_orthogonal(found: Factors) -> Factors:
    U, s, Vh = found
    return U, s, Vh + 1e-6 * Vh.flip(-2)


def wrong_value(found: Factors) -> Factors:
    U, s, Vh = found
    return U, s * (1 + 1e-7), Vh


def lost(found: Factors) -> Factors:
    return tuple(t * torch.nan for t in found)


@pytest.mark.parametrize("fault", [swapped, not_orthogonal, wrong_value, lost])
@pytest.mark.parametrize("shape", [(5, 5), (3, 7), (2, 6, 4)], ids=str)
@pytest.mark.parametrize("calls", [1, 2])
def test_wrong_singular_vectors_are_replaced(
    monkeypatch: pytest.MonkeyPatch,
    shape: tuple[int, ...],
    fault: Callable[[Factors], Factors],
    calls: int,
) -> None:
    """By another call for each matrix, and if this is wrong, too, by its transpose."""
    A = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected = oc.polar_factor(A, "svd")
    inject(monkeypatch, "svd", fault, calls)
    with pytest.warns(RuntimeWarning, match="linalg.svd on cpu returned a wrong result for"):
        torch.testing.assert_close(oc.polar_factor(A, "svd"), expected, rtol=0, atol=1e-13)
    inject(monkeypatch, "svd", fault, 99)
    with (
        pytest.warns(RuntimeWarning, match="wrong result"),
        pytest.raises(DecompositionError, match="no driver returned factors that pass the check"),
    ):
        oc.polar_factor(A, "svd")


def slightly_rotated(found: Factors) -> Factors:
    """Orthonormal to rounding, and so little wrong that R R^T is close to I."""
    l, U = found
    t = torch.tensor(1e-6, dtype=U.dtype)
    a, b = U[..., 0].clone(), U[..., -1].clone()
    U[..., 0], U[..., -1] = t.cos() * a - t.sin() * b, t.sin() * a + t.cos() * b
    return l, U


@pytest.mark.parametrize("shape", [(8, 27), (27, 8), (2, 4, 9)], ids=str)
def test_a_gram_matrix_with_wrong_vectors_is_decomposed_again(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...]
) -> None:
    G = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    expected = oc.polar_factor(G)
    inject(monkeypatch, "eigh", slightly_rotated)
    with pytest.warns(RuntimeWarning, match="linalg.eigh on cpu returned wrong factors"):
        assert torch.equal(oc.polar_factor(G), expected)


@pytest.mark.parametrize("fault", [slightly_rotated, swapped, lost])
def test_the_spectral_norm_has_a_verified_vector(
    monkeypatch: pytest.MonkeyPatch, fault: Callable[[Factors], Factors]
) -> None:
    conv = nn.Conv2d(3, 8, 3)
    oc.treat(nn.Sequential(conv), "0", "sn")
    conv.eval()
    expected = conv.weight.detach()
    of_vectors = fault if fault is not swapped else lambda found: (found[0], found[1].flip(-1))
    inject(monkeypatch, "eigh", of_vectors)
    with pytest.warns(RuntimeWarning, match="for 1 of 1 matrices of size 8 without an error"):
        assert torch.equal(conv.weight, expected)
    monkeypatch.setattr(torch.linalg, "eigh", lambda P: lost((P[..., 0], P)))
    monkeypatch.setattr(torch.linalg, "svd", lambda P: lost((P, P[..., 0], P)))
    with (
        pytest.warns(RuntimeWarning, match="wrong factors"),
        pytest.raises(DecompositionError, match="1 of 1 matrices could not be decomposed"),
    ):
        largest_singular_value(torch.eye(3))


def test_records_and_loaded_states_are_verified(monkeypatch: pytest.MonkeyPatch) -> None:
    G = torch.diag(torch.tensor([4.0, 2.0]))
    last = Last(None, None, True, G, G)
    inject(monkeypatch, "svdvals", one_off)
    with pytest.warns(RuntimeWarning, match="svdvals on cpu returned"):
        assert last.gradient_kappa_before == 2
    source = oc.DecorrelatedBatchNorm2d(3, running="root")
    source(torch.randn(4, 3, 5, 5))
    layer = oc.DecorrelatedBatchNorm2d(3)
    layer.load_state_dict(source.state_dict())
    expected = layer.running_covariance.clone()
    inject(monkeypatch, "eigh", slightly_rotated)
    with pytest.warns(RuntimeWarning, match="wrong factors for 1 of 1 matrices of size 3 "):
        layer.load_state_dict(source.state_dict())
    assert torch.equal(layer.running_covariance, expected)


def test_what_is_not_finite_has_no_singular_values() -> None:
    with pytest.raises(DecompositionError, match="holds NaN or Inf and has no singular values"):
        singular_values(torch.full((2, 3), torch.inf))


def test_empty_batches_stay_empty() -> None:
    assert singular_values(torch.zeros(0, 3, 4)).shape == (0, 3)
    assert svd(torch.zeros(0, 3, 4))[2].shape == (0, 3, 4)
    assert covariance_eigenvalues(torch.zeros(2, 0, 3, 3)).shape == (2, 0, 3)


def test_a_retry_reads_the_lower_triangle_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> Tensor:
        raise torch.linalg.LinAlgError("no convergence")

    P = torch.tensor([[2.0, 0.0], [1.0, 2.0]], dtype=torch.float64)  # [[2, 1], [1, 2]]
    monkeypatch.setattr(torch.linalg, "eigvalsh", fails)
    torch.testing.assert_close(covariance_eigenvalues(P), P.new_tensor([1.0, 3.0]))
