"""Methods that orthogonalise a gradient."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

import orthocond as oc

from .method import Method, package
from .papers import cans


def by_svd(G: Tensor, dtype: torch.dtype) -> Tensor:
    U, _, Vt = torch.linalg.svd(G.to(dtype), full_matrices=False)
    return (U @ Vt).to(G.dtype)


def muon(
    G: Tensor,
    steps: int = 5,
    coefficients: tuple[float, float, float] = (3.4445, -4.7750, 2.0315),
) -> Tensor:
    """Return the factor that torch.optim.Muon steps by, through its public interface.

    Without momentum and decay, a step of rate 1 from zero is minus the factor of a wide matrix.
    """
    parameter = torch.nn.Parameter(torch.zeros_like(G))
    parameter.grad = G.clone()
    torch.optim.Muon(
        [parameter],
        lr=1.0,
        weight_decay=0.0,
        momentum=0.0,
        nesterov=False,
        ns_coefficients=coefficients,
        ns_steps=steps,
    ).step()
    return -parameter.detach()


def by_spd_learn(G: Tensor, dtype: torch.dtype) -> Tensor:
    factor: Tensor = package("spd_learn.functional").orthogonal_polar_factor(G.mT.to(dtype))
    return factor.mT.to(G.dtype)


def polar_methods() -> list[Method]:
    """Return the methods for wide float32 matrices (m, n)."""
    converging = partial(muon, steps=20, coefficients=(2.0, -1.5, 0.5))
    return [
        Method("orthocond", "orthocond", oc.polar_factor),
        Method("torch.optim.Muon", "torch", muon),
        Method("torch.optim.Muon, 20 steps of (2, -1.5, 0.5)", "torch", converging),
        Method("CANS, l = 1e-3", "paper", partial(cans, least=1e-3)),
        Method("CANS, l = 1e-6", "paper", partial(cans, least=1e-6)),
        Method("torch.linalg.svd", "torch", partial(by_svd, dtype=torch.float32)),
        Method("torch.linalg.svd, float64", "torch", partial(by_svd, dtype=torch.float64)),
        Method("spd_learn", "spd_learn", partial(by_spd_learn, dtype=torch.float32)),
        Method("spd_learn, float64", "spd_learn", partial(by_spd_learn, dtype=torch.float64)),
    ]
