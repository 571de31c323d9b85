"""Spectral layers, treatments of the layer before them, and honest condition numbers."""

from orthocond.spectral.learning_rate import optimal_lr
from orthocond.spectral.polar import polar_factor
from orthocond.spectral.roots import matrix_inv_sqrt, matrix_sqrt

__all__ = ["matrix_inv_sqrt", "matrix_sqrt", "optimal_lr", "polar_factor"]
