"""The paper's claims, as data, in its order."""

from __future__ import annotations

from orthocond.report.claims import (
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
"""Each sentence of the abstract, sections 4 to 7 and appendix C that asserts a result, with what
section 1 says of figure 1 and the step of appendix A that the learning rate rests on."""
