"""OLR, the optimal learning rate (eqs. 18 to 21), by three rules."""

from __future__ import annotations

import math
from typing import ClassVar

from orthocond.spectral.learning_rate import Rule, optimal_lr
from orthocond.treatments.protocol import Step, Treatment


class OptimalLearningRate(Treatment):
    """The paper's eta* (eq. 20) where 0 < eta* < lr, else lr (eq. 21 with its lower side)."""

    name = "olr"
    acts_on = "step"
    rule: ClassVar[Rule] = "paper"

    def on_step(self, step: Step) -> None:
        """Choose eta from W and G."""
        eta = optimal_lr(step.W, step.G, self.rule).item()
        step.eta = eta
        if 0 < eta < step.lr:
            step.rate = eta


class NewtonLearningRate(OptimalLearningRate):
    """Newton's step from 0 on the objective of eq. 18, under the same guard."""

    name = "olr-newton"
    rule = "newton"


class ExactLearningRate(Treatment):
    """The minimiser of the objective of eq. 18 over [0, lr]; 0 is a legal answer."""

    name = "olr-exact"
    acts_on = "step"

    def on_step(self, step: Step) -> None:
        """Choose eta from W and G."""
        step.eta = optimal_lr(step.W, step.G, "exact", upper=step.lr).item()
        if step.eta < step.lr and math.isfinite(step.eta):
            step.rate = step.eta


class SlowLearningRate(Treatment):
    """A control for OLR: a tenth of the learning rate, in every step."""

    name = "slow"
    acts_on = "step"

    def on_step(self, step: Step) -> None:
        """lr / 10."""
        step.eta = step.rate = step.lr / 10
