"""Treatments of the layer before a spectral layer: one module each, one protocol for all."""

from orthocond.treatments.apply import treat
from orthocond.treatments.last import Last
from orthocond.treatments.protocol import Options, Step, Treatment
from orthocond.treatments.registry import TREATMENTS, parse_treatments
from orthocond.treatments.several import TreatedLayers
from orthocond.treatments.treated import Treated

__all__ = [
    "TREATMENTS",
    "Last",
    "Options",
    "Step",
    "Treated",
    "TreatedLayers",
    "Treatment",
    "parse_treatments",
    "treat",
]
