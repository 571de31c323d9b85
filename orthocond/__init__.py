"""Spectral layers, treatments of the layer before them, and measured condition numbers."""

from importlib.metadata import PackageNotFoundError, version

from orthocond.errors import DecompositionError, UserError
from orthocond.layers import (
    DecorrelatedBatchNorm1d,
    DecorrelatedBatchNorm2d,
    DecorrelatedBatchNorm3d,
    GlobalCovariancePool2d,
    SkewOrthogonalConv2d,
    convert_batch_norm,
    fold,
    recalibrate,
)
from orthocond.probes import ConditioningProbe, structural_rank
from orthocond.spectral import (
    Conditioning,
    covariance_sqrt,
    matrix_inv_sqrt,
    matrix_log,
    matrix_power,
    matrix_sqrt,
    optimal_lr,
    polar_factor,
)
from orthocond.spectral.conditioning import conditioning
from orthocond.treatments import Treated, treat

try:
    __version__ = version("orthocond")
except PackageNotFoundError:  # imported from a source tree that was never installed
    __version__ = "unknown"

__all__ = [
    "Conditioning",
    "ConditioningProbe",
    "DecompositionError",
    "DecorrelatedBatchNorm1d",
    "DecorrelatedBatchNorm2d",
    "DecorrelatedBatchNorm3d",
    "GlobalCovariancePool2d",
    "SkewOrthogonalConv2d",
    "Treated",
    "UserError",
    "__version__",
    "conditioning",
    "convert_batch_norm",
    "covariance_sqrt",
    "fold",
    "matrix_inv_sqrt",
    "matrix_log",
    "matrix_power",
    "matrix_sqrt",
    "optimal_lr",
    "polar_factor",
    "recalibrate",
    "structural_rank",
    "treat",
]
