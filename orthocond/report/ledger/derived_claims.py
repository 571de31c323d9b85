"""Criteria for claims that mathematics decides, each checked on a numerical example (a witness).

The derivations are in the book. One counterexample refutes a claim about all matrices. Where a
claim holds, the derivation proves it, and the witness guards against a mistake in the derivation
or in the code.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from orthocond.layers.decorrelated import DecorrelatedBatchNorm2d
from orthocond.layers.skew import SkewOrthogonalConv2d
from orthocond.report.demonstrations.proposition import BOUND, orthogonal_pair
from orthocond.report.ledger.evidence import Bench, Finding
from orthocond.report.ledger.verdicts import Verdict
from orthocond.spectral.learning_rate import optimal_lr, quartic_coefficients
from orthocond.spectral.polar import polar_factor
from orthocond.treatments import treat

SLACK = 1e-9  # far above float64 rounding errors of small matrices, far below any effect here


@dataclass(frozen=True)
class Derived:
    """Criterion: a derivation decides the claim, and a numerical example checks it.

    Args:
        statement: what holds instead of the claim, or the sense in which the claim holds.
        check: returns whether the claim is true of its witness.
    """

    statement: str
    check: Callable[[], bool]

    def judge(self, bench: Bench) -> Finding:
        """Judge the claim by its witness; no run is read."""
        verdict = Verdict.HOLDS if self.check() else Verdict.FAILS
        return Finding(verdict, self.statement, "derived, with a witness")


def derived(statement: str) -> Callable[[Callable[[], bool]], Derived]:
    """Return a decorator that turns the check of a claim into its criterion."""
    return lambda check: Derived(statement, check)


def _random(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def _orthogonal(n: int) -> Tensor:
    return torch.linalg.qr(_random(n, n)).Q


def _top(A: Tensor) -> Tensor:
    return torch.linalg.matrix_norm(A, ord=2)


def _near(a: Tensor | float, b: Tensor | float) -> bool:
    return bool((torch.as_tensor(a) - torch.as_tensor(b)).abs().max() < SLACK)


@derived("centring removes the bias altogether")
def bias_has_no_influence() -> bool:
    """Return whether cov(W X + b) = cov(W X)."""
    X, b = _random(4, 20), _random(4, 1, seed=1)
    return _near(torch.cov(X + b), torch.cov(X))


@derived("eq. 11, up to the error of its power iteration")
def normalization_gives_norm_one() -> bool:
    """Return whether W, divided by its largest singular value, has a largest one of 1."""
    W = _random(6, 9)
    return _near(_top(W / _top(W)), 1.0)


@derived("≤, with equality in special cases")
def spectral_norm_keeps_the_top() -> bool:
    """Return whether W Y and Y have the same largest singular value, for W scaled to norm 1."""
    W, Y = _random(6, 6), _random(6, 40, seed=1)
    return _near(_top(W / _top(W) @ Y), _top(Y))


@derived("κ does not depend on scale")
def scaling_improves_kappa() -> bool:
    """Return whether dividing a covariance by a number reduces its condition number."""
    P, W = torch.cov(_random(6, 40)), _random(6, 6, seed=1)
    kappa, scaled = (torch.linalg.cond(W @ P @ W.T / s**2) for s in (1, _top(W)))
    return bool(scaled < kappa * (1 - SLACK))


@derived(
    "an orthogonal weight passes on κ of its input; any other may multiply it by "
    "κ(W)², or divide it"
)
def orthogonal_weight_is_best() -> bool:
    """Return whether an orthogonal W keeps kappa(W P W^T) at kappa(P), and another W raises it."""
    P, W = torch.diag(torch.tensor([100.0, 1.0])).double(), torch.diag(torch.tensor([10.0, 1.0]))
    Q = _orthogonal(2)
    kept = torch.linalg.cond(Q @ P @ Q.T) / torch.linalg.cond(P)
    worse = torch.linalg.cond(W.double() @ P @ W.double().T) / torch.linalg.cond(P)
    return _near(kept, 1.0) and bool(worse > 99)


@derived("|WY| = |Y|")
def norm_is_preserved() -> bool:
    """Return whether |W Y|_F = |Y|_F for an orthogonal W; the paper prints |W|_F."""
    W, Y = _orthogonal(4), _random(4, 20, seed=1)
    return _near((W @ Y).norm(), Y.norm())


@derived("eq. 13")
def exponential_is_orthogonal() -> bool:
    """Return whether the exponential of a skew-symmetric matrix is orthogonal."""
    W = _random(6, 6)
    E = torch.linalg.matrix_exp(W - W.T)
    return _near(E @ E.T, torch.eye(6, dtype=torch.float64))


@derived("up to the series' remainder, 2·10⁻⁴ in training")
def skew_convolution_is_orthogonal() -> bool:
    """Return whether the layer's matrix is orthogonal up to the error of its truncated series."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layer = SkewOrthogonalConv2d(3, 3, 3, bias=False, mode="series").double().train()
    pixels = torch.eye(3 * 5 * 5, dtype=torch.float64).reshape(-1, 3, 5, 5)
    with torch.no_grad():
        M = layer(pixels).flatten(1)
    off = _top(M @ M.T - torch.eye(len(M)))
    return bool(off < 2 * 2e-4 + 2e-4**2)  # (1 + r)^2 - 1 for the remainder r = 2e-4 of eq. 13c


