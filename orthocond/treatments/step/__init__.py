"""Treatments around the optimizer's step: hooks, closures, and the record of a step."""
