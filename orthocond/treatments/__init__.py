"""Treatments of the layer before a spectral layer: one module per treatment, one shared protocol.

A treatment changes how one layer is trained: it acts on the layer's weight, on the loss, on the
gradient or on the optimizer's step.
"""

from orthocond.treatments.apply import treat
from orthocond.treatments.protocol import Options, Step, Treatment
from orthocond.treatments.registry import TREATMENTS, parse_treatments
from orthocond.treatments.several import TreatedLayers
from orthocond.treatments.step.record import Last
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
