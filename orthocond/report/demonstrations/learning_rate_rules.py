"""Demonstration: the three learning-rate rules compared on real weights and gradients."""

from __future__ import annotations

import math
from collections.abc import Iterable

import pandas as pd
from torch import Tensor

from orthocond.report.demonstrations.real_steps import LEARNING_RATE, RealStep
from orthocond.spectral.learning_rate import Rule, optimal_lr, quartic_coefficients
from orthocond.spectral.polar import polar_factor

RULES: dict[str, tuple[Rule, float | None]] = {
    "paper": ("paper", None),
    "newton": ("newton", None),
    "exact": ("exact", None),
    "exact within [0, lr]": ("exact", LEARNING_RATE),
}


def gain(W: Tensor, G: Tensor, eta: float) -> float:
    """Return the change of the squared objective of eq. 18 by a step with rate eta.

    The change is negative where the step leads nearer to orthogonality.
    """
    return math.fsum(c * eta**k for k, c in enumerate(quartic_coefficients(W, G), 1))


def data(steps: Iterable[RealStep]) -> pd.DataFrame:
    """Return the learning rate of each rule, and the change of the objective by that step.

    Returns:
        Columns step, rule, eta, change (of the squared objective). The last two are NaN where a
        rule gives no learning rate.
    """
    rows = []
    for real in steps:
        for name, (rule, upper) in RULES.items():
            eta = optimal_lr(real.weight, real.gradient, rule, upper).item()
            change = gain(real.weight, real.gradient, eta)
            rows.append({"step": real.step, "rule": name, "eta": eta, "change": change})
    return pd.DataFrame(rows)


def combinations(steps: Iterable[RealStep]) -> pd.DataFrame:
    """Return the paper's learning rate where weight, gradient, both or neither are orthogonal.

    Returns:
        Columns step, weight, gradient (``as it is`` or ``orthogonal``), w'w, l'l, l'w and eta.
    """
    rows = []
    for real in steps:
        for weight, W in (("as it is", real.weight), ("orthogonal", polar_factor(real.weight))):
            pairs = (("as it is", real.gradient), ("orthogonal", polar_factor(real.gradient)))
            for gradient, G in pairs:
                products = {"w'w": (W * W).sum(), "l'l": (G * G).sum(), "l'w": (G * W).sum()}
                rows.append(
                    {"step": real.step, "weight": weight, "gradient": gradient}
                    | {name: value.item() for name, value in products.items()}
                    | {"eta": optimal_lr(W, G).item()}
                )
    return pd.DataFrame(rows)
