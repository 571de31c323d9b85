"""OLR, the optimal learning rate (eqs. 18 to 21), with three rules to find it, and a control."""

from __future__ import annotations

import math
from typing import ClassVar

from orthocond.spectral.learning_rate import Rule, optimal_lr
from orthocond.treatments.protocol import Step, Treatment


class OptimalLearningRate(Treatment):
    """OLR: steps with the paper's eta* (eq. 20) if 0 < eta* < lr, else with lr.

    Eq. 21 has only the upper bound; the lower bound is added here.
    """

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
    """OLR with eta from one Newton step from 0 on the objective of eq. 18, if 0 < eta < lr."""

    name = "olr-newton"
    rule = "newton"


class ExactLearningRate(Treatment):
    """OLR with the eta that minimises the objective of eq. 18 over [0, lr]; eta may be 0."""

    name = "olr-exact"
    acts_on = "step"

    def on_step(self, step: Step) -> None:
        """Choose eta from W and G."""
        step.eta = optimal_lr(step.W, step.G, "exact", upper=step.lr).item()
        if step.eta < step.lr and math.isfinite(step.eta):
            step.rate = step.eta


class SlowLearningRate(Treatment):
    """A control for OLR: takes every step with a tenth of the learning rate."""

    name = "slow"
    acts_on = "step"

    def on_step(self, step: Step) -> None:
        """Choose lr / 10."""
        step.eta = step.rate = step.lr / 10
