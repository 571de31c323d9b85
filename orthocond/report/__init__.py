"""Figures and tables of the paper, drawn from runs: one module each."""