@derived("UVᵀ is the one minimiser at full rank, one of many below")
def polar_factor_is_nearest() -> bool:
    """Return whether U V^T is nearer to G than 49 other matrices with orthonormal columns."""
    G = _random(8, 5)
    others = (torch.linalg.qr(G + _random(8, 5, seed=s) / s).Q for s in range(1, 50))
    best = torch.dist(G, polar_factor(G))
    return all(torch.dist(G, R * (R.T @ G).diagonal().sign()) > best for R in others)


@derived("at full rank")
def gradient_is_orthogonal() -> bool:
    """Return whether R^T R = I for the polar factor R of a full-rank gradient."""
    R = polar_factor(_random(64, 27))
    return _near(R.T @ R, torch.eye(27, dtype=torch.float64))


@derived("of the gradient, at full rank")
def gradient_has_kappa_one() -> bool:
    """Return whether the polar factor of a full-rank gradient has singular values 1 only."""
    return _near(torch.linalg.svdvals(polar_factor(_random(64, 27))), 1.0)


@derived("the singular vectors stay, the direction turns, by less than 90°")
def direction_is_kept() -> bool:
    """Return whether the cosine between a gradient and its polar factor is 1."""
    G = _random(64, 27)
    return _near(torch.cosine_similarity(G.flatten(), polar_factor(G).flatten(), dim=0), 1.0)


@derived("if a direction is a pair of singular vectors")
def singular_vectors_are_kept() -> bool:
    """Return whether U^T R V = I for a gradient G = U S V^T and its polar factor R."""
    G = _random(8, 5)
    U, _, Vh = torch.linalg.svd(G, full_matrices=False)
    return _near(U.T @ polar_factor(G) @ Vh.T, torch.eye(5, dtype=torch.float64))


@derived("eq. 20 heads for the smallest weight; at an orthogonal weight it leads away")
def rule_is_nearest_to_orthogonal() -> bool:
    """Return whether an orthogonal weight stays orthogonal in a step with the paper's rate."""
    W = _orthogonal(6)
    G = W + _random(6, 6, seed=1) / 2
    eta = optimal_lr(W, G).item()
    change = sum(c * eta**k for k, c in enumerate(quartic_coefficients(W, G), 1))
    return change < SLACK


@derived("it grows as |W| / |G|, and is at most 0.354 times that")
def rule_is_unbounded() -> bool:
    """Return whether the rate grows in proportion to the weight, without limit."""
    W, G = _random(4, 6), _random(4, 6, seed=1)
    small, large = optimal_lr(W, G), optimal_lr(1e6 * W, G)
    return _near(large / small / 1e6, 1.0)


@derived("behind a whitening layer lᵀw is 0 up to ε; η* vanishes, for that reason")
def weight_product_is_small() -> bool:
    """Return whether w'w is under 0.1 |l'w| at an orthogonal weight before a whitening layer."""
    layer = DecorrelatedBatchNorm2d(8, eps=1e-9, affine=False).double()
    W = torch.linalg.qr(_random(27, 8)).Q.T.reshape(8, 3, 3, 3).requires_grad_()
    loss = layer(F.conv2d(_random(16, 3, 8, 8, seed=1), W)).pow(3).relu().mean()
    (G,) = torch.autograd.grad(loss, W)
    return bool((W * W).sum() < 0.1 * (G * W).sum().abs())


