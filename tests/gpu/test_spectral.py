"""Roots at the sizes at which solvers on a GPU change their driver, against the CPU in float64."""

from __future__ import annotations

import pytest
import torch
from reference import by_condition, spectrum
from torch import Tensor

import orthocond as oc

pytestmark = pytest.mark.gpu

SIZES = [33, 64, 128, 256, 512]
EPS = torch.finfo(torch.float64).eps
ROOTS = [oc.matrix_sqrt, oc.matrix_inv_sqrt]


def pair(matrix_root, P: Tensor, solver: str, device: torch.device) -> list[Tensor]:
    """Value and gradient for a fixed direction, brought back to the CPU."""
    d = P.shape[-1]
    g = spectrum(torch.linspace(-1, 2, d), seed=1) + torch.triu(torch.ones(d, d).double())
    P = P.detach().to(device).clone().requires_grad_()
    F = matrix_root(P, solver=solver)
    F.backward(g.to(device).expand_as(F))
    assert P.grad is not None and F.device.type == P.grad.device.type == device.type
    return [F.detach().cpu(), P.grad.cpu()]


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("matrix_root", ROOTS)
@pytest.mark.parametrize("solver", ["eigh", "minimax"])
def test_roots_at_condition_1e4(solver: str, matrix_root, n: int, device: torch.device) -> None:
    P = torch.stack([by_condition(n, 1e4, seed=seed) for seed in range(2)])
    expected = pair(matrix_root, P, "eigh", torch.device("cpu"))
    for ours, reference in zip(pair(matrix_root, P, solver, device), expected, strict=True):
        for a, b in zip(ours, reference, strict=True):
            assert torch.dist(a, b) <= n * EPS * 1e4 * b.norm()


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("matrix_root", ROOTS)
def test_minimax_at_condition_1e6(matrix_root, n: int, device: torch.device) -> None:
    P = by_condition(n, 1e6)
    F, gradient = pair(matrix_root, P, "minimax", device)
    expected, slope = pair(matrix_root, P, "eigh", torch.device("cpu"))
    assert torch.dist(F, expected) <= 1e-10 * expected.norm()
    assert torch.dist(gradient, slope) <= 1e-9 * slope.norm()
