"""Spectral layers: modules that decompose a covariance of their input in every step."""
