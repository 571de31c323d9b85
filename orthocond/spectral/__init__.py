"""Mathematical functions of tensors, without nn.Modules and without state.

The functions ``conditioning``, ``eigh`` and ``newton_schulz`` are not exported here: each would
hide the module of the same name. Import them from that module.
"""

from orthocond.spectral.conditioning import Conditioning
from orthocond.spectral.covariance.lowrank import covariance_sqrt
from orthocond.spectral.eigh import Eigh, Outcome
from orthocond.spectral.learning_rate import optimal_lr
from orthocond.spectral.polar import polar_factor
from orthocond.spectral.powers import matrix_log, matrix_power
from orthocond.spectral.roots import matrix_inv_sqrt, matrix_sqrt

__all__ = [
    "Conditioning",
    "Eigh",
    "Outcome",
    "covariance_sqrt",
    "matrix_inv_sqrt",
    "matrix_log",
    "matrix_power",
    "matrix_sqrt",
    "optimal_lr",
    "polar_factor",
]
