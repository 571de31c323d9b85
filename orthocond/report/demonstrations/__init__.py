"""Figures and tables that are computed without runs."""