@derived("lᵀl becomes n = 27, and wᵀw is 21: η* is small because lᵀw is")
def orthogonal_gradient_outweighs_the_weight() -> bool:
    """Return whether w'w is under 0.1 l'l for a new stem and an orthogonal gradient."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        W = nn.Conv2d(3, 64, 3).double().weight.detach().flatten(1)
    G = polar_factor(_random(64, 27))
    return bool((W * W).sum() < 0.1 * (G * G).sum())


@derived("its step is as long as |W| times a number, however small the gradient is")
def unswitched_rule_does_not_settle() -> bool:
    """Return whether descent on |W - A|^2 / 2 keeps away from A with eta*, and not with rate 0.1.

    The steps of eta* do not become shorter with the gradient.
    """
    A = _random(4, 6)
    left = []
    for rule in (optimal_lr, lambda W, G: 0.1):
        W = A + 0.1 * _random(4, 6, seed=1)
        for _ in range(200):
            W = W - rule(W, W - A) * (W - A)
        left.append(torch.dist(W, A))
    return bool(left[0] > 0.1 > 1e-6 > left[1])


@derived("at an orthogonal weight the identity turns η* into 0")
def identity_is_negligible() -> bool:
    """Return whether eq. 32 changes by under half without i = Tr I, at an orthogonal weight."""
    W = _orthogonal(6)
    G = W + _random(6, 6, seed=1) / 2
    ww, ll, lw = (W * W).sum(), (G * G).sum(), (G * W).sum()
    kept = (ww * lw - lw * 6) / (ww * ll + 2 * lw**2 - ll * 6)
    return bool((kept - optimal_lr(W, G)).abs() < 0.5 * optimal_lr(W, G).abs())


def _rates(N: int) -> list[float]:
    angles = torch.linspace(0, torch.pi, 13).tolist()
    return [optimal_lr(*orthogonal_pair(N, angle)).item() for angle in angles]


@derived("|η*| ≤ 1/(2√2)")
def rule_is_bounded() -> bool:
    """Return whether no rate of two orthogonal matrices exceeds 1 / (2 sqrt 2) in absolute value.

    At n x n matrices and t = l'w / n, in [-1, 1], eq. 20 is t / (1 + 2 t^2).
    """
    return max(map(abs, _rates(2) + _rates(8) + _rates(64))) < BOUND + SLACK


@derived("and loose: 1/(2√2) is the largest")
def upper_bound_holds() -> bool:
    """Return whether the upper bound of Proposition 1 holds for rotations.

    Pairs of rotations reach every possible inner product of two orthogonal matrices.
    """
    return all(max(_rates(N)) <= N**2 / (N**2 + 2) for N in (2, 8, 64))


@derived("the least is −1/(2√2)")
def lower_bound_holds() -> bool:
    """Return whether the lower bound of Proposition 1 holds for rotations."""
    return all(min(_rates(N)) >= 1 / (N**2 + 2) for N in (2, 8, 64))


@derived("fewer positions than channels do: N − 1 = 195 < 256; 1e16 is float64's noise")
def representation_explains_kappa() -> bool:
    """Return whether random features, which no network made, are well-conditioned.

    At 196 positions kappa must be below 1e6 times kappa at 1,568 positions.
    """
    few, many = (torch.linalg.cond(torch.cov(_random(256, N))) for N in (196, 196 * 8))
    return bool(few < 1e6 * many)


@derived("they act on the gradient and on the step: the network is the same")
def inference_is_unchanged() -> bool:
    """Return whether NOG and OLR leave a network's output, modules and forward hooks unchanged."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).double().eval()
    x, modules = _random(2, 3, 6, 6), [type(m) for m in model.modules()]
    before = model(x)
    treat(model, "0", "nog+olr")
    hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())
    same = [type(m) for m in model.modules()] == modules and torch.equal(model(x), before)
    return same and hooks == 0
