"""Measurements: the conditioning of runs and layers, and the time of a training step."""
