"""Treatments of the layer before a spectral layer: one module each."""
