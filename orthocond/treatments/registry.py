"""The table of treatments by name, and the parser of sums such as 'nog+ow+olr'."""

from __future__ import annotations

from orthocond.errors import UserError, unknown
from orthocond.treatments.muon import OrthogonalStep
from orthocond.treatments.nog import NearestOrthogonalGradient, RescaledGradient
from orthocond.treatments.ol import OrthogonalLoss
from orthocond.treatments.olr import (
    ExactLearningRate,
    NewtonLearningRate,
    OptimalLearningRate,
    SlowLearningRate,
)
from orthocond.treatments.ow import OrthogonalWeight
from orthocond.treatments.ow_conv import OrthogonalConvolution
from orthocond.treatments.ow_stiefel import StiefelWeight
from orthocond.treatments.polargrad import PolarGradient
from orthocond.treatments.protocol import Treatment
from orthocond.treatments.sn import SpectralNorm

TREATMENTS: dict[str, type[Treatment]] = {
    treatment.name: treatment
    for treatment in (
        NearestOrthogonalGradient,
        PolarGradient,
        SpectralNorm,
        OrthogonalLoss,
        OrthogonalWeight,
        StiefelWeight,
        OrthogonalConvolution,
        OptimalLearningRate,
        NewtonLearningRate,
        ExactLearningRate,
        OrthogonalStep,
        RescaledGradient,
        SlowLearningRate,
    )
}
"""Treatments by name, in canonical order; the last two are controls."""

WHY = {
    "weight": "a layer has one weight parametrization",
    "gradient": "the second would undo the first",
    "step": "a step has one learning rate",
}


def parse_treatments(text: str) -> tuple[str, ...]:
    """Return the names in a sum such as 'olr+nog', in canonical order.

    Raises:
        UserError: a name is unknown, a name occurs twice, or two treatments exclude each other.

    Example:
        >>> parse_treatments("olr+nog")
        ('nog', 'olr')
    """
    names = [name.strip() for name in text.split("+")] if text else []
    for name in names:
        if name not in TREATMENTS:
            raise unknown("treatment", name, TREATMENTS)
        if names.count(name) > 1:
            raise UserError(f"treatment {name!r} is listed {names.count(name)} times in {text!r}")
    for kind, why in WHY.items():
        same = [name for name in TREATMENTS if name in names and TREATMENTS[name].acts_on == kind]
        if len(same) > 1:
            raise UserError(f"{' and '.join(same)} exclude each other: {why}")
    for packed in (name for name in names if TREATMENTS[name].packs):
        for name in names:
            if TREATMENTS[name].acts_on in ("gradient", "step"):
                raise UserError(
                    f"{packed} and {name} exclude each other: the parameter of {packed} packs "
                    f"several matrices, and {name} needs a parameter that is one matrix"
                )
    return tuple(name for name in TREATMENTS if name in names)
