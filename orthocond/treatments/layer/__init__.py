"""The treated layer: its place in the model, its weight as a matrix, and what can be treated."""
