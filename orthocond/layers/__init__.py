"""Spectral layers: whitening, covariance pooling and an orthogonal convolution."""

from orthocond.layers.covariance_pool import CovarianceRoot, GlobalCovariancePool2d
from orthocond.layers.decorrelated import DecorrelatedBatchNorm2d
from orthocond.layers.outcomes import SpectralOutcomes
from orthocond.layers.recalibration import recalibrate
from orthocond.layers.skew import SkewOrthogonalConv2d

__all__ = [
    "CovarianceRoot",
    "DecorrelatedBatchNorm2d",
    "GlobalCovariancePool2d",
    "SkewOrthogonalConv2d",
    "SpectralOutcomes",
    "recalibrate",
]
