"""Conditioning probes: measure the covariance of a layer's features in a running model."""

from orthocond.probes.covariance import batch_covariance, sample_covariances
from orthocond.probes.probe import ConditioningProbe, ProbeRecord
from orthocond.probes.rank import structural_rank

__all__ = [
    "ConditioningProbe",
    "ProbeRecord",
    "batch_covariance",
    "sample_covariances",
    "structural_rank",
]
