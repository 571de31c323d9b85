"""Training: the plan of a grid, its session, and the steps of one run."""
