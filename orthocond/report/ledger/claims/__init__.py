"""Claims of the paper as data, in the paper's order."""

from __future__ import annotations

from orthocond.report.ledger.claims import (
    experiments,
    gradient,
    introduction,
    learning_rate,
    weight_treatments,
)

CLAIMS = (
    *introduction.CLAIMS,
    *weight_treatments.CLAIMS,
    *gradient.CLAIMS,
    *learning_rate.CLAIMS,
    *experiments.CLAIMS,
)
"""Every sentence of the abstract, sections 4 to 7 and appendix C that asserts a result, the
statements of section 1 about figure 1, and the step of appendix A that the learning rate uses."""
