"""Measurements: conditioning of runs and layers, milliseconds of a training step."""
