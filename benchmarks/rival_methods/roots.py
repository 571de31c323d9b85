"""Methods that whiten features or return the square root of their covariance.

A function that takes a covariance gets the one of the features, in their own dtype: float32. With
"float64" in its name, its user has converted the features first.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

import orthocond as oc
from orthocond.layers.covariance_pool import CovarianceRoot

from .method import Method, package
from .papers import MpaLyaInverse, MpaLyaRoot, isqrt, iternorm

Root = Callable[[Tensor], Tensor]


def covariance(X: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Return the centred features (..., d, n) and their covariance plus eps I (..., d, d)."""
    Y = X - X.mean(-1, keepdim=True)
    P = Y @ Y.mT / X.shape[-1]
    return Y, P + eps * torch.eye(P.shape[-1], dtype=P.dtype, device=P.device) if eps else P


def by_eigh(P: Tensor, power: float) -> Tensor:
    """Return a power of P by torch's eigendecomposition, with torch's autograd."""
    l, U = torch.linalg.eigh(P)
    return (U * l.pow(power).unsqueeze(-2)) @ U.mT


def whiten(X: Tensor, root: Root, eps: float, dtype: torch.dtype) -> Tensor:
    Y, P = covariance(X.to(dtype), eps)
    return (root(P) @ Y).to(X.dtype)


def pool(X: Tensor, root: Root, dtype: torch.dtype) -> Tensor:
    return root(covariance(X.to(dtype), 0.0)[1]).to(X.dtype)


def _kornia(rows: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
    whitened: Tensor = package("kornia").enhance.zca_whiten(
        rows.to(dtype), dim=0, unbiased=False, eps=eps
    )
    return whitened.to(rows.dtype)


def _layer(x: Tensor, eps: float, solver: str, dtype: torch.dtype = torch.float32) -> Tensor:
    norm = oc.DecorrelatedBatchNorm2d(
        x.shape[1], eps=eps, affine=False, track_running_stats=False, solver=solver
    )
    whitened: Tensor = norm.to(x.device)(x.to(dtype))
    return whitened.to(x.dtype)


def _pool_layer(X: Tensor, solver: str) -> Tensor:
    pooled: Tensor = CovarianceRoot(solver)(X.unsqueeze(-1))
    return pooled


PACKAGES: dict[str, tuple[str, Root, Root]] = {
    "torch.linalg.eigh": ("torch", partial(by_eigh, power=-0.5), partial(by_eigh, power=0.5)),
    "spd_learn": (
        "spd_learn",
        lambda P: package("spd_learn.functional").matrix_inv_sqrt.apply(P),
        lambda P: package("spd_learn.functional").matrix_sqrt.apply(P),
    ),
    "torchspd": (
        "torchspd",
        lambda P: package("torchspd").invsqrtm(P),
        lambda P: package("torchspd").sqrtm(P),
    ),
    "MPA-Lya": ("paper", MpaLyaInverse.apply, MpaLyaRoot.apply),
}
"""Source, inverse root and root of the methods that have both."""

DTYPES = {"": torch.float32, ", float64": torch.float64}


def whitening_methods(eps: float) -> list[Method]:
    """Return the methods that whiten features with a ridge eps."""
    layer = partial(_layer, eps=eps)
    wide = partial(layer, solver="eigh", dtype=torch.float64)
    found = [
        Method("orthocond", "orthocond", partial(layer, solver="eigh"), "map"),
        Method("orthocond, minimax", "orthocond", partial(layer, solver="minimax"), "map"),
        Method("orthocond, float64", "orthocond", wide, "map"),
    ]
    for suffix, dtype in DTYPES.items():
        run = partial(_kornia, eps=eps, dtype=dtype)
        found.append(Method(f"kornia{suffix}", "kornia", run, "rows"))
        for name, (source, inverse, _) in PACKAGES.items():
            run = partial(whiten, root=inverse, eps=eps, dtype=dtype)
            found.append(Method(name + suffix, source, run))
    for steps in range(3, 9):
        root = partial(iternorm, steps=steps)
        run = partial(whiten, root=root, eps=eps, dtype=torch.float32)
        found.append(Method(f"IterNorm, T = {steps}", "paper", run))
    return found


def pooling_methods() -> list[Method]:
    """Return the methods that take the root of the covariances of a batch (B, d, n)."""
    found = [
        Method("orthocond", "orthocond", oc.covariance_sqrt),
        Method("orthocond, minimax", "orthocond", partial(_pool_layer, solver="minimax")),
        Method(
            "orthocond, float64",
            "orthocond",
            lambda X: oc.covariance_sqrt(X.double()).to(X.dtype),
        ),
    ]
    for suffix, dtype in DTYPES.items():
        for name, (source, _, root) in PACKAGES.items():
            found.append(Method(name + suffix, source, partial(pool, root=root, dtype=dtype)))
        pot = partial(pool, root=lambda P: package("ot.backend").TorchBackend().sqrtm(P))
        found.append(Method(f"POT{suffix}", "ot", partial(pot, dtype=dtype)))
    for steps in (3, 5, 7):
        run = partial(pool, root=partial(isqrt, steps=steps), dtype=torch.float32)
        found.append(Method(f"iSQRT-COV, N = {steps}", "paper", run))
    return found
