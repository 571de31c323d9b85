"""History of the ledger: its first verdicts, and the rules that changed since."""
