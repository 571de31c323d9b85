"""Spectral layers, treatments of the layer before them, and honest condition numbers."""

from orthocond.spectral.learning_rate import optimal_lr
from orthocond.spectral.polar import polar_factor

__all__ = ["optimal_lr", "polar_factor"]
