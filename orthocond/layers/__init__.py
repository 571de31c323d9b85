"""Spectral layers: whitening, covariance pooling and an orthogonal convolution."""

from orthocond.layers.conversion import convert_batch_norm
from orthocond.layers.covariance_pool import CovarianceRoot, GlobalCovariancePool2d
from orthocond.layers.decorrelated import (
    DecorrelatedBatchNorm1d,
    DecorrelatedBatchNorm2d,
    DecorrelatedBatchNorm3d,
)
from orthocond.layers.inference.folding import fold
from orthocond.layers.outcomes import SpectralOutcomes
from orthocond.layers.recalibration import recalibrate
from orthocond.layers.skew import SkewOrthogonalConv2d

__all__ = [
    "CovarianceRoot",
    "DecorrelatedBatchNorm1d",
    "DecorrelatedBatchNorm2d",
    "DecorrelatedBatchNorm3d",
    "GlobalCovariancePool2d",
    "SkewOrthogonalConv2d",
    "SpectralOutcomes",
    "convert_batch_norm",
    "fold",
    "recalibrate",
]
