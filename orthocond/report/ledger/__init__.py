"""The ledger: claims of the paper, the criteria that test them, and verdicts by rule."""
