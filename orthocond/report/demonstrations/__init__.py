"""Figures and tables that need no recorded training runs."""
