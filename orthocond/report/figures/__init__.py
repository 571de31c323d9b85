"""Figures drawn from runs: those of the paper, and further ones of the book."""
