"""Time and error of the covariance root against a textbook method and Newton-Schulz.

The benchmark times forward and backward passes at (64, 256, 14, 14) and (64, 512, 7, 7), and
measures the errors of value and gradient. The textbook method uses the full d x d covariance,
torch.linalg.svd and the Pade backward rule, in float64.

python benchmarks/gcp.py [--rounds 9] [--threads 2]
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from common import begin, options, show, write
from torch import Tensor

from orthocond.measure.timer import median_seconds
from orthocond.spectral.backward_rules import DEGREE
from orthocond.spectral.covariance.lowrank import covariance_sqrt
from orthocond.spectral.newton_schulz import newton_schulz
from orthocond.spectral.roots import matrix_sqrt

SHAPES = {"14x14": (64, 256, 196), "7x7": (64, 512, 49)}
# Samples that are timed. The time is linear in them and is scaled to 64 samples.
TEXTBOOK_SAMPLES = {"14x14": 64, "7x7": 16}
SPECTRA = {"well-spread": 0.1, "decaying": 1e-3}  # smallest eigenvalue of the root / largest
ERROR_SAMPLES = 4

Root = Callable[[Tensor], Tensor]


class _TextbookRoot(torch.autograd.Function):
    """Matrix square root by equations 3 to 7, with a Pade approximation in the backward pass.

    The factor 1 / (1 - x) of K is P(x) / Q(x); both polynomials are sums of running powers.
    """

    @staticmethod
    def forward(ctx: Any, P: Tensor) -> Tensor:
        U, s, _ = torch.linalg.svd(P)
        s = s.clamp_min(torch.finfo(P.dtype).eps)
        ctx.save_for_backward(U, s)
        return U @ torch.diag_embed(s.sqrt()) @ U.mT

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        U, s = ctx.saved_tensors
        g = (gradients[0] + gradients[0].mT) / 2
        x = s.unsqueeze(-2) / s.unsqueeze(-1)
        x = torch.where(x < 1, x, 1 / x)  # smaller eigenvalue / larger eigenvalue
        power = p = q = torch.ones_like(x)
        for k in range(1, DEGREE // 2 + 1):
            power = power * x
            p = p + (1 - 2 * k / DEGREE) * power
            q = q - 2 / DEGREE * power
        q = q.clamp_min(torch.finfo(q.dtype).eps)  # q is zero at equal eigenvalues
        K = (p / q / torch.maximum(s.unsqueeze(-1), s.unsqueeze(-2))).triu(1)  # s is descending
        K = K - K.mT
        dU = 2 * g @ U @ torch.diag_embed(s.sqrt())  # eq. 5
        UdU = U.mT @ dU
        dS = torch.diag_embed(UdU.diagonal(dim1=-2, dim2=-1) / (4 * s))  # eq. 6
        M = K.mT * UdU
        return U @ ((M + M.mT) / 2 + dS) @ U.mT  # eq. 7


def covariance(X: Tensor) -> Tensor:
    Y = X - X.mean(-1, keepdim=True)
    return Y @ Y.mT / X.shape[-1]


def textbook(X: Tensor) -> Tensor:
    return _TextbookRoot.apply(covariance(X.double())).to(X.dtype)


def full(X: Tensor) -> Tensor:
    """Return the root by our full path: eigh, exact backward, and a ridge for singular matrices."""
    return matrix_sqrt(covariance(X.double()), eps=1e-10).to(X.dtype)


def iterated(X: Tensor) -> Tensor:
    """Return the root by iSQRT-COV: five Newton-Schulz steps in the features' dtype."""
    return newton_schulz(covariance(X))[0]


ROOTS: dict[str, Root] = {
    "low-rank": covariance_sqrt,
    "low-rank float32": partial(covariance_sqrt, dtype=torch.float32),
    "full": full,
    "textbook": textbook,
    "newton-schulz": iterated,
}


