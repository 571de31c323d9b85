"""The paper's figures and the book's own, drawn from runs: one module each."""
