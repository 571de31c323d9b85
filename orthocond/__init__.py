"""Spectral layers, treatments of the layer before them, and honest condition numbers."""

from orthocond.conditioning import Conditioning, ConditioningProbe, conditioning
from orthocond.layers.covariance_pool import GlobalCovariancePool2d
from orthocond.layers.decorrelated import DecorrelatedBatchNorm2d
from orthocond.layers.recalibrate import recalibrate
from orthocond.layers.skew import SkewOrthogonalConv2d
from orthocond.spectral.learning_rate import optimal_lr
from orthocond.spectral.lowrank import covariance_sqrt
from orthocond.spectral.polar import polar_factor
from orthocond.spectral.roots import matrix_inv_sqrt, matrix_sqrt
from orthocond.treatments import Treated, treat

__all__ = [
    "Conditioning",
    "ConditioningProbe",
    "DecorrelatedBatchNorm2d",
    "GlobalCovariancePool2d",
    "SkewOrthogonalConv2d",
    "Treated",
    "conditioning",
    "covariance_sqrt",
    "matrix_inv_sqrt",
    "matrix_sqrt",
    "optimal_lr",
    "polar_factor",
    "recalibrate",
    "treat",
]
