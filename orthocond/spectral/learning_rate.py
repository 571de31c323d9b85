"""Optimal learning rate (OLR): the step that brings a weight closest to an orthogonal matrix.

Note [The quartic]
    e(eta) = |(W - eta G)(W - eta G)^T - I|_F^2 (eq. 18, squared) is a quartic in eta. With
    A = W W^T - I, B = -(G W^T + W G^T) and C = G G^T its derivative is
    2<A,B> + 2 eta (|B|^2 + 2<A,C>) + 6 eta^2 <B,C> + 4 eta^3 |C|^2.
    The quartics of W W^T and of W^T W differ by a constant only, so the smaller product is used.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from orthocond.errors import UserError, require_floating, unknown
from orthocond.host import double, wide_device

Rule = Literal["paper", "newton", "exact"]


def quartic_coefficients(W: Tensor, G: Tensor) -> tuple[float, float, float, float]:
    """Return c1 to c4 of e(eta) = e(0) + c1 eta + c2 eta^2 + c3 eta^3 + c4 eta^4 (eq. 18).

    Args:
        W: weight (rows, ...), flattened to a matrix (rows, columns).
        G: gradient, of the same shape.
    """
    W, G = double(W.detach().flatten(1)), double(G.detach().flatten(1))
    if W.shape[0] > W.shape[1]:
        W, G = W.mT, G.mT
    A = W @ W.mT - torch.eye(W.shape[0], dtype=W.dtype, device=W.device)
    B = -(G @ W.mT + W @ G.mT)
    C = G @ G.mT
    AB, BB, AC, BC, CC = torch.stack(
        [(A * B).sum(), (B * B).sum(), (A * C).sum(), (B * C).sum(), (C * C).sum()]
    ).tolist()
    return 2 * AB, BB + 2 * AC, 2 * BC, CC


def _exact(W: Tensor, G: Tensor, upper: float | None) -> float:
    c1, c2, c3, c4 = quartic_coefficients(W, G)
    if c4 == 0:  # G = 0: all values of eta are equally good
        return 0.0
    if not np.isfinite([c1, c2, c3, c4]).all():
        return float("nan")
    roots = np.roots([4 * c4, 3 * c3, 2 * c2, c1])
    # The real part of a complex root is a harmless extra candidate: it is never the best one.
    candidates = [float(eta) for eta in roots.real]
    if upper is not None:
        candidates = [min(max(eta, 0.0), upper) for eta in candidates] + [0.0, upper]
    return min(candidates, key=lambda eta: eta * (c1 + eta * (c2 + eta * (c3 + eta * c4))))


def _newton(W: Tensor, G: Tensor) -> float:
    c1, c2, _, _ = quartic_coefficients(W, G)
    return -c1 / (2 * c2) if c2 > 0 else float("nan")


def _paper(W: Tensor, G: Tensor) -> float:
    w, l = double(W.detach().flatten()), double(G.detach().flatten())
    ww, ll, lw = torch.stack([w @ w, l @ l, l @ w]).tolist()
    denominator = ww * ll + 2 * lw * lw
    return ww * lw / denominator if denominator > 0 else float("nan")


def optimal_lr(W: Tensor, G: Tensor, rule: Rule = "paper", upper: float | None = None) -> Tensor:
    """Return the learning rate eta that brings W - eta G near an orthogonal matrix (eqs. 18 to 21).

    - ``paper`` is eq. 20, eta* = w'w l'w / (w'w l'l + 2 (l'w)^2), where w is the flattened W and l
      the flattened G. It is Newton's step from 0 on |W - eta G|_F^4. That is the objective of
      eq. 18 only if W has a single row.
    - ``newton`` is Newton's step from 0 on the objective of eq. 18.
    - ``exact`` is the global minimiser of eq. 18.

    Args:
        W: weight (rows, ...), any floating dtype, flattened to a matrix (rows, columns).
        G: gradient, of the same shape.
        rule: ``paper``, ``newton`` or ``exact``.
        upper: the learning rate of the other layers. If it is given, ``paper`` and ``newton``
            return eta if 0 < eta < upper and ``upper`` otherwise (eq. 21, with the lower limit
            that the paper omits). ``exact`` returns the minimiser over [0, upper], which may
            be 0. If a rule has no step, the result is ``upper``.

    Returns:
        A 0-d float64 tensor on W's device, or on the CPU if that has no float64. It is NaN if the
        rule has no step and ``upper`` is not given. ``newton`` has no step if the curvature is not
        positive, ``paper`` if G = 0 or W = 0, and all rules if W or G holds NaN or Inf.

    Raises:
        UserError: the rule is unknown, the shapes differ, the weight has fewer than 2 dimensions,
            or a tensor is not of a real floating dtype.

    Example:
        >>> W = torch.eye(2)
        >>> round(optimal_lr(W, W).item(), 4), optimal_lr(W, W, "exact", upper=0.1).item()
        (0.3333, 0.0)
    """
    if rule not in get_args(Rule):
        raise unknown("rule", rule, get_args(Rule))
    require_floating(W, "a weight")
    require_floating(G, "a gradient")
    if W.shape != G.shape or W.dim() < 2:
        raise UserError(
            f"weight and gradient must have the same shape, with at least 2 dimensions, "
            f"got {tuple(W.shape)} and {tuple(G.shape)}"
        )
    if rule == "exact":
        eta = _exact(W, G, upper)
        eta = upper if upper is not None and math.isnan(eta) else eta
    else:
        eta = _paper(W, G) if rule == "paper" else _newton(W, G)
        if upper is not None and not 0 < eta < upper:  # also if eta is NaN
            eta = upper
    return torch.tensor(eta, dtype=torch.float64, device=wide_device(W.device))
