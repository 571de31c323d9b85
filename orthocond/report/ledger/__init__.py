"""Ledger: the paper's claims, the criteria that test them, and the verdicts by fixed rules."""