def features(samples: int, d: int, n: int, smallest: float) -> Tensor:
    """Return float32 features whose covariance roots have given nonzero eigenvalues.

    The nonzero eigenvalues go from 1 down to ``smallest`` at equal ratios.
    """
    k = min(d, n - 1)
    U = torch.linalg.qr(torch.randn(samples, d, k)).Q
    ones = torch.ones(samples, n, 1)  # the other columns are orthogonal to it, so they are centred
    V = torch.linalg.qr(torch.cat([ones, torch.randn(samples, n, k)], -1)).Q[..., 1:]
    return n**0.5 * (U * torch.logspace(0, torch.tensor(smallest).log10(), k)) @ V.mT


def definition(X: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    """Return the root and its gradient in float64, from an SVD of the features with a full U."""
    n = X.shape[-1]
    Y = X.double()
    Y = (Y - Y.mean(-1, keepdim=True)) / n**0.5
    U, s, _ = torch.linalg.svd(Y)
    s = torch.where(s > 1e-10 * s[..., :1], s, 0)
    s = torch.cat([s, s.new_zeros(*s.shape[:-1], Y.shape[-2] - s.shape[-1])], -1)
    sums = s.unsqueeze(-1) + s.unsqueeze(-2)
    D = torch.where(sums > 0, 1 / sums, 0)  # zero between vectors of the null space
    dP = U @ (D * (U.mT @ ((g + g.mT) / 2).double() @ U)) @ U.mT
    return (U * s.unsqueeze(-2)) @ U.mT, 2 * dP @ Y / n**0.5


def both(root: Root, X: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    X = X.detach().requires_grad_()
    Q = root(X)
    return Q.detach(), torch.autograd.grad(Q, X, g)[0]


def errors(d: int, n: int, smallest: float) -> dict[str, dict[str, float]]:
    """Return the relative Frobenius errors of value and gradient against ``definition``."""
    X, g = features(ERROR_SAMPLES, d, n, smallest), torch.randn(ERROR_SAMPLES, d, d)
    exact = definition(X, g)
    return {
        name: {
            part: float(torch.dist(ours, theirs) / theirs.norm())
            for part, ours, theirs in zip(
                ("value", "gradient"), both(root, X, g), exact, strict=True
            )
        }
        for name, root in ROOTS.items()
    }


def times(shape: str, rounds: int, device: str) -> dict[str, float]:
    samples, d, n = SHAPES[shape]
    X = features(samples, d, n, SPECTRA["well-spread"]).to(device)
    g = torch.randn(samples, d, d, device=device)
    counts = dict.fromkeys(ROOTS, samples) | {"textbook": TEXTBOOK_SAMPLES[shape]}
    cases = {
        name: partial(both, root, X[: counts[name]], g[: counts[name]])
        for name, root in ROOTS.items()
    }
    medians = median_seconds(cases, rounds, warmup=1)
    return {name: seconds * samples / counts[name] for name, seconds in medians.items()}


def main() -> None:
    arguments = options(__doc__, 9)
    device = begin(arguments.threads)
    wrong = {
        shape: {spectrum: errors(d, n, smallest) for spectrum, smallest in SPECTRA.items()}
        for shape, (_, d, n) in SHAPES.items()
    }
    medians = {shape: times(shape, arguments.rounds, device) for shape in SHAPES}
    for shape in SHAPES:
        show(f"{shape}, forward and backward", medians[shape], "low-rank")
        for spectrum, table in wrong[shape].items():
            for name, error in table.items():
                parts = ", ".join(f"{part} {e:.0e}" for part, e in error.items())
                print(f"  {spectrum:12s} {name:18s} {parts}")
    write(
        arguments.out,
        "gcp",
        median_seconds=medians,
        shapes=SHAPES,
        textbook_samples_timed=TEXTBOOK_SAMPLES,
        relative_errors=wrong,
    )


if __name__ == "__main__":
    main()
