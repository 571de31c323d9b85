"""The paper's tables and the book's own, built from runs: one module each."""
