"""Treatments of the layer before a spectral layer: one module each, one protocol for all."""

from orthocond.treatments.last import Last
from orthocond.treatments.protocol import Options, Step, Treatment
from orthocond.treatments.registry import TREATMENTS, parse_treatments
from orthocond.treatments.treated import Treated, treat

__all__ = [
    "TREATMENTS",
    "Last",
    "Options",
    "Step",
    "Treated",
    "Treatment",
    "parse_treatments",
    "treat",
]
